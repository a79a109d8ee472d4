"""Cells beside PyTorch: what is compared, and what is said when the sides differ."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax import NasBench201Network, format_arch
from epe_nas_jax.pytorch import network as torch_network
from epe_nas_jax.pytorch.comparison import (
    CellComparison,
    compare_cells,
    relative_error,
    summarise,
    to_rows,
)
from epe_nas_jax.pytorch.weights import Sizes
from epe_nas_jax.scoring.scorer import compile_scorer
from epe_nas_jax.scoring.step import shared_weights


@pytest.fixture(scope="module")
def sides():
    """Arguments of `compare_cells` on random images, with PyTorch in this process."""
    rng = np.random.default_rng(0)
    images, labels = jnp.asarray(rng.normal(size=(12, 8, 8, 3))), jnp.arange(12) % 3
    network = NasBench201Network(3, channels=4, cells_per_stage=1, param_dtype=jnp.float64)

    def run_torch(genotype, state_dict, *, at_its_best):
        return torch_network.run_cell(
            genotype,
            np.asarray(images),
            sizes=Sizes(channels=4, cells_per_stage=1, num_classes=3),
            state_dict=state_dict,
            at_its_best=at_its_best,
        )

    return {
        "images": images,
        "labels": labels,
        "network": network,
        "variables": shared_weights(5, network, images),
        "score_fn": compile_scorer(images, labels, seed=5, network=network, cells_per_step=2),
        "cells_per_turn": 2,
        "run_torch": run_torch,
    }


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
