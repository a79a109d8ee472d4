"""The log of scores: what is on disk is not scored again, and a torn or damaged line is noticed."""

import json
import re
import signal
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_inputs import JSON, damaged
from refusals import refusal
from toy_runs import CELLS, Scorer, codes_in, no_file_longer_than, proxies_of, records, score

from epe_nas_jax import InputError
from epe_nas_jax.runs.score_log import LoggedScorer, ScoreLog
from epe_nas_jax.runs.stopping import StopRequested


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
        lambda _: with_checksum({"genotypes": [[1]]}),
        lambda _: with_checksum([1]),
        lambda line: with_checksum({**json.loads(line), "proxies": [[1.0]]}),
        lambda line: with_checksum({**json.loads(line), "genotypes": [[10**30]] * 3}),
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


RECORD = {
    "genotypes": [[0], [1]],
    "proxies": [[0.5, None], [0.25, 2.0]],
    "seconds": 1.5,
    "compile_seconds": 0.0,
    "memory_bytes": 5,
}
LINE = with_checksum(RECORD)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Scores with a log of some content; what it is refused with, and how many steps it had."""
    directory = tmp_path_factory.mktemp("log")

    def read(content):
        (directory / "steps-0.jsonl").write_bytes(content)
        return refusal(lambda: score(directory, Scorer()))

    return read


@given(damaged([LINE * 3]))
@settings(max_examples=200, deadline=None)
def test_a_damaged_log_is_read_or_the_line_named(read, content):
    message = read(content)
    assert not message or re.search(r"steps-0\.jsonl, line \d: damaged", message)


NUMBERS = st.sampled_from(
    [
        0,
        1,
        1.5,
        None,
        True,
        "1",
        "x",
        2**31,
        2**63,
        10**400,
        1e39,
        1e300,
        float("nan"),
        float("inf"),
    ]
)
ROWS = st.lists(st.lists(NUMBERS | JSON, max_size=3), max_size=3)


# It has the checksum of a run, but of no run of float32.
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@given(st.dictionaries(st.sampled_from(list(RECORD)), NUMBERS | JSON | ROWS, min_size=1))
@settings(max_examples=200, deadline=None)
def test_any_record_is_read_or_its_line_named(read, change):
    message = read(with_checksum({**RECORD, **change}) + LINE)
    assert not message or "steps-0.jsonl, line 1: damaged" in message
    # At the end it is taken for a torn one.
    assert not read(LINE + with_checksum({**RECORD, **change}))


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


# Two DARTS cells, a digit an edge, that a checksum of 31 bits does not tell apart.
TWINS = np.array(
    [
        [int(digit) for digit in digits]
        for digits in ("3761004037400012470051006030", "1710703013000662540007300053")
    ],
    np.int32,
)


class ScorerOfWholeGenotypes:
    """What LoggedScorer asks of a CellScorer; a cell's score is its genotype read as a number."""

    config = SimpleNamespace(proxies=("number",))
    dtype = np.dtype(np.float64)
    devices = ("a device",)
    cells_per_step = 2

    def __init__(self):
        self.num_scored = 0

    def distinct(self, genotypes):
        kinds, back = np.unique(genotypes, axis=0, return_inverse=True)
        return kinds, kinds, back

    def steps(self, kinds, _networks, _num_done, _shard):
        self.num_scored += len(kinds)
        yield kinds, number_of(kinds)


def number_of(genotypes):
    """`[A, 1]`, different for different cells of DARTS."""
    return genotypes.astype(float) @ (8.0 ** -np.arange(genotypes.shape[1]))[:, None]


@pytest.mark.parametrize("cells", [TWINS, TWINS[::-1], TWINS[[0, 1, 0]]])
def test_two_cells_of_one_checksum_keep_scores_of_their_own(tmp_path, cells):
    checksums = {zlib.crc32(cell.astype(np.uint8).tobytes()) >> 1 for cell in TWINS}
    assert len(checksums) == 1
    first, second = ScorerOfWholeGenotypes(), ScorerOfWholeGenotypes()
    expected = number_of(cells)
    assert len(np.unique(expected)) == 2
    for scorer in (first, second):
        with ScoreLog(tmp_path, 1) as log:
            logged = LoggedScorer(scorer, log, lambda: None)
            assert np.array_equal(logged.proxies(cells), expected)
            assert len(logged.rows) == 2
    assert (first.num_scored, second.num_scored) == (2, 0)


def test_a_cell_of_a_known_checksum_is_scored(tmp_path):
    for cell in TWINS:
        scorer = ScorerOfWholeGenotypes()
        with ScoreLog(tmp_path, 1) as log:
            scores = LoggedScorer(scorer, log, lambda: None).proxies(cell[None])
        assert np.array_equal(scores, number_of(cell[None]))
        assert scorer.num_scored == 1
