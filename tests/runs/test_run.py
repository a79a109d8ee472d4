"""A command's run in its work directory, from opening it to the end."""

import json
import os
import signal
import threading

import numpy as np
import pytest

from epe_nas_jax import InputError
from epe_nas_jax.runs import hosts
from epe_nas_jax.runs.run import open_run
from epe_nas_jax.runs.stopping import StopRequested

CONFIG = {"seed": 0, "cells_per_step": "3"}
INPUTS = (np.arange(6.0), np.arange(2))
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def names_in(directory):
    return {path.name for path in directory.iterdir()}


def handlers():
    return [signal.getsignal(number) for number in SIGNALS], threading.active_count()


def run_and(work, workdir):
    """A run that does some work once it has begun."""
    with open_run(CONFIG, workdir) as run:
        run.begin(INPUTS)
        work(run)


def test_nothing_is_written_before_a_run_begins(tmp_path):
    workdir = tmp_path / "runs" / "one"
    with open_run(CONFIG, workdir) as run:
        assert run.origin == {}
        assert run.config == CONFIG
        assert run.is_first
        run.check_stop()
        assert names_in(tmp_path) == set()
        run.begin(INPUTS)
        assert names_in(workdir) == {".lock-0", "config.json"}
        assert json.loads((workdir / "config.json").read_text()) == run.origin
        run.write("scores.csv", b"arch,score\n")
    assert (workdir / "scores.csv").read_bytes() == b"arch,score\n"


def test_a_run_that_fails_before_it_begins_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="no data"), open_run(CONFIG, tmp_path / "work"):
        raise InputError("no data")
    assert names_in(tmp_path) == set()


def test_what_a_run_depends_on_is_on_record(tmp_path):
    with open_run(CONFIG, tmp_path) as run:
        run.begin(INPUTS, ("optax",))
        origin = run.origin
    assert origin["config"] == CONFIG
    assert {"optax", "jax", "numpy", "epe_nas_jax"} <= set(origin["versions"])
    assert len(origin["minibatch_sha256"]) == len(origin["code_sha256"]) == 64


def test_a_directory_has_one_run_at_a_time_and_is_free_afterwards(tmp_path):
    with open_run(CONFIG, tmp_path) as run:
        run.begin(INPUTS)
        with (
            pytest.raises(InputError, match="another run is at work in it"),
            open_run(CONFIG, tmp_path) as second,
        ):
            second.begin(INPUTS)
        run.write("scores.csv", b"")
    with open_run(CONFIG, tmp_path) as run:
        run.begin(INPUTS)


def test_a_run_that_fails_frees_the_directory_and_the_signals(tmp_path):
    def fail(_):
        raise OSError("disk")

    before = handlers()
    with pytest.raises(OSError, match="disk"):
        run_and(fail, tmp_path)
    assert handlers() == before
    with open_run(CONFIG, tmp_path) as run:
        run.begin(INPUTS)


def test_a_run_of_another_config_is_refused_when_it_is_opened(tmp_path):
    with open_run(CONFIG, tmp_path) as run:
        run.begin(INPUTS)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        pytest.raises(InputError, match=r"holds another run, config\.seed: found 0, expected 1"),
        open_run({**CONFIG, "seed": 1}, tmp_path),
    ):
        pytest.fail("it was opened")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    # A key that changes no score.
    with open_run({**CONFIG, "cells_per_step": "9"}, tmp_path) as run:
        run.begin(INPUTS)


def test_a_run_on_other_images_is_refused_when_it_begins(tmp_path):
    with open_run(CONFIG, tmp_path) as run:
        run.begin(INPUTS)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = (INPUTS[0] + 1, INPUTS[1])
    with (
        pytest.raises(InputError, match="scores may differ, minibatch_sha256: found"),
        open_run(CONFIG, tmp_path) as run,
    ):
        run.begin(other)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_results_without_a_config_are_refused_when_it_is_opened(tmp_path):
    (tmp_path / "scores.csv").touch()
    with pytest.raises(InputError, match=r"holds scores\.csv of another run"):
        open_run(CONFIG, tmp_path).__enter__()
    assert names_in(tmp_path) == {"scores.csv"}


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_are_kept_from_the_beginning_of_a_run_to_its_end(tmp_path, number):
    def signal_and_write(run):
        assert handlers() != before
        run.check_stop()
        os.kill(os.getpid(), number)
        # Until it is asked, it goes on.
        run.write("scores.csv", b"")
        run.check_stop()
        pytest.fail("the signal was not heard")

    before = handlers()
    with open_run(CONFIG, tmp_path):
        assert handlers() == before
    with pytest.raises(StopRequested, match=number.name) as stopped:
        run_and(signal_and_write, tmp_path)
    assert stopped.value.signal_number == number
    assert handlers() == before
    assert names_in(tmp_path) == {".lock-0", "config.json", "scores.csv"}


def test_what_stops_a_run_leaves_it_as_it_was_raised(tmp_path):
    request = StopRequested(signal.SIGTERM)

    def signal_and_stop(_):
        os.kill(os.getpid(), signal.SIGINT)
        raise request

    with pytest.raises(StopRequested) as stopped:
        run_and(signal_and_stop, tmp_path)
    assert stopped.value is request
    # The directory is free.
    run_and(lambda _: None, tmp_path)


def test_a_signal_that_nobody_asked_for_ends_a_run_after_its_work(tmp_path):
    def signal_and_write(run):
        os.kill(os.getpid(), signal.SIGTERM)
        run.write("scores.csv", b"")

    with pytest.raises(StopRequested, match="SIGTERM"):
        run_and(signal_and_write, tmp_path)
    assert (tmp_path / "scores.csv").exists()
    run_and(lambda _: None, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code_sha256": "cd"}, r"unlike process 0, code_sha256: found 'cd'"),
        (
            {"config": {"seed": 1}},
            r"unlike process 0, config\.cells_per_step|config\.seed: found 1",
        ),
        ({"minibatch_sha256": "ab"}, r"unlike process 0, minibatch_sha256: found 'ab'"),
    ],
)
def test_a_process_unlike_process_0_is_refused(tmp_path, monkeypatch, change, message):
    def exchange(own):
        return [json.dumps({**json.loads(own), **change}).encode(), own]

    monkeypatch.setattr(hosts, "index", lambda: 1)
    monkeypatch.setattr(hosts, "exchange", exchange)
    with pytest.raises(InputError, match=message), open_run(CONFIG, tmp_path) as run:
        run.begin(INPUTS)
    assert names_in(tmp_path) == {".lock-1"}


def test_another_process_than_the_first_writes_no_config(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "index", lambda: 1)
    with open_run(CONFIG, tmp_path) as run:
        run.begin(INPUTS)
        assert not run.is_first
        assert run.origin["config"] == CONFIG
    assert names_in(tmp_path) == {".lock-1"}
