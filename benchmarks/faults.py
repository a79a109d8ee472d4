"""Injects faults into runs of 300 cells and prints the table of docs/scaling.md.

Command:  python -m benchmarks.faults
Needs:    Linux; root for the full and the read-only disk, whose rows say so otherwise.
Takes:    28 minutes on 2 busy CPU cores, nearly all of it for starting Python 76 times.

The real command runs on real images (digits), with a small network. After each fault the same
command continues, and its results are compared with those of an undisturbed run. To add a fault,
write a function like those below, which yields a work directory and what happened to it, and name
it in `FAULTS`.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parent.parent


class Bench(NamedTuple):
    """What all faults use.

    Attributes:
      command: the command without `--workdir`.
      folder: the folder for work directories.
      num_cells: how many cells a run scores.
      num_kills: how many times one run is killed.
      undisturbed: the work directory of the undisturbed run.
      startup_seconds: the time from its start to its first step.
      step_seconds: the median time of its steps.
    """

    command: tuple[str, ...]
    folder: Path
    num_cells: int
    num_kills: int
    undisturbed: Path
    startup_seconds: float
    step_seconds: float

    @property
    def num_steps(self) -> int:
        """How many steps a run has."""
        return num_steps(self.undisturbed)


Outcome = tuple[Path, str]
Fault = Callable[[Bench], AbstractContextManager[Outcome]]


def start(bench: Bench, workdir: Path, *flags: str) -> subprocess.Popen[str]:
    """Starts the command."""
    return subprocess.Popen(  # noqa: S603
        [*bench.command, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        # All runs use programs that are compiled once.
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(bench.folder / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status, and the last line on stderr if it failed."""
    _, err = process.communicate()
    line = err.splitlines()[-1] if process.returncode and err else ""
    return process.returncode, line


def outcome_of(process: subprocess.Popen[str]) -> str:
    """What the command said and how it ended, for the table."""
    status, line = finish(process)
    return f"exit {status}: {line}"


def log_of(workdir: Path) -> Path:
    """The log of finished steps."""
    return workdir / "steps-0.jsonl"


def num_steps(workdir: Path) -> int:
    """How many steps are on disk."""
    log = log_of(workdir)
    return log.read_bytes().count(b"\n") if log.exists() else 0


def wait_for_step(process: subprocess.Popen[str], workdir: Path, number: int) -> None:
    """Waits until so many steps are on disk, or the command has ended."""
    while process.poll() is None and num_steps(workdir) < number:
        time.sleep(0.001)


def half_done(bench: Bench, workdir: Path) -> Path:
    """A work directory in the state of a run that was killed half-way."""
    workdir.mkdir(exist_ok=True)
    shutil.copy(bench.undisturbed / "config.json", workdir)
    lines = log_of(bench.undisturbed).read_bytes().splitlines(keepends=True)
    log_of(workdir).write_bytes(b"".join(lines[: len(lines) // 2]))
    return workdir


@contextlib.contextmanager
def kills(bench: Bench) -> Iterator[Outcome]:
    """Kills a fifth of the starts before their first step, the others at any point of a step."""
    workdir = bench.folder / "killed"
    rng = np.random.default_rng(0)
    total, startup = bench.num_steps, 0
    for remaining in range(bench.num_kills, 0, -1):
        done = num_steps(workdir)
        process = start(bench, workdir)
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0, bench.startup_seconds))
        else:
            # At most so many steps that some are left for the kills to come.
            most = max(1, round(2 * (total - done) / (remaining + 1)))
            wait_for_step(process, workdir, min(done + int(rng.integers(1, most + 1)), total - 1))
            time.sleep(rng.uniform(0, bench.step_seconds))
        process.kill()
        status, line = finish(process)
        if status != -signal.SIGKILL:
            raise SystemExit(f"the run ended before it was killed, {status} {line}")
        startup += num_steps(workdir) == done
        print(f"{num_steps(workdir)} of {total} steps", file=sys.stderr)
    yield (
        workdir,
        f"{bench.num_kills} kills: {startup} before a first step, the others while scoring, "
        f"the last with {num_steps(workdir)} of {total} steps on disk",
    )


def signalled(number: signal.Signals, *, is_scoring: bool) -> Fault:
    """A signal while cells are scored, or half-way through the start."""

    @contextlib.contextmanager
    def fault(bench: Bench) -> Iterator[Outcome]:
        workdir = bench.folder / f"{number.name}_{is_scoring}"
        process = start(bench, workdir)
        if is_scoring:
            wait_for_step(process, workdir, bench.num_steps // 3)
        else:
            time.sleep(bench.startup_seconds / 2)
        process.send_signal(number)
        yield workdir, outcome_of(process)

    return fault


@contextlib.contextmanager
def two_runs(bench: Bench) -> Iterator[Outcome]:
    """A second run on the directory of one that is running."""
    workdir = bench.folder / "two"
    process = start(bench, workdir)
    wait_for_step(process, workdir, 1)
    process.send_signal(signal.SIGSTOP)
    outcome = f"the second: {outcome_of(start(bench, workdir))}"
    process.send_signal(signal.SIGCONT)
    status, line = finish(process)
    yield workdir, f"{outcome}; the first: exit {status}{line and ': '}{line}"


@contextlib.contextmanager
def torn_log(bench: Bench) -> Iterator[Outcome]:
    """The log's last line is torn in two."""
    workdir = half_done(bench, bench.folder / "torn")
    log_of(workdir).write_bytes(log_of(workdir).read_bytes()[:-30])
    yield workdir, "nothing"


@contextlib.contextmanager
def short_log(bench: Bench) -> Iterator[Outcome]:
    """A random part of the log, at its end, is missing."""
    workdir = half_done(bench, bench.folder / "short")
    log = log_of(workdir).read_bytes()
    log_of(workdir).write_bytes(log[: np.random.default_rng(0).integers(len(log))])
    yield workdir, "nothing"


@contextlib.contextmanager
def damaged_log(bench: Bench) -> Iterator[Outcome]:
    """A byte of the log's first line is changed; then the line is deleted, as the message says."""
    workdir = half_done(bench, bench.folder / "damaged")
    log = bytearray(log_of(workdir).read_bytes())
    log[log.index(b"proxies") + 14] ^= 1
    log_of(workdir).write_bytes(log)
    outcome = outcome_of(start(bench, workdir))
    log_of(workdir).write_bytes(b"".join(log.splitlines(keepends=True)[1:]))
    yield workdir, outcome


@contextlib.contextmanager
def another_seed(bench: Bench) -> Iterator[Outcome]:
    """The command with another config."""
    workdir = half_done(bench, bench.folder / "seed")
    yield workdir, outcome_of(start(bench, workdir, "--config.seed=1"))


@contextlib.contextmanager
def another_version(bench: Bench) -> Iterator[Outcome]:
    """A run that another version of JAX began, and that then continues with that version."""
    workdir = half_done(bench, bench.folder / "version")
    content = (workdir / "config.json").read_text()
    other = json.loads(content)
    other["versions"]["jax"] = "0.0.1"
    (workdir / "config.json").write_text(json.dumps(other))
    outcome = outcome_of(start(bench, workdir))
    (workdir / "config.json").write_text(content)
    yield workdir, outcome


@contextlib.contextmanager
def full_disk(bench: Bench) -> Iterator[Outcome]:
    """A disk that is too small for the log, and that is then made larger."""
    with small_disk(bench.folder / "full", kilobytes=20) as disk:
        outcome = outcome_of(start(bench, disk / "run"))
        remount(disk, "size=9m")
        yield disk / "run", outcome


@contextlib.contextmanager
def read_only(bench: Bench) -> Iterator[Outcome]:
    """A disk that is read-only, and then writable."""
    with small_disk(bench.folder / "read_only", kilobytes=9000) as disk:
        workdir = half_done(bench, disk / "run")
        remount(disk, "ro")
        outcome = outcome_of(start(bench, workdir))
        remount(disk, "rw")
        yield workdir, outcome


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A small disk in memory."""
    folder.mkdir()
    subprocess.run(  # noqa: S603
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder],  # noqa: S607
        check=True,
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)  # noqa: S603, S607


def remount(folder: Path, option: str) -> None:
    """Mounts a disk again with an option."""
    subprocess.run(  # noqa: S603
        ["mount", "-o", f"remount,{option}", folder],  # noqa: S607
        check=True,
    )


FAULTS: dict[str, Fault] = {
    "SIGTERM while scoring": signalled(signal.SIGTERM, is_scoring=True),
    "SIGINT while scoring": signalled(signal.SIGINT, is_scoring=True),
    "SIGTERM half-way to the first step": signalled(signal.SIGTERM, is_scoring=False),
    "SIGINT half-way to the first step": signalled(signal.SIGINT, is_scoring=False),
    "a second run on the same directory": two_runs,
    "log cut within its last line": torn_log,
    "log cut anywhere": short_log,
    "a byte of the log's first line changed; the line then deleted": damaged_log,
    "another seed": another_seed,
    "begun with another version of JAX": another_version,
    "disk full; then given room": full_disk,
    "read-only work directory; then writable": read_only,
    "kill -9 at random instants": kills,
}
_NEED_ROOT = (full_disk, read_only)


def row_of(name: str, fault: Fault, bench: Bench) -> str:
    """A row of the table: the fault, the command's message, and what the command did after it."""
    if fault in _NEED_ROOT and os.geteuid() != 0:
        return f"| {name} | skipped: needs root | |"
    with fault(bench) as (workdir, outcome):
        outcome = outcome.replace(str(workdir), "DIR")
        status, line = finish(start(bench, workdir))
        if status:
            return f"| {name} | {outcome} | **failed: {line}** |"
        lines = log_of(workdir).read_bytes().splitlines()
        scored = [tuple(cell) for line in lines for cell in json.loads(line)["genotypes"]]
        expected = (bench.undisturbed / "scores.csv").read_bytes()
        same = (workdir / "scores.csv").read_bytes() == expected
        return (
            f"| {name} | {outcome} | {bench.num_cells - len(set(scored))} lost, "
            f"{len(scored) - len(set(scored))} scored twice, "
            f"scores.csv {'identical' if same else '**differs**'} |"
        )


def run_undisturbed(bench: Bench) -> Bench:
    """Runs the command twice without a fault, and measures how long it takes.

    The first run compiles; all others are compared with the second.
    """
    for workdir in (bench.folder / "compiling", bench.undisturbed):
        begin = time.perf_counter()
        process = start(bench, workdir)
        wait_for_step(process, workdir, 1)
        startup_seconds = time.perf_counter() - begin
        status, line = finish(process)
        if status:
            raise SystemExit(f"the undisturbed run failed: {line}")
    lines = log_of(bench.undisturbed).read_bytes().splitlines()
    step_seconds = float(np.median([json.loads(line)["seconds"] for line in lines]))
    return bench._replace(startup_seconds=startup_seconds, step_seconds=step_seconds)


def main() -> None:
    """Runs every fault and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=300, help="cells of a run")
    parser.add_argument("--kills", type=int, default=50, help="times that one run is killed")
    parser.add_argument("--channels", type=int, default=4, help="channels of the network")
    parser.add_argument("--batch_size", type=int, default=64, help="images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(
            command=(
                sys.executable,
                *("-m", "epe_nas_jax.main", "--config=configs/test.py"),
                f"--config.network.channels={arguments.channels}",
                f"--config.data.batch_size={arguments.batch_size}",
                f"--config.search.num_samples={arguments.cells}",
                # No two cells are the same network, and each is one step of a device.
                "--config.score.prune_dead=False",
                "--config.cells_per_step=1",
            ),
            folder=Path(name),
            num_cells=arguments.cells,
            num_kills=arguments.kills,
            undisturbed=Path(name) / "undisturbed",
            startup_seconds=0,
            step_seconds=0,
        )
        bench = run_undisturbed(bench)
        print(
            f"{bench.num_cells} cells in {bench.num_steps} steps of {bench.step_seconds:.3f} s "
            f"(median), after {bench.startup_seconds:.1f} s of start-up.\n"
        )
        print("| fault | what the command said | after the same command went on |")
        print("| --- | --- | --- |", flush=True)
        for fault_name, fault in FAULTS.items():
            print(row_of(fault_name, fault, bench), flush=True)


if __name__ == "__main__":
    main()
