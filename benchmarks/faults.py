"""Injects faults into runs of 300 cells and prints the table of docs/scaling.md.

Command:  python benchmarks/faults.py
Needs:    Linux; root for the full and the read-only disk, which are skipped otherwise.
Takes:    10 to 20 minutes on 2 CPU cores, nearly all of it starting Python 70 times.

The network is the tiny one of configs/test.py, and every cell is a network of its own. After each
fault the same command goes on, and `scores.csv` is compared with that of an undisturbed run.
"""

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
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
NUM_CELLS = 300
NUM_KILLS = 50
COMMAND = (
    sys.executable,
    "-m",
    "epe_nas_jax.main",
    "--config=configs/test.py",
    "--config.cells_per_step=1",
    "--config.score.live_form=False",
    f"--config.search.num_samples={NUM_CELLS}",
)
# Steps on disk when a fault comes, where it does not come at random.
NUM_STEPS_BEFORE = 40


def _start(workdir: Path, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603
        [*COMMAND, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status, and the last line on stderr if it failed."""
    _, err = process.communicate()
    line = err.splitlines()[-1] if process.returncode and err else ""
    return process.returncode, line


def _log_of(workdir: Path) -> Path:
    return workdir / "steps-0.jsonl"


def _num_steps(workdir: Path) -> int:
    log = _log_of(workdir)
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _scored_codes(workdir: Path) -> list[int]:
    lines = _log_of(workdir).read_bytes().splitlines()
    return [code for line in lines for code in json.loads(line)["codes"]]


def _wait_for_step(process: subprocess.Popen[str], workdir: Path, number: int) -> None:
    while process.poll() is None and _num_steps(workdir) < number:
        time.sleep(0.001)


def _kill_again_and_again(workdir: Path, startup_seconds: float, total_steps: int) -> str:
    """Kills a fifth of the starts before their first step, the others at any point of a step."""
    rng = np.random.default_rng(0)
    step_seconds = 0.05
    during_startup = 0
    for _ in range(NUM_KILLS):
        process = _start(workdir)
        target = _num_steps(workdir) + int(rng.integers(1, 4))
        if rng.random() < 0.2 or target > total_steps:
            during_startup += 1
            time.sleep(rng.uniform(0, startup_seconds))
        else:
            _wait_for_step(process, workdir, target)
            time.sleep(rng.uniform(0, step_seconds))
        process.kill()
        if _finish(process)[0] == 0:
            raise SystemExit("the run was over before it was killed: take more cells")
        print(f"{_num_steps(workdir)} of {total_steps} steps", file=sys.stderr)
    return f"{NUM_KILLS} kills, {during_startup} of them between start and first step"


@contextlib.contextmanager
def _small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    subprocess.run(  # noqa: S603
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder],  # noqa: S607
        check=True,
    )
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)  # noqa: S603, S607


def _remount(folder: Path, option: str) -> None:
    subprocess.run(  # noqa: S603
        ["mount", "-o", f"remount,{option}", folder],  # noqa: S607
        check=True,
    )


def main() -> None:
    """Runs every fault and prints the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.perf_counter()
        undisturbed = folder / "undisturbed"
        process = _start(undisturbed)
        _wait_for_step(process, undisturbed, 1)
        startup_seconds = time.perf_counter() - begin
        if _finish(process)[0]:
            raise SystemExit("the undisturbed run failed")
        expected = (undisturbed / "scores.csv").read_bytes()
        total_steps = _num_steps(undisturbed)
        rows: list[tuple[str, str, str]] = []

        def report(fault: str, outcome: str, workdir: Path) -> None:
            """Lets the same command go on, and says what became of the scores."""
            status, line = _finish(_start(workdir))
            if status:
                rows.append((fault, outcome, f"**failed: {line}**"))
                return
            codes = _scored_codes(workdir)
            same = (workdir / "scores.csv").read_bytes() == expected
            rows.append(
                (
                    fault,
                    outcome.replace(str(workdir), "DIR"),
                    f"{NUM_CELLS - len(set(codes))} lost, {len(codes) - len(set(codes))} "
                    f"scored twice, scores.csv {'identical' if same else '**differs**'}",
                )
            )

        def half_done(workdir: Path) -> Path:
            workdir.mkdir(exist_ok=True)
            shutil.copy(undisturbed / "config.json", workdir)
            lines = _log_of(undisturbed).read_bytes().splitlines(keepends=True)
            _log_of(workdir).write_bytes(b"".join(lines[:NUM_STEPS_BEFORE]))
            return workdir

        def outcome_of(workdir: Path, *flags: str) -> str:
            status, line = _finish(_start(workdir, *flags))
            return f"exit {status}: {line}"

        def change_log(change: Callable[[bytes], bytes], workdir: Path) -> Path:
            log = _log_of(half_done(workdir))
            log.write_bytes(change(log.read_bytes()))
            return workdir

        killed = folder / "killed"
        outcome = _kill_again_and_again(killed, startup_seconds, total_steps)
        report("kill -9 at random instants", outcome, killed)

        for number in (signal.SIGTERM, signal.SIGINT):
            workdir = folder / number.name
            process = _start(workdir)
            _wait_for_step(process, workdir, NUM_STEPS_BEFORE)
            process.send_signal(number)
            status, line = _finish(process)
            report(number.name, f"exit {status}: {line}", workdir)

        workdir = folder / "two"
        process = _start(workdir)
        _wait_for_step(process, workdir, 1)
        process.send_signal(signal.SIGSTOP)
        outcome = outcome_of(workdir)
        process.send_signal(signal.SIGCONT)
        _finish(process)
        report("a second run on the same directory", outcome, workdir)

        workdir = change_log(lambda log: log[:-30], folder / "torn")
        report("log cut within its last line", "that line's step is scored again", workdir)

        position = _log_of(undisturbed).read_bytes().index(b"proxies") + 14
        workdir = change_log(
            lambda log: log[:position] + b"#" + log[position + 1 :], folder / "damaged"
        )
        outcome = outcome_of(workdir)
        log = _log_of(workdir)
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[1:]))
        report("a byte of the log's first line changed; the line then deleted", outcome, workdir)

        workdir = half_done(folder / "seed")
        report("another seed", outcome_of(workdir, "--config.seed=1"), workdir)

        workdir = half_done(folder / "version")
        content = (workdir / "config.json").read_text()
        other = json.loads(content)
        other["versions"]["jax"] = "0.0.1"
        (workdir / "config.json").write_text(json.dumps(other))
        outcome = outcome_of(workdir)
        (workdir / "config.json").write_text(content)
        report("begun with another version of JAX", outcome, workdir)

        if os.geteuid() == 0:
            disk = folder / "disk"
            disk.mkdir()
            with _small_disk(disk, kilobytes=20):
                workdir = disk / "run"
                outcome = outcome_of(workdir)
                _remount(disk, "size=9m")
                report("disk full; then given room", outcome, workdir)
            with _small_disk(disk, kilobytes=9000):
                workdir = half_done(disk / "run")
                _remount(disk, "ro")
                outcome = outcome_of(workdir)
                _remount(disk, "rw")
                report("read-only work directory; then writable", outcome, workdir)

        print("| fault | what the command said | after the same command went on |")
        print("| --- | --- | --- |")
        for row in rows:
            print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
