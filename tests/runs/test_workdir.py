"""What a work directory may hold, and what may go on in it."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_inputs import JSON, damaged
from refusals import refusal
from toy_runs import Scorer, score

import epe_nas_jax
from epe_nas_jax import InputError
from epe_nas_jax.runs.storage import write
from epe_nas_jax.runs.workdir import (
    check_same_run,
    check_workdir,
    code_digest,
    locked,
    provenance,
)


def test_a_locked_directory_is_refused_and_free_again_afterwards(tmp_path):
    with (
        locked(tmp_path / "w"),
        pytest.raises(InputError, match="another run is at work"),
        locked(tmp_path / "w"),
    ):
        pass
    with locked(tmp_path / "w"):
        pass


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
    "random_numbers": {"jax_default_prng_impl": "threefry2x32"},
    "minibatch_sha256": "ab",
    "code_sha256": "cd",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {**PROVENANCE["config"], "seed": 1}}, "config.seed: found 0, expected 1"),
        ({"versions": {**PROVENANCE["versions"], "jax": "9"}}, "versions.jax: found '2'"),
        ({"devices": ["H100"]}, r"kinds of devices: found \['cpu'\], expected \['H100'\]"),
        (
            {"random_numbers": {"jax_default_prng_impl": "rbg"}},
            "random_numbers.jax_default_prng_impl: found 'threefry2x32', expected 'rbg'",
        ),
        ({"minibatch_sha256": "x"}, "minibatch_sha256: found 'ab', expected 'x'"),
        ({"code_sha256": "x"}, "code_sha256: found 'cd', expected 'x'"),
        ({"config": {"a\nb": 1, **PROVENANCE["config"]}}, "config.a b: found None, expected 1"),
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


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Checks a directory with a `config.json` of some content."""
    directory = tmp_path_factory.mktemp("config")

    def check(content):
        (directory / "config.json").write_bytes(content)
        refusal(lambda: check_workdir(directory, PROVENANCE["config"]))
        refusal(lambda: check_same_run(directory, PROVENANCE))

    return check


@given(damaged([json.dumps(PROVENANCE, indent=2).encode()]))
@settings(max_examples=200, deadline=None)
def test_a_damaged_config_is_read_or_refused(check, content):
    check(content)


@given(JSON, st.dictionaries(st.sampled_from(list(PROVENANCE)), JSON, min_size=1))
@settings(max_examples=200, deadline=None)
def test_a_config_of_any_content_is_read_or_refused(check, value, change):
    for content in (
        value,
        {**PROVENANCE, **change},
        {**PROVENANCE, "config": {**PROVENANCE["config"], "seed": value}},
        {**PROVENANCE, "versions": {**PROVENANCE["versions"], "jax": value}},
    ):
        check(json.dumps(content).encode())


@pytest.mark.parametrize("place", ["config", "minibatch_sha256"])
def test_a_config_as_deep_as_python_reads_is_refused(check, place):
    text = json.dumps({**PROVENANCE, place: "deep"})
    # Python reads somewhat less than 1,000 levels.
    for depth in range(900, 1000):
        check(text.replace('"deep"', "[" * depth + "]" * depth).encode())
        check(text.replace('"deep"', '{"a":' * depth + "1" + "}" * depth).encode())


def test_a_log_without_its_config_is_refused_unless_nothing_is_in_it(tmp_path):
    (tmp_path / "steps-0.jsonl").touch()
    check_workdir(tmp_path, {})
    (tmp_path / "steps-0.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"holds steps-0\.jsonl of another run"):
        check_workdir(tmp_path, {})


@pytest.fixture
def package(tmp_path):
    """A package with a module in a sub-package of a sub-package."""
    room = tmp_path / "package" / "spaces" / "layers"
    room.mkdir(parents=True)
    (tmp_path / "package" / "main.py").write_text("import spaces")
    (room / "pooling.py").write_text("WINDOW = 3")
    return tmp_path / "package"


def test_the_hash_of_the_code_sees_every_file_of_every_sub_package(package):
    before = code_digest(package)
    assert code_digest(package) == before
    module = package / "spaces/layers/pooling.py"
    seen = {before}

    module.write_text("WINDOW = 5")
    seen.add(code_digest(package))
    # One content under another name, in one folder and in another one.
    module = module.rename(module.with_name("pool.py"))
    seen.add(code_digest(package))
    module.rename(package / "spaces/pool.py")
    seen.add(code_digest(package))
    (package / "spaces/new.py").touch()
    seen.add(code_digest(package))
    assert len(seen) == 5

    (package / "spaces/notes.txt").touch()
    assert code_digest(package) in seen


def test_the_origin_of_results_has_the_hash_of_this_package():
    origin = provenance({"seed": 0}, ())
    assert origin["code_sha256"] == code_digest(Path(epe_nas_jax.__file__).parent)
    assert origin["minibatch_sha256"] is None
    assert origin["config"] == {"seed": 0}
