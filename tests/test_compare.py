"""Cells beside PyTorch: the command, its files, and what it says when the sides differ."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from epe_nas_jax import InputError, Network, format_arch, pytorch, side_by_side
from epe_nas_jax.batching import CellScorer
from epe_nas_jax.comparison import (
    CellComparison,
    compare_cells,
    relative_error,
    summarise,
    to_rows,
    weights_of_seed,
)
from epe_nas_jax.convert import Sizes
from epe_nas_jax.genotype import sample
from epe_nas_jax.side_by_side import compare_and_report
from epe_nas_jax.stopping import StopRequested

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from configs import test  # noqa: E402

GENOTYPE = (3, 2, 0, 1, 4, 3)
ARCH = format_arch(GENOTYPE)
SIZES = Sizes(channels=4, cells_per_stage=1, num_classes=10)


def tiny_config(**overrides):
    config = test.get_config()
    config.update_from_flattened_dict({"compare.num_cells": 6, **overrides})
    return config


@pytest.fixture
def weights():
    """A freshly initialised network's state dict that fits the test config."""
    torch.manual_seed(0)
    return pytorch.build_network(GENOTYPE, SIZES).state_dict()


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "epe_nas_jax.compare", "--config=configs/test.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished comparison in float64."""
    workdir = tmp_path_factory.mktemp("finished") / "work"
    config = tiny_config()
    return workdir, config, compare_and_report(config, workdir)


def test_work_directory_holds_both_sides_of_every_cell(finished):
    workdir, config, _ = finished
    assert {path.name for path in workdir.iterdir()} == {
        "config.json",
        "compare.json",
        "compare.png",
    }
    content = json.loads((workdir / "compare.json").read_text())
    assert [list(cell) for cell in content["cells"]] == [list(CellComparison._fields)] * 6
    assert content["summary"]["num_cells"] == 6
    assert content["summary"]["dtype"] == "float64"
    assert content["summary"]["pytorch_network"] == "xautodl"
    assert content["summary"]["pytorch_threads"] >= 1
    assert (workdir / "compare.png").read_bytes().startswith(b"\x89PNG")
    provenance = json.loads((workdir / "config.json").read_text())
    assert provenance["config"] == json.loads(config.to_json())
    assert {"torch", "xautodl", "jax"} <= set(provenance["versions"])


def test_both_sides_agree_in_float64(finished):
    summary = json.loads((finished[0] / "compare.json").read_text())["summary"]
    assert summary["logits_error"]["worst"] < 1e-10
    assert summary["jacobian_error"]["worst"] < 1e-9
    assert summary["score_error"]["worst"] < 1e-7
    assert 0 < summary["score_error"]["median"] <= summary["score_error"]["worst"]
    assert summary["spearman"] == pytest.approx(1)
    assert summary["same_best"]
    assert summary["num_scored_on_one_side_only"] == 0


def test_printed_table_has_a_line_a_cell_and_says_what_was_timed(finished):
    workdir, _, text = finished
    cells = json.loads((workdir / "compare.json").read_text())["cells"]
    lines = text.splitlines()
    for cell, line in zip(cells, lines[2:8], strict=True):
        assert line.endswith(cell["arch"])
    for words in ("s compiling", "all gradients", "input gradient only", "threads", "Spearman"):
        assert words in text


def test_the_command_compares_in_float32(tmp_path):
    done = command(f"--workdir={tmp_path}/w", "--config.compare.num_cells=3", JAX_ENABLE_X64="0")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "w/compare.json").read_text())["summary"]
    assert summary["dtype"] == "float32"
    assert 1e-10 < summary["score_error"]["worst"] < 5e-3
    assert "float32 on 16 images" in done.stdout


@pytest.fixture(scope="module")
def sides():
    """Arguments of `compare_cells` on random images, with PyTorch in this process."""
    rng = np.random.default_rng(0)
    images, labels = jnp.asarray(rng.normal(size=(12, 8, 8, 3))), jnp.arange(12) % 3
    network = Network(3, channels=4, cells_per_stage=1, param_dtype=jnp.float64)

    def run_torch(genotype, state_dict, *, at_its_best):
        return pytorch.run_cell(
            genotype,
            np.asarray(images),
            sizes=SIZES._replace(num_classes=3),
            state_dict=state_dict,
            at_its_best=at_its_best,
        )

    return {
        "images": images,
        "labels": labels,
        "network": network,
        "variables": weights_of_seed(5, network, images),
        "score_fn": CellScorer(images, labels, seed=5, network=network, cells_per_step=2),
        "cells_per_turn": 2,
        "run_torch": run_torch,
    }


def test_a_signal_stops_before_the_next_cell_and_ends_pytorchs_process(tmp_path, monkeypatch):
    def signal_and_run(cells, *_, run_torch, **__):
        os.kill(os.getpid(), signal.SIGINT)
        run_torch(cells[0], {}, at_its_best=False)

    monkeypatch.setattr(side_by_side, "compare_cells", signal_and_run)
    with pytest.raises(StopRequested, match="SIGINT"):
        compare_and_report(tiny_config(), tmp_path / "work")
    assert multiprocessing.active_children() == []
    assert not (tmp_path / "work").exists()


def test_cells_without_a_path_have_no_score_on_both_sides(sides):
    cells = np.array([(3, 3, 3, 3, 3, 3), (0, 0, 1, 0, 0, 2), (2, 1, 0, 3, 4, 1)])
    comparisons = compare_cells(cells, **sides)
    assert [comparison.arch for comparison in comparisons] == [format_arch(cell) for cell in cells]
    summary = summarise(comparisons)
    assert summary["num_degenerate"] == 1
    assert summary["num_scored_on_one_side_only"] == 0
    assert summary["jacobian_error"]["worst"] < 1e-9
    rows = to_rows(comparisons)
    assert rows[1]["score"] is rows[1]["pytorch_score"] is rows[1]["score_error"] is None
    json.dumps([summary, rows], allow_nan=False)


def test_other_weights_on_pytorchs_side_are_noticed(sides):
    run_torch = sides["run_torch"]

    def with_another_stem(genotype, state_dict, *, at_its_best):
        stem = state_dict["stem.0.weight"].copy()
        stem[0, 0, 0, 0] += 1
        changed = {**state_dict, "stem.0.weight": stem}
        return run_torch(genotype, changed, at_its_best=at_its_best)

    cells = np.array([(3, 2, 0, 1, 4, 3), (2, 1, 0, 3, 4, 1)])
    for comparison in compare_cells(cells, **{**sides, "run_torch": with_another_stem}):
        assert comparison.logits_error > 1e-3
        assert comparison.jacobian_error > 1e-3
        assert comparison.score_error > 1e-4


def row(score, pytorch_score, arch="a"):
    return CellComparison(arch, score, pytorch_score, 0.0, 0.0, score / pytorch_score - 1, 1, 2, 3)


def test_summary_tells_when_the_sides_choose_differently():
    summary = summarise([row(3.0, 2.0, "a"), row(2.0, 4.0, "b"), row(np.nan, 1.0, "c")])
    assert not summary["same_best"]
    assert (summary["best_arch"], summary["pytorch_best_arch"]) == ("a", "b")
    assert summary["num_scored_on_one_side_only"] == 1
    assert summary["score_error"] == {"worst": 0.5, "median": 0.0}
    assert summary["seconds_per_cell"]["pytorch_as_released"] == 2
    assert summary["times_ours"] == {"pytorch_as_released": 2, "pytorch_at_its_best": 3}


def test_summary_of_cells_without_scores_is_undefined():
    summary = summarise([row(np.nan, np.nan)])
    assert summary["score_error"] == {"worst": None, "median": None}
    assert summary["spearman"] is summary["best_arch"] is None


def test_relative_error_is_relative_to_the_largest_magnitude():
    expected = np.array([4.0, 0.0])
    assert relative_error(np.array([4.0, 1.0]), expected) == 0.25
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
    assert relative_error(np.ones(2), np.zeros(2)) == np.inf


def test_a_checkpoint_of_your_own_is_scored_on_both_sides(weights, tmp_path):
    # Another network than that of the seed: the same seed's scores would differ.
    torch.save(weights, tmp_path / "weights.pt")
    overrides = {"compare.arch": ARCH, "compare.checkpoint": str(tmp_path / "weights.pt")}
    compare_and_report(tiny_config(**overrides), tmp_path / "own")
    compare_and_report(tiny_config(**{"compare.arch": ARCH}), tmp_path / "seed")
    (own,), (of_seed,) = (
        json.loads((tmp_path / name / "compare.json").read_text())["cells"]
        for name in ("own", "seed")
    )
    for cell in (own, of_seed):
        assert cell["arch"] == ARCH
        assert cell["score_error"] < 1e-7
    assert own["score"] != pytest.approx(of_seed["score"], rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"compare.num_cells": 0}, "number of samples: found 0"),
        ({"compare.arch": "|none~0|"}, "expected the form"),
        ({"compare.checkpoint": "w.pt"}, "compare.arch: found nothing, expected the cell of"),
        ({"compare.pytorch_path": "no/checkout"}, "no/checkout: found no folder 'models'"),
        ({"compare.arch": ARCH, "compare.checkpoint": "no.pt"}, "no.pt: no such file"),
        ({"data.fresh_minibatch": True}, "data.fresh_minibatch: found True, expected False"),
        ({"score.init": "independent"}, "score.init: found 'independent', expected 'shared'"),
        ({"score.num_inits": 2}, "score.num_inits: found 2, expected 1"),
        ({"score.variant": "two_branch"}, "score.variant: found 'two_branch'"),
        ({"data.batch_size": 1}, "data.batch_size: found 1"),
        ({"network.channels": 0}, "network.channels: found 0"),
    ],
)
def test_bad_config_is_refused_and_leaves_nothing(tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        compare_and_report(tiny_config(**overrides), tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("arch", "sizes", "message"),
    [
        (ARCH, SIZES._replace(channels=8), "channels: found 8, expected 4"),
        (ARCH, SIZES._replace(cells_per_stage=2), "cells_per_stage: found 2, expected 1"),
        (ARCH, SIZES._replace(num_classes=100), "num_classes: found 100, expected 10"),
        (format_arch((2,) * 6), SIZES, "entry 'cells.0.layers.0.op.1.weight': found shape"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path, arch, sizes, message):
    path = tmp_path / "weights.pt"
    torch.save(pytorch.build_network(GENOTYPE, sizes).state_dict(), path)
    config = tiny_config(**{"compare.arch": arch, "compare.checkpoint": str(path)})
    with pytest.raises(InputError, match=message):
        compare_and_report(config, tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", ["compare.json", "compare.png", "summary.json"])
def test_files_of_another_run_are_refused(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=f"holds {name} of another run"):
        compare_and_report(tiny_config(), tmp_path)
    assert (tmp_path / name).read_text() == ""


def test_another_config_is_refused(finished):
    workdir, _, _ = finished
    before = {path: path.read_bytes() for path in workdir.iterdir()}
    with pytest.raises(InputError, match=r"config.compare.num_cells: found 6, expected 7"):
        compare_and_report(tiny_config(**{"compare.num_cells": 7}), workdir)
    assert {path: path.read_bytes() for path in workdir.iterdir()} == before


def fails_in_one_line(done, workdir, message):
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("package", "message"),
    [("torch", "pip install torch"), ("xautodl", "pip install --no-deps xautodl==1.0.0")],
)
def test_the_command_tells_how_to_install_what_is_missing(tmp_path, package, message):
    (tmp_path / f"{package}.py").write_text("raise ModuleNotFoundError('not here')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = command(f"--workdir={tmp_path}/w", PYTHONPATH=path)
    fails_in_one_line(done, tmp_path / "w", message)


def truncated(weights, path):
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:5000])


class RunsCode:
    """A pickle that would write a file when it is loaded."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def running_code(weights, path):
    path.write_bytes(pickle.dumps({**weights, "stem.0.weight": RunsCode()}))


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (truncated, "weights.pt: not a readable file of PyTorch weights"),
        (running_code, "weights.pt: not a file of weights alone"),
    ],
)
def test_the_command_refuses_bad_checkpoints(weights, tmp_path, save, message):
    save(weights, tmp_path / "weights.pt")
    done = command(
        f"--workdir={tmp_path}/w",
        f"--config.compare.arch={ARCH}",
        f"--config.compare.checkpoint={tmp_path}/weights.pt",
    )
    fails_in_one_line(done, tmp_path / "w", message)
    assert not (ROOT / "ran").exists()


def test_unknown_keys_are_refused(tmp_path):
    done = command(f"--workdir={tmp_path}/w", "--config.compare.cells=3")
    fails_in_one_line(done, tmp_path / "w", "'cells'")


def test_cells_follow_from_the_seed(finished):
    cells_key, _ = jax.random.split(jax.random.key(finished[1].seed))
    cells = json.loads((finished[0] / "compare.json").read_text())["cells"]
    expected = [format_arch(cell) for cell in np.asarray(sample(cells_key, 6))]
    assert [cell["arch"] for cell in cells] == expected
