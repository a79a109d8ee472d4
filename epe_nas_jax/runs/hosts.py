"""The processes of one run, on one machine or many: how they meet, exchange messages and end.

They meet by `jax.distributed`. A message is bytes; each process sends one and receives those of
all, so every process makes the same calls of `exchange` in the same order. A run of one process
sends nothing.
"""

import contextlib
import json
import re
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from epe_nas_jax.errors import InputError
from epe_nas_jax.runs.stopping import StopRequested

_ADDRESS = re.compile(r"\S+:[0-9]{1,5}")
# After this long a process notices that another one died, if it does not wait for it.
_HEARTBEAT_SECONDS = 30
# How long a process that ends waits for the others, which have agreed to end.
_SHUTDOWN_SECONDS = 30
# The first byte of a message: its sender continues, or has failed.
_MESSAGE, _FAILURE = b"s", b"f"


class ProcessLost(Exception):  # noqa: N818
    """Another process of the run died, or cannot be reached any more."""


class _Failed(Exception):  # noqa: N818
    """The run fails in all processes, because one of them failed or is lost.

    Attributes:
      outcome: what to raise here.
    """

    def __init__(self, outcome: Exception):
        super().__init__(str(outcome))
        self.outcome = outcome


def join(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Connects to the other processes of the run; call it before anything asks JAX for devices.

    JAX ends the process if they do not connect within five minutes.

    Args:
      coordinator_address: host and a free port of process 0. An argument that is None is taken from
        SLURM, Open MPI, Kubernetes or the TPU.
      num_processes: how many processes there are, or None.
      process_id: the index of this process, from 0, or None.

    Raises:
      InputError: an argument is wrong, or it is None and the job's system does not know it.
      ProcessLost: another process died meanwhile.
    """
    if coordinator_address is not None and not _ADDRESS.fullmatch(coordinator_address):
        raise InputError(f"coordinator_address: found {coordinator_address!r}, expected HOST:PORT")
    is_given = None not in (coordinator_address, num_processes, process_id)
    # `stopping` handles SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)  # type: ignore[no-untyped-call]
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            cluster_detection_method="deactivate" if is_given else None,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
        # Every process connects to all others now, while none is busy.
        exchange(b"")
    except (ValueError, RuntimeError) as error:
        raise InputError(f"other processes of the run: {error}") from None
    except _Failed as failed:
        raise failed.outcome from None


def index() -> int:
    """The index of this process in the run, from 0; process 0 writes the results.

    Examples:
      >>> from epe_nas_jax.runs import hosts
      >>> hosts.index(), hosts.count()
      (0, 1)
    """
    return jax.process_index() if jax.distributed.is_initialized() else 0


def count() -> int:
    """How many processes share the run."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def exchange(message: bytes) -> list[bytes]:
    """Sends a message to all processes and returns those of all, in the order of the processes.

    Waits for the slowest process. Call it within `one_outcome`, which says what is raised if a
    process fails.
    """
    if count() == 1:
        return [message]
    return _exchange(_MESSAGE + message)


@contextlib.contextmanager
def one_outcome() -> Iterator[None]:
    """Makes the work within it end in the same way in all processes.

    If one of them fails, is stopped or dies, the others raise an error, too.

    Raises:
      ProcessLost: another process died.
      InputError: another process raised InputError or OSError.
      StopRequested: another process was asked to stop.
      RuntimeError: another process failed in another way.
    """
    if count() == 1:
        yield
        return
    try:
        yield
        exchange(b"")
    except _Failed as failed:
        raise failed.outcome from None
    except BaseException as error:
        with contextlib.suppress(_Failed):
            _exchange(_FAILURE + _failure(error))
        raise


def _exchange(message: bytes) -> list[bytes]:
    try:
        messages = _gather(message)
    # A broken connection raises one or the other, depending on when it is noticed.
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        cause = str(error).splitlines()[0]
        lost = f"another process of this run has died or cannot be reached ({cause})"
        raise _Failed(ProcessLost(lost)) from None
    for process, content in enumerate(messages):
        if content[:1] == _FAILURE:
            raise _Failed(_outcome(process, content[1:]))
    return [content[1:] for content in messages]


def _gather(message: bytes) -> list[bytes]:
    """The messages of all processes."""
    sizes = _gather_rows(np.array([len(message)], np.int32))[:, 0]
    # Few different lengths, since JAX compiles a program for each.
    row = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
    row[: len(message)] = np.frombuffer(message, np.uint8)
    rows = _gather_rows(row)
    return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]


def _gather_rows(row: np.ndarray) -> np.ndarray:
    """The rows of all processes as one array, sent through one device of each process."""
    devices = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh(np.array([devices[process] for process in range(count())]), ("processes",))
    by_process = NamedSharding(mesh, PartitionSpec("processes"))  # type: ignore[no-untyped-call]
    replicated = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]
    rows = jax.make_array_from_process_local_data(  # type: ignore[no-untyped-call]
        by_process, row[None]
    )
    return np.asarray(jax.jit(_identity, out_shardings=replicated)(rows).addressable_data(0))


def _identity(rows: jax.Array) -> jax.Array:
    return rows


def _failure(error: BaseException) -> bytes:
    if isinstance(error, StopRequested):
        return json.dumps({"signal": error.signal_number}).encode()
    if isinstance(error, InputError | OSError):
        return json.dumps({"error": str(error)}).encode()
    return json.dumps({"other": f"{type(error).__name__}: {error}"}).encode()


def _outcome(process: int, failure: bytes) -> Exception:
    """The exception to raise here for the failure of another process."""
    content = json.loads(failure)
    if "signal" in content:
        return StopRequested(content["signal"])
    if "error" in content:
        return InputError(f"process {process}: {content['error']}")
    return RuntimeError(f"process {process}: {content['other']}")
