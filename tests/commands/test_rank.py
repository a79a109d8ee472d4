"""The rank command, from a file of Python code to a ranking."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
from command_line import epe_nas
from tiny_config import tiny_config

from epe_nas_jax import InputError, rank_networks
from epe_nas_jax.commands import rank
from epe_nas_jax.commands.config import dataset_of, minibatch_of
from epe_nas_jax.networks import function
from epe_nas_jax.seeds import random_key

OBJECTIVE = ("epe", "params")
CODE = """
import jax.numpy as jnp
import numpy as np
from beside import HIDDEN


def apply(weights, images):
    hidden, out = weights
    return jnp.tanh(images.reshape(len(images), -1) @ hidden) @ out


def networks(num_classes, side):
    rng = np.random.default_rng(0)
    for name, width in HIDDEN.items():
        shapes = (side * side * 3, width), (width, num_classes)
        yield name, (apply, [rng.normal(0, 0.02, shape).astype(np.float32) for shape in shapes])
    yield "broken", (lambda weights, images: images, np.ones(3, np.float32))
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of three networks, the last of which returns no logits."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside.py").write_text("HIDDEN = {'narrow': 4, 'wide': 16}\n")
    (tmp_path / "candidates.py").write_text(CODE)
    yield tmp_path / "candidates.py"
    sys.modules.pop("beside", None)


def run(file, workdir, objective=OBJECTIVE, **overrides):
    text = rank.rank_and_report(
        tiny_config(**overrides), workdir, str(file), objective, smaller_batches=False
    )
    return text, pd.read_csv(workdir / "ranking.csv")


def test_the_ranking_is_that_of_rank_networks_with_a_row_for_what_is_broken(file, tmp_path):
    text, table = run(file, tmp_path / "w")
    page = (tmp_path / "w/report.html").read_text()
    assert "3 networks ranked on digits" in page
    assert "<svg" in page
    config = tiny_config()
    dataset = dataset_of(config)
    minibatch = minibatch_of(config, dataset, random_key(config.seed))
    networks = rank.function_of(file)(dataset.num_classes, minibatch[0].shape[1])
    expected = rank_networks(networks, *minibatch, dataset.num_classes, objective=OBJECTIVE)
    assert list(table["network"][:2]) == list(expected.sort_values("rank")["network"][:2])
    by_name = table.set_index("network")
    for name in ("score", "rank", "epe", "params", "grad_norm"):
        found = by_name[name][expected["network"]].to_numpy(np.float64)
        given = expected[name].to_numpy(np.float64, na_value=np.nan)
        # The same program on the same numbers.
        assert np.allclose(found, given, rtol=1e-6, equal_nan=True), name
    assert by_name["place"][expected["network"]].tolist() == [1, 2, 3]
    broken = by_name.loc["broken"]
    assert np.isnan(broken["score"])
    assert broken["error"].startswith(
        "network 'broken': logits: found float32 of shape (16, 32, 32, 3)"
    )
    assert text.splitlines()[0] == "3 networks, 2 with a score"
    assert text.splitlines()[-1] == broken["error"]


@pytest.fixture
def measured(monkeypatch):
    """Names of networks in the order in which they were measured, which takes no time here."""
    names = []

    def row_of(name, _network, _minibatch, columns, *, smaller_batches):
        assert not smaller_batches
        names.append(name)
        values = {column: 10.1 - len(name) + place for place, column in enumerate(columns)}
        error = "network 'broken': no" if name == "broken" else None
        return {"network": name, **values, "note": "" if error else "a note", "error": error}

    monkeypatch.setattr(rank, "network_row", row_of)
    return names


def test_a_stopped_run_goes_on_behind_the_last_network(file, tmp_path, monkeypatch, measured):
    whole = run(file, tmp_path / "whole")
    row_of = rank.network_row

    def stops_at_the_third(name, *arguments, **options):
        if name == "broken":
            raise KeyboardInterrupt
        return row_of(name, *arguments, **options)

    monkeypatch.setattr(rank, "network_row", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(file, tmp_path / "w")
    # Best first, which is not the order in which they were measured.
    assert list(pd.read_csv(tmp_path / "w/ranking.csv")["network"]) == ["wide", "narrow"]
    monkeypatch.setattr(rank, "network_row", row_of)
    measured.clear()
    for _ in range(2):
        text, table = run(file, tmp_path / "w")
        assert measured == ["broken"]
        assert text == whole[0]
        pd.testing.assert_frame_equal(table, whole[1])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\n", r"candidates.py: found no function networks\(num_classes, side\)"),
        ("networks = 3\n", "found no function networks"),
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("def networks(num_classes, side)\n", "SyntaxError"),
        ("def networks(num_classes):\n    return {}\n", "TypeError: networks.. takes 1"),
        ("def networks(*sizes):\n    return {}\n", "networks: found none, expected at least one"),
        ("def networks(*sizes):\n    return 5\n", "found an int, expected networks by name"),
        (
            "def networks(*sizes):\n    yield 'a', 1\n    yield 'a', 2\n",
            "found the name 'a' twice, expected each once",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(file, tmp_path, code, message):
    file.write_text(code)
    with pytest.raises(InputError, match=message) as refusal:
        run(file, tmp_path / "w")
    assert "\n" not in str(refusal.value)


@pytest.mark.usefixtures("measured")
def test_other_settings_are_refused(file, tmp_path):
    with pytest.raises(InputError, match="objective: found 'speed', expected one of epe"):
        run(file, tmp_path / "w", ("speed",))
    with pytest.raises(InputError, match=r"data\.fresh_minibatch: found True, expected False"):
        run(file, tmp_path / "w", **{"data.fresh_minibatch": True})
    assert not (tmp_path / "w").exists()
    run(file, tmp_path / "w")
    with pytest.raises(InputError, match=r"holds another run, config\.objective"):
        run(file, tmp_path / "w", ("epe",))
    file.write_text(CODE + "\n")
    with pytest.raises(InputError, match=r"holds another run, config\.networks_sha256"):
        run(file, tmp_path / "w")


@pytest.mark.parametrize("is_asked_for", [True, False])
def test_a_network_that_does_not_fit_gets_fewer_images_if_that_is_asked_for(
    file, tmp_path, monkeypatch, is_asked_for
):
    # Nothing is free when the first network is measured, and much afterwards.
    free = iter([0, *[10**12] * 9])
    monkeypatch.setattr(function, "free_bytes", lambda _: next(free))
    rank.rank_and_report(
        tiny_config(), tmp_path / "w", str(file), OBJECTIVE, smaller_batches=is_asked_for
    )
    row = pd.read_csv(tmp_path / "w/ranking.csv").set_index("network").loc["narrow"]
    if is_asked_for:
        assert re.match(r"measured on \d+ of 16 images, for lack of memory", row["note"])
    else:
        assert row["error"].startswith("network 'narrow': memory: found 0 MB free, expected about")


def test_the_command_says_what_is_missing_in_one_line(tmp_path):
    arguments = ["--config=test", f"--workdir={tmp_path / 'w'}", "--networks=missing.py"]
    done = epe_nas("rank", *arguments)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "missing.py: no such file, expected a file of Python code" in line
    assert not (tmp_path / "w").exists()
