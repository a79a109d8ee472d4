"""Files of a work directory; in a store they lie in fsspec's memory, whose interface all share."""

import json
import signal

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tiny_config import tiny_config
from toy_runs import CELLS, Scorer, codes_in, no_file_longer_than, proxies_of, score

from epe_nas_jax import InputError
from epe_nas_jax.commands.search import search_and_report
from epe_nas_jax.commands.train import train_and_report
from epe_nas_jax.runs.stopping import StopRequested
from epe_nas_jax.runs.storage import (
    check_new_folder,
    create,
    local_path,
    location_of,
    log_at,
    open_for_appending,
    write,
    write_folder,
)
from epe_nas_jax.runs.workdir import check_same_run, check_workdir, locked


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path):
    write(tmp_path / "scores.csv", b"before")
    with no_file_longer_than(400), pytest.raises(OSError, match=r"scores\.csv"):
        write(tmp_path / "scores.csv", b"after" * 100)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
    assert (tmp_path / "scores.csv").read_bytes() == b"before"


def test_a_full_disk_leaves_no_folder(tmp_path):
    files = {"small": b"0" * 10, "large": b"0" * 500}
    with no_file_longer_than(400), pytest.raises(OSError, match="large"):
        write_folder(tmp_path / "out", files)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_written_anew_or_over_an_empty_one(tmp_path):
    (tmp_path / "empty").mkdir()
    # What a kill left.
    (tmp_path / ".deep.partial").mkdir()
    (tmp_path / ".deep.partial/old").write_text("half")
    for name in ("deep", "more/deep", "empty"):
        folder = tmp_path / name
        check_new_folder(folder)
        write_folder(folder, {"a": b"1", "b": b"2"})
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"a": b"1", "b": b"2"}
        with pytest.raises(InputError, match="found a folder that is not empty"):
            check_new_folder(folder)
        with pytest.raises(InputError, match="found a file"):
            check_new_folder(folder / "a")
    assert {path.name for path in tmp_path.iterdir()} == {"deep", "more", "empty"}


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


@pytest.fixture
def store():
    """An empty place in a store."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return location_of("memory://bucket/runs/one")


def objects(store):
    return {path.path.removeprefix(f"{store.path}/") for path in store.rglob("*") if path.is_file()}


def codes_at(path):
    return codes_in(json.loads(line) for line in log_at(path).lines)


def stop_after(scorer, num_steps):
    def stop():
        if len(scorer.scored) >= num_steps * scorer.cells_per_step:
            raise StopRequested(signal.SIGTERM)

    return stop


def test_a_log_has_an_object_a_step_and_a_run_goes_on_from_them(store):
    first, second = Scorer(), Scorer()
    with pytest.raises(StopRequested):
        score(store, first, check_stop=stop_after(first, 2))
    assert objects(store) == {"steps-0.jsonl/00000000", "steps-0.jsonl/00000001"}
    scores = score(store, second)
    assert np.array_equal(scores, proxies_of(CELLS[:, 0]), equal_nan=True)
    assert sorted([*first.scored, *second.scored]) == sorted(set(CELLS[:, 0]))
    assert codes_at(store / "steps-0.jsonl") == [*first.scored, *second.scored]


def test_the_objects_one_after_the_other_are_the_file_of_a_local_log(store, tmp_path):
    score(store, Scorer())
    lines = log_at(store / "steps-0.jsonl").lines
    (tmp_path / "steps-0.jsonl").write_bytes(b"".join(lines))
    scorer = Scorer()
    score(tmp_path, scorer)
    assert scorer.scored == []


def test_a_run_goes_on_with_the_logs_of_other_processes(store):
    score(store, Scorer(), CELLS[:5], process=1)
    scorer = Scorer()
    score(store, scorer)
    assert sorted(scorer.scored) == sorted(set(CELLS[:, 0]) - set(CELLS[:5, 0]))
    assert {name.split("/")[0] for name in objects(store)} == {"steps-0.jsonl", "steps-1.jsonl"}


def test_a_damaged_object_is_named_and_may_be_deleted(store):
    score(store, Scorer())
    damaged = store / "steps-0.jsonl/00000001"
    write(damaged, b"{}\n")
    with pytest.raises(
        InputError, match=r"one/steps-0\.jsonl/00000001, a line of the log: damaged"
    ):
        score(store, Scorer())
    damaged.unlink()
    scorer = Scorer()
    score(store, scorer)
    assert len(scorer.scored) == scorer.cells_per_step
    names = sorted(objects(store))
    # The new one comes after all others.
    assert names[0] == "steps-0.jsonl/00000000"
    assert names[1:] == [f"steps-0.jsonl/{number:08d}" for number in range(2, len(names) + 1)]


def test_a_damaged_last_object_is_scored_again(store):
    score(store, Scorer())
    last = sorted(objects(store))[-1]
    write(store / last, b"")
    scorer = Scorer()
    score(store, scorer)
    assert 0 < len(scorer.scored) <= scorer.cells_per_step
    assert sorted(codes_at(store / "steps-0.jsonl")) == sorted(set(CELLS[:, 0]))


def test_of_two_runs_at_once_one_goes_on_and_the_other_is_refused(store):
    behind, ahead = Scorer(), Scorer()

    def overtake():
        if behind.scored and not ahead.scored:
            with pytest.raises(StopRequested):
                score(store, ahead, check_stop=stop_after(ahead, 1))

    with pytest.raises(InputError, match="another run is at work in it"):
        score(store, behind, check_stop=overtake)
    codes = codes_at(store / "steps-0.jsonl")
    assert codes == [*behind.scored[: behind.cells_per_step], *ahead.scored]
    # The step of the one that was refused is nowhere; this scores the rest.
    score(store, Scorer())
    codes = codes_at(store / "steps-0.jsonl")
    assert sorted(codes) == sorted(set(CELLS[:, 0]))


def test_what_a_store_has_taken_is_not_refused_when_it_is_asked_again(store):
    create(store / "a", b"one")
    create(store / "a", b"one")
    with pytest.raises(FileExistsError):
        create(store / "a", b"two")
    assert (store / "a").read_bytes() == b"one"


def test_of_two_runs_that_begin_with_other_configs_one_is_refused(store):
    contents = [{"config": {"seed": seed}} for seed in (0, 1)]
    for content in contents:
        check_workdir(store, content["config"])
    with locked(store), locked(store):
        check_same_run(store, contents[0])
        check_same_run(store, contents[0])
        with pytest.raises(InputError, match=r"config\.seed: found 0, expected 1"):
            check_same_run(store, contents[1])


def test_a_log_of_another_run_is_refused(store):
    write(store / "steps-0.jsonl/00000000", b"")
    with pytest.raises(InputError, match=r"holds steps-0\.jsonl of another run"):
        check_workdir(store, {})


def test_a_search_leaves_the_same_files_in_a_store(store, tmp_path):
    texts = [search_and_report(tiny_config(), path) for path in (tmp_path, str(store))]
    names = {path.name for path in tmp_path.iterdir()} - {".lock-0"}
    assert {name.split("/")[0] for name in objects(store)} == names
    assert (store / "scores.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()
    assert texts[0].split("\n\n")[0] == texts[1].split("\n\n")[0]
    again = search_and_report(tiny_config(), str(store))
    assert again.startswith("This run had scored all its cells before")
    with pytest.raises(InputError, match=r"config\.seed: found 0, expected 1"):
        search_and_report(tiny_config(seed=1), str(store))


@pytest.mark.parametrize("url", ["nonsense://bucket/run", "://", "file:///tmp/run"])
def test_a_store_that_nobody_knows_is_refused_by_name(url):
    with pytest.raises(InputError, match=url):
        location_of(url)


def test_a_store_that_does_not_answer_is_refused_in_one_line(monkeypatch):
    def fail(*_):
        raise RuntimeError("no credentials")

    monkeypatch.setattr(MemoryFileSystem, "exists", fail)
    monkeypatch.setattr(MemoryFileSystem, "info", fail)
    with pytest.raises(InputError, match="memory://bucket: no credentials"):
        location_of("memory://bucket")


def test_training_needs_a_directory_of_this_machine():
    with pytest.raises(InputError, match="found a URL, expected a path of this machine"):
        local_path("gs://bucket/run")
    with pytest.raises(InputError, match="gs://bucket/run: found a URL"):
        train_and_report(tiny_config(arch=""), "gs://bucket/run")
