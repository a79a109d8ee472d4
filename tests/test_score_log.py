import contextlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epe_nas_jax import InputError
from epe_nas_jax.score_log import LoggedScorer, ScoreLog
from epe_nas_jax.stopping import StopRequested
from epe_nas_jax.storage import open_for_appending, write
from epe_nas_jax.workdir import check_same_run, check_workdir, locked

ROOT = Path(__file__).parent.parent


class Scorer:
    """What LoggedScorer asks of a CellScorer; a cell's code is its first entry."""

    num_proxies = 2
    dtype = np.dtype(np.float32)

    def __init__(self, cells_per_step=3):
        self.cells_per_step = self.num_places = cells_per_step
        self.scored = []

    def compile(self):
        pass

    def distinct(self, genotypes):
        codes, first, back = np.unique(genotypes[:, 0], return_index=True, return_inverse=True)
        return codes, genotypes[first], back

    def steps(self, codes, _networks, _num_done, _share):
        for start in range(0, len(codes), self.cells_per_step):
            step = codes[start : start + self.cells_per_step]
            self.scored += step.tolist()
            yield step, proxies_of(step)


def proxies_of(codes):
    """Numbers whose decimal forms are long, and some NaN."""
    first = np.where(codes % 5 == 4, np.nan, np.sin(codes))
    return np.stack([first, codes / 3], axis=-1).astype(np.float32)


CELLS = np.random.default_rng(0).integers(0, 12, (20, 6))


def score(directory, scorer, cells=CELLS, check_stop=lambda: None, process=0):
    with ScoreLog(directory, scorer.num_proxies, process) as log:
        return LoggedScorer(scorer, log, check_stop).proxies(cells)


def records(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def codes_in(records):
    return [code for record in records for code in record["codes"]]


def test_what_is_on_disk_is_the_very_same_float_and_is_not_scored_again(tmp_path):
    first, second = Scorer(), Scorer()
    expected = proxies_of(CELLS[:, 0])
    assert np.array_equal(score(tmp_path, first), expected, equal_nan=True)
    again = score(tmp_path, second)
    assert again.dtype == np.float32
    assert np.array_equal(again, expected, equal_nan=True)
    assert sorted(first.scored) == sorted(set(CELLS[:, 0]))
    assert second.scored == []


def test_every_line_is_json_that_anyone_can_read(tmp_path):
    score(tmp_path, Scorer())
    steps = records(tmp_path / "steps-0.jsonl")
    assert codes_in(steps) == sorted(set(CELLS[:, 0]))
    assert {"proxies", "seconds", "compile_seconds", "memory_bytes"} <= set(steps[0])


def test_a_step_is_on_disk_before_the_next_begins(tmp_path):
    scorer = Scorer()

    def check():
        on_disk = (tmp_path / "steps-0.jsonl").read_bytes().count(b"\n")
        assert on_disk == -(-len(scorer.scored) // scorer.cells_per_step)

    score(tmp_path, scorer, check_stop=check)


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_a_log_cut_anywhere_goes_on_with_nothing_lost_and_nothing_twice(tmp_path, data):
    path = tmp_path / "steps-0.jsonl"
    path.unlink(missing_ok=True)
    score(tmp_path, Scorer())
    whole = path.read_bytes()
    cut = round(len(whole) * data.draw(st.floats(0, 1), label="share kept"))
    path.write_bytes(whole[:cut] + data.draw(st.sampled_from([b"", b"\0" * 9, b"{\n"])))
    kept = [json.loads(line) for line in whole[:cut].splitlines(True) if line[-1:] == b"\n"]
    scorer = Scorer()
    scores = score(tmp_path, scorer)
    assert np.array_equal(scores, proxies_of(CELLS[:, 0]), equal_nan=True)
    assert sorted([*codes_in(kept), *scorer.scored]) == sorted(set(CELLS[:, 0]))
    assert sorted(codes_in(records(path))) == sorted(set(CELLS[:, 0]))


def flip_a_digit(line):
    return line.replace(b"0.", b"1.", 1)


def with_checksum(record):
    body = json.dumps(record).encode()[1:]
    return b'{"crc32": "%08x", %s\n' % (zlib.crc32(body), body)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_digit,
        lambda _: b"\n",
        lambda _: b"not json\n",
        lambda _: with_checksum({"codes": [1]}),
        lambda _: with_checksum([1]),
        lambda line: with_checksum({**json.loads(line), "proxies": [[1.0]]}),
        lambda line: with_checksum({**json.loads(line), "codes": [10**30] * 3}),
        lambda line: with_checksum({**json.loads(line), "memory_bytes": float("inf")}),
        lambda line: with_checksum({**json.loads(line), "seconds": 10**400}),
    ],
)
def test_a_damaged_line_is_named_and_the_log_left_as_it_is(tmp_path, damage):
    score(tmp_path, Scorer())
    path = tmp_path / "steps-0.jsonl"
    lines = path.read_bytes().splitlines(True)
    lines[1] = damage(lines[1])
    path.write_bytes(b"".join(lines))
    with pytest.raises(InputError, match=r"steps-0\.jsonl, line 2: damaged"):
        score(tmp_path, Scorer())
    assert path.read_bytes() == b"".join(lines)
    # What the message says to do works, and costs that line's cells only.
    path.write_bytes(b"".join([lines[0], *lines[2:]]))
    scorer = Scorer()
    score(tmp_path, scorer)
    assert len(scorer.scored) == scorer.cells_per_step


def test_a_run_goes_on_with_the_logs_of_other_processes(tmp_path):
    score(tmp_path, Scorer(), CELLS[:5], process=1)
    score(tmp_path, Scorer(), CELLS[5:9], process=0)
    known = set(CELLS[:9, 0])
    scorer = Scorer()
    scores = score(tmp_path, scorer, process=2)
    assert np.array_equal(scores, proxies_of(CELLS[:, 0]), equal_nan=True)
    assert sorted(scorer.scored) == sorted(set(CELLS[:, 0]) - known)


def test_a_stopped_run_keeps_the_step_it_was_in(tmp_path):
    first, second = Scorer(), Scorer()

    def stop():
        if first.scored:
            raise StopRequested(signal.SIGTERM)

    with pytest.raises(StopRequested):
        score(tmp_path, first, check_stop=stop)
    score(tmp_path, second)
    assert len(first.scored) == first.cells_per_step
    assert sorted([*first.scored, *second.scored]) == sorted(set(CELLS[:, 0]))


@contextlib.contextmanager
def no_file_longer_than(num_bytes):
    """A disk that is full, as a write sees it: a part is written, then an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_tears_the_last_line_only(tmp_path):
    first, second = Scorer(), Scorer()
    with no_file_longer_than(400), pytest.raises(OSError, match=r"steps-0\.jsonl"):
        score(tmp_path, first)
    path = tmp_path / "steps-0.jsonl"
    *kept, torn = path.read_bytes().splitlines(True)
    assert kept
    assert not torn.endswith(b"\n")
    scores = score(tmp_path, second)
    assert np.array_equal(scores, proxies_of(CELLS[:, 0]), equal_nan=True)
    assert sorted(codes_in(records(path))) == sorted(set(CELLS[:, 0]))
    assert path.read_bytes().startswith(b"".join(kept))


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path):
    write(tmp_path / "scores.csv", b"before")
    with no_file_longer_than(400), pytest.raises(OSError, match=r"scores\.csv"):
        write(tmp_path / "scores.csv", b"after" * 100)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
    assert (tmp_path / "scores.csv").read_bytes() == b"before"


def test_a_locked_directory_is_refused_and_free_again_afterwards(tmp_path):
    with (
        locked(tmp_path / "w"),
        pytest.raises(InputError, match="another run is at work"),
        locked(tmp_path / "w"),
    ):
        pass
    with locked(tmp_path / "w"):
        pass


@pytest.fixture
def outside(tmp_path):
    """A file that is none of the work directory's, and no whole line."""
    path = tmp_path / "outside"
    path.write_text("precious")
    return path


@pytest.fixture
def workdir(tmp_path):
    path = tmp_path / "w"
    path.mkdir()
    return path


@pytest.mark.parametrize("name", ["steps-0.jsonl", ".lock-0"])
def test_a_link_does_not_lead_out_of_the_work_directory(workdir, outside, name):
    (workdir / name).symlink_to(outside)
    with pytest.raises(InputError, match="found a link"):
        open_for_appending(workdir / name)
    for file in ("scores.csv", ".scores.csv.partial"):
        (workdir / file).symlink_to(outside)
    write(workdir / "scores.csv", b"arch,score\n")
    assert outside.read_text() == "precious"
    assert (workdir / "scores.csv").read_bytes() == b"arch,score\n"
    assert not (workdir / "scores.csv").is_symlink()


@pytest.mark.parametrize("name", ["steps-0.jsonl", ".lock-0"])
def test_another_name_of_a_file_elsewhere_is_not_written_to(workdir, outside, name):
    (workdir / name).hardlink_to(outside)
    with pytest.raises(InputError, match="found a file that has another name too"):
        open_for_appending(workdir / name)
    with pytest.raises(InputError, match="another name"), locked(workdir):
        score(workdir, Scorer())
    assert outside.read_text() == "precious"


def begin(workdir):
    with locked(workdir):
        check_workdir(workdir, {})
        score(workdir, Scorer())


@pytest.mark.parametrize("name", ["steps-0.jsonl", "steps-1.jsonl", ".lock-0", "config.json"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises((InputError, OSError), match=re.escape(name)):
        begin(tmp_path)


DEEP = '{"config": ' + "[" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        "[]",
        "\x00",
        '{"config": {}, "versions": []}',
        '{"config": {}, "devices": [{}]}',
        '{"config": {}, "devices": 1}',
        '{"config": [], "versions": {}}',
    ],
)
def test_a_config_that_no_run_wrote_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    for check in (
        lambda: check_workdir(tmp_path, {}),
        lambda: check_same_run(tmp_path, PROVENANCE),
    ):
        with pytest.raises(InputError, match=r"holds a config\.json of something else"):
            check()


PROVENANCE = {
    "config": {"seed": 0, "cells_per_step": "3", "benchmark": {"path": ""}},
    "versions": {"epe_nas_jax": "1", "jax": "2", "jaxlib": "3", "flax": "4", "numpy": "5"},
    "devices": ["cpu", "cpu"],
    "minibatch_sha256": "ab",
    "code_sha256": "cd",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {**PROVENANCE["config"], "seed": 1}}, "config.seed: found 0, expected 1"),
        ({"versions": {**PROVENANCE["versions"], "jax": "9"}}, "versions.jax: found '2'"),
        ({"devices": ["H100"]}, r"kinds of devices: found \['cpu'\], expected \['H100'\]"),
        ({"minibatch_sha256": "x"}, "minibatch_sha256: found 'ab', expected 'x'"),
        ({"code_sha256": "x"}, "code_sha256: found 'cd', expected 'x'"),
    ],
)
def test_what_would_change_scores_is_refused_by_name(tmp_path, change, message):
    check_same_run(tmp_path, PROVENANCE)
    write(tmp_path / "config.json", json.dumps(PROVENANCE).encode())
    with pytest.raises(InputError, match=message):
        check_same_run(tmp_path, {**PROVENANCE, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"seed": 0, "cells_per_step": "9", "benchmark": {"path": "table.csv"}}},
        {"versions": {**PROVENANCE["versions"], "numpy": "6"}},
        {"devices": ["cpu"]},
    ],
)
def test_what_changes_no_score_may_change(tmp_path, change):
    write(tmp_path / "config.json", json.dumps(PROVENANCE).encode())
    check_same_run(tmp_path, {**PROVENANCE, **change})


def test_a_log_without_its_config_is_refused_unless_nothing_is_in_it(tmp_path):
    (tmp_path / "steps-0.jsonl").touch()
    check_workdir(tmp_path, {})
    (tmp_path / "steps-0.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"holds steps-0\.jsonl of another run"):
        check_workdir(tmp_path, {})


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
                "--config.score.live_form=False",
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
    assert err.splitlines()[-1] == "stopped by SIGTERM: the same command goes on from here"

    with locked(tmp_path):
        code, _, err = Command(tmp_path).finish()
    assert code == 2
    assert err == f"error: workdir {tmp_path}: another run is at work in it\n"

    code, out, err = Command(tmp_path).finish()
    assert code == 0, err
    assert (tmp_path / "scores.csv").read_bytes() == uninterrupted
    codes = codes_in(records(log))
    assert len(codes) == len(set(codes)) == 24
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
from epe_nas_jax.score_log import LoggedScorer, ScoreLog
from epe_nas_jax.workdir import locked
sys.path.insert(0, "tests")
from test_score_log import Scorer

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
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) <= 150
    logs = [records(tmp_path / name) for name in ("undisturbed", "steps-0.jsonl")]
    undisturbed, killed = ([(s["codes"], s["proxies"]) for s in log] for log in logs)
    assert killed == undisturbed
    assert codes_in(logs[1]) == list(range(300))
