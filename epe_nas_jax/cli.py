"""The command line that every command shares: flags, and errors in one line."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from epe_nas_jax import hosts, runtime
from epe_nas_jax.errors import InputError
from epe_nas_jax.stopping import StopRequested


def run_command(work: Callable[[ConfigDict, str], str], *, many_hosts: bool = False) -> None:
    """Runs a command given by `--config=configs/<name>.py --workdir=DIR [--config.key=value ...]`.

    Whatever the user can mend is told in one line and exits with 2; a run stopped by a signal exits
    as shells expect it, with 128 and the signal's number (143 for SIGTERM, 130 for SIGINT).

    Args:
      work: from the config and the work directory to the text to print.
      many_hosts: whether several processes may share the work, by further flags.
    """
    config = config_flags.DEFINE_config_file("config", None, "Path of the config file.")
    workdir = flags.DEFINE_string("workdir", None, "Directory for the results.", required=True)
    flags.mark_flag_as_required("config")  # type: ignore[no-untyped-call]
    join = _define_many_hosts() if many_hosts else None

    def prepare_and_work() -> str:
        runtime.prepare()
        if join:
            join()
        with hosts.one_outcome():
            return work(config.value, workdir.value)

    run_with_flags(prepare_and_work)


def _define_many_hosts() -> Callable[[], None]:
    """Defines the flags by which processes meet; returns what meets them if a flag is given."""
    distributed = flags.DEFINE_bool(
        "distributed",
        False,
        "Share the work with the other processes of this SLURM, Open MPI, Kubernetes or TPU job; "
        "elsewhere the three flags below say which they are.",
    )
    address = flags.DEFINE_string("coordinator_address", None, "Host and free port of process 0.")
    num_processes = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
    process_id = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")

    def join() -> None:
        given = (address.value, num_processes.value, process_id.value)
        if distributed.value or any(value is not None for value in given):
            hosts.join(address.value, num_processes.value, process_id.value)

    return join


def run_with_flags(work: Callable[[], str]) -> None:
    """Runs a command whose flags are defined.

    Whatever the user can mend is told in one line and exits with 2.

    Args:
      work: reads the flags and returns the text to print.
    """

    def main(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            _fail(f"argument {argv[1]!r}: expected flags only")
        absl_logging.set_verbosity(absl_logging.WARNING)
        # Of this package's own, how far it is: on a terminal a bar shows that.
        logging.getLogger("epe_nas_jax").setLevel(
            logging.WARNING if sys.stderr.isatty() else logging.INFO
        )
        try:
            text = work()
            if text:
                print(_printable(text))
        except (InputError, OSError) as error:
            _fail(str(error))
        except StopRequested as stop:
            print(f"{stop}: the same command goes on from here", file=sys.stderr)
            sys.exit(128 + stop.signal_number)
        except hosts.ProcessLost as lost:
            print(f"{lost}: the same command goes on from here", file=sys.stderr, flush=True)
            # At a normal end JAX would wait for the one that is lost.
            os._exit(1)

    app.run(main, flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except KeyError as error:
        _fail(f"config key {error}: unknown, expected one of configs/base.py")
    except (flags.Error, OSError, AttributeError, TypeError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    print("error:", _printable(" ".join(message.split())), file=sys.stderr)
    sys.exit(2)


def _printable(text: str) -> str:
    """Text that a terminal shows and does not obey: names in files may be anybody's."""
    return "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
    )
