"""Runs one search in several processes on this machine.

    python launch/local.py --num_processes=2 -- --config=test --workdir=runs/two
    python launch/local.py --gpus=0,1 -- --config=cifar10 --workdir=runs/two

Arguments after `--` go to `python -m epe_nas_jax.main`. With `--gpus` there is a process for each
GPU in the list: named by its number or, for a slice of a divided GPU (MIG), by its UUID. Without,
the processes run on the CPU, to try a run on many hosts, and each scores as many cells at a time as
its share of the cores, at least one. SIGTERM and SIGINT are passed on to all of them. When one
fails, the others have ten seconds to end by themselves; the exit status is that of the first.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from absl import app, flags

GRACE_SECONDS = 10

_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes on the CPU.", lower_bound=1
)
_GPUS = flags.DEFINE_list("gpus", None, "GPUs, one process each, as in CUDA_VISIBLE_DEVICES.")
flags.register_validator(
    "gpus",
    lambda gpus: gpus is None or (all(gpus) and len(set(gpus)) == len(gpus) > 0),
    "expected names of GPUs, each once",
)
flags.mark_flags_as_mutual_exclusive(["num_processes", "gpus"])


def start(
    arguments: Sequence[str], num_processes: int, gpus: Sequence[str] = ()
) -> list[subprocess.Popen[bytes]]:
    """Starts the processes in sessions of their own, so that a terminal signals this one only.

    Args:
      arguments: the arguments of each process.
      num_processes: how many processes there are, if they run on the CPU.
      gpus: the GPU of each process; by default they run on the CPU.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    num_cores = len(os.sched_getaffinity(0))
    on_cpu = {
        "JAX_PLATFORMS": "cpu",
        # Processes are not bound to cores: with fewer cores XLA would sum in another order.
        "JAX_NUM_CPU_DEVICES": str(max(1, num_cores // num_processes)),
    }
    environments = [{**on_cpu, **os.environ}] * num_processes
    if gpus:
        environments = [{**os.environ, "CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus]
    return [
        subprocess.Popen(  # noqa: S603
            [
                sys.executable,
                "-m",
                "epe_nas_jax.main",
                *arguments,
                f"--coordinator_address={address}",
                f"--num_processes={len(environments)}",
                f"--process_id={index}",
            ],
            env=environment,
            start_new_session=True,
        )
        for index, environment in enumerate(environments)
    ]


def wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits until all have ended, ends the others when one fails, and returns the exit status."""
    statuses: list[tuple[int, int]] = []
    ended = threading.Condition()

    def watch(index: int) -> None:
        status = processes[index].wait()
        with ended:
            statuses.append((index, status))
            ended.notify()

    for index in range(len(processes)):
        threading.Thread(target=watch, args=[index], daemon=True).start()

    def all_have_ended() -> bool:
        return len(statuses) == len(processes)

    def failed() -> list[tuple[int, int]]:
        return [(index, status) for index, status in statuses if status]

    with ended:
        ended.wait_for(lambda: all_have_ended() or failed())
        if not failed():
            return 0
        index, status = failed()[0]
        print(f"process {index} {_in_words(status)}: the others end too", file=sys.stderr)
        if not ended.wait_for(all_have_ended, GRACE_SECONDS):
            for process in processes:
                process.kill()
            ended.wait_for(all_have_ended)
    return status if status > 0 else 128 - status


def _in_words(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"


def main(argv: Sequence[str]) -> None:
    """Starts the processes, forwards signals, and waits."""
    processes: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _: object) -> None:
        for process in processes:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    processes += start(argv[1:], _NUM_PROCESSES.value or 2, _GPUS.value or ())
    sys.exit(wait(processes))


if __name__ == "__main__":
    app.run(main)
