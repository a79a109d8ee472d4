"""Searches that are killed, stopped and started again, and a disk that is full."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toy_runs import codes_in, records

from epe_nas_jax.runs.workdir import locked

ROOT = Path(__file__).parents[2]


# One device, so that a step is a cell.
ON_ONE_CORE = """
import os, runpy
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
runpy.run_module("epe_nas_jax.main", run_name="__main__", alter_sys=True)
"""


class Command:
    """The command on the test config with every cell a step of its own."""

    def __init__(self, workdir, prefix=()):
        self._process = subprocess.Popen(
            [
                *prefix,
                sys.executable,
                "-c",
                ON_ONE_CORE,
                "--config=configs/test.py",
                f"--workdir={workdir}",
                "--config.cells_per_step=1",
                "--config.search.num_samples=24",
                "--config.score.prune_dead=False",
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def send_after(self, log, num_lines, number):
        """Sends a signal once so many steps are on disk."""
        while self._process.poll() is None:
            if log.exists() and log.read_bytes().count(b"\n") >= num_lines:
                self._process.send_signal(number)
                break
        return self

    def finish(self):
        out, err = self._process.communicate()
        return self._process.returncode, out.decode(), err.decode()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    code, _, err = Command(workdir).finish()
    assert code == 0, err
    return (workdir / "scores.csv").read_bytes()


@pytest.mark.slow
def test_kills_lose_nothing_and_score_nothing_twice(tmp_path, uninterrupted):
    log = tmp_path / "steps-0.jsonl"
    for num_lines in sorted(random.Random(0).sample(range(1, 20), 2)):
        code, _, err = Command(tmp_path).send_after(log, num_lines, signal.SIGKILL).finish()
        assert code == -signal.SIGKILL, err
        assert not (tmp_path / "scores.csv").exists()

    running = Command(tmp_path).send_after(log, 21, signal.SIGTERM)
    code, out, err = running.finish()
    assert code == 128 + signal.SIGTERM, err
    assert out == ""
    assert err.splitlines()[-1] == "stopped by SIGTERM: run the same command again to continue"

    with locked(tmp_path):
        code, _, err = Command(tmp_path).finish()
    assert code == 2
    assert err == f"error: workdir {tmp_path}: another run is at work in it\n"

    code, out, err = Command(tmp_path).finish()
    assert code == 0, err
    assert (tmp_path / "scores.csv").read_bytes() == uninterrupted
    genotypes = [tuple(row) for record in records(log) for row in record["genotypes"]]
    assert len(genotypes) == len(set(genotypes)) == 24
    assert "24 of 24 networks" in err.splitlines()[-1]

    results = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, again, _ = Command(tmp_path).finish()
    assert code == 0
    assert again.splitlines()[0].startswith("This run had scored all its cells before")
    assert again.split("\n\n", 1)[1] == out
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == results


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, uninterrupted):
    # A file may not grow beyond 3 blocks of 1024 bytes: the log tears within a line.
    limit = ("bash", "-c", "trap '' XFSZ; ulimit -f 3; exec \"$@\"", "limit")
    code, _, err = Command(tmp_path, limit).finish()
    assert code == 2
    assert err.splitlines()[-1] == f"error: [Errno 27] File too large: '{tmp_path}/steps-0.jsonl'"
    log = (tmp_path / "steps-0.jsonl").read_bytes()
    assert not log.endswith(b"\n")
    code, _, err = Command(tmp_path).finish()
    assert code == 0, err
    assert (tmp_path / "scores.csv").read_bytes() == uninterrupted
    kept = log[: log.rindex(b"\n") + 1]
    assert kept
    assert (tmp_path / "steps-0.jsonl").read_bytes().startswith(kept)


FIFTY_KILLS = """
import os, random, signal, sys
from pathlib import Path
import numpy as np
from toy_runs import Scorer
from epe_nas_jax.runs.score_log import LoggedScorer, ScoreLog
from epe_nas_jax.runs.workdir import locked

def run():
    with locked(DIRECTORY), ScoreLog(DIRECTORY, 2) as log:
        LoggedScorer(Scorer(2), log, lambda: None).proxies(CELLS)

def num_lines():
    return LOG.read_bytes().count(b"\\n") if LOG.exists() else 0

CELLS = np.arange(300)[:, None]
DIRECTORY = Path(sys.argv[1])
LOG = DIRECTORY / "steps-0.jsonl"
draw = random.Random(0)
killed = 0
run()
LOG.rename(DIRECTORY / "undisturbed")
while killed < 50:
    # Some steps further, and then at any instant: however fast the machine is, all get on.
    enough, instant = num_lines() + draw.randrange(4), draw.randrange(20_000)
    child = os.fork()
    if not child:
        run()
        os._exit(0)
    ended = (0, 0)
    while num_lines() < enough and not ended[0]:
        ended = os.waitpid(child, os.WNOHANG)
    for _ in range(instant):
        pass
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    killed += os.WIFSIGNALED(ended[1])
print(num_lines())
run()
"""


def test_fifty_kills_at_any_instant_lose_nothing_and_repeat_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FIFTY_KILLS, tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "tests"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) <= 150
    logs = [records(tmp_path / name) for name in ("undisturbed", "steps-0.jsonl")]
    undisturbed, killed = ([(s["genotypes"], s["proxies"]) for s in log] for log in logs)
    assert killed == undisturbed
    assert codes_in(logs[1]) == list(range(300))
