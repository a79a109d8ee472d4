import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from epe_nas_jax import (
    BEST_RANKING,
    DartsNetwork,
    InputError,
    NasBench201Network,
    ScoringConfig,
    compile_scorer,
    format_arch,
    format_genotype,
    parse_genotype,
    score_cells,
    score_table,
)
from epe_nas_jax.scoring.columns import COLUMNS, MEASURED
from epe_nas_jax.search.ranking import log_rank_sum, rank_sum
from epe_nas_jax.spaces.darts.published import DARTS_V1, DARTS_V2
from epe_nas_jax.spaces.nasbench201 import genotype as space

NETWORK = NasBench201Network(num_classes=3, channels=4, cells_per_stage=1, param_dtype=jnp.float64)
# Ten cells, one of them again, one that differs from it in a dead operation, one without a path.
SAMPLED = np.asarray(space.sample(jax.random.key(5), 10))
TWIN = np.array([2, 0, 0, 3, 0, 0], np.int32)
CELLS = np.concatenate([SAMPLED, SAMPLED[2:3], [[0, 0, 0, 3, 0, 0]], [TWIN], [TWIN * 0]])
SCORED = ("jacob_cov", "nwot", "grad_entropy", "grad_decay", "epe")
COUNTS = [name for name in COLUMNS if name not in MEASURED]


def ranks_by_counting(scores):
    """1 and how many are better; None for a cell without a score."""
    return [None if s != s else 1 + sum(other > s for other in scores) for s in scores]


def ranks_of(table):
    return [None if pd.isna(rank) else rank for rank in table["rank"]]


@pytest.fixture(scope="module")
def table():
    """The recommended ranking, with EPE-NAS beside it."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 8, 8, 3))
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32)
    return (images, labels), score_table(
        CELLS, images, labels, columns=("epe",), seed=3, network=NETWORK
    )


def test_by_default_the_score_is_the_recommended_ranking(table):
    _, table = table
    assert list(table) == ["arch", "score", "rank", *SCORED, *COUNTS]
    expected = log_rank_sum(np.stack([table[name] for name in BEST_RANKING], axis=1))
    assert np.allclose(table["score"], expected, rtol=1e-12, equal_nan=True)
    assert np.isfinite(table["score"]).sum() >= 12


def test_proxies_are_the_scorers_and_costs_the_networks(table):
    minibatch, table = table
    config = ScoringConfig(proxies=SCORED)
    scorer = compile_scorer(*minibatch, seed=3, network=NETWORK, config=config)
    assert np.array_equal(table[list(SCORED)], scorer.proxies(CELLS), equal_nan=True)
    for live, prefix in ((False, ""), (True, "live_")):
        params, flops = NETWORK.cost(CELLS, side=8, live=live)
        assert np.array_equal(table[f"{prefix}params"], params)
        assert np.allclose(table[f"{prefix}mflops"], flops / 1e6, rtol=1e-12)


def test_a_row_is_a_cell_in_the_given_order(table):
    _, table = table
    assert table["arch"].tolist() == [format_arch(cell) for cell in CELLS]


def test_equal_scores_share_a_rank_and_a_cell_without_a_score_has_none(table):
    _, table = table
    assert ranks_of(table) == ranks_by_counting(table["score"].tolist())
    assert table["rank"].min() == 1
    # The cell that is there twice, and the two of one live form.
    assert table["rank"][2] == table["rank"][10]
    assert table["rank"][11] == table["rank"][12]
    assert table["params"][11] < table["params"][12]
    assert pd.isna(table["rank"][13])


def test_another_objective_and_combination(table):
    minibatch, best = table
    # The same proxies in the same order, so that the program is there already.
    arguments = {"columns": SCORED, "seed": 3, "network": NETWORK}
    of_two = score_table(
        CELLS, *minibatch, objective=("jacob_cov", "params"), combine="rank_sum", **arguments
    )
    assert list(of_two) == list(best)
    expected = rank_sum(np.stack([best["jacob_cov"], best["params"]], axis=1))
    assert np.allclose(of_two["score"], expected, rtol=1e-12, equal_nan=True)
    assert ranks_of(of_two) == ranks_by_counting(of_two["score"].tolist())


def test_a_score_of_one_proxy_is_there_under_that_name_only(table):
    minibatch, best = table
    table = score_table(CELLS, *minibatch, objective=("epe",), seed=3, network=NETWORK)
    assert list(table) == ["arch", "score", "rank", *COUNTS]
    assert np.allclose(table["score"], best["epe"], rtol=1e-9, equal_nan=True)
    expected = score_cells(CELLS, *minibatch, seed=3, network=NETWORK)
    assert np.array_equal(table["score"], expected, equal_nan=True)


def test_columns_that_are_always_there_may_be_named(table):
    minibatch, _ = table
    arguments = {"objective": ("epe",), "seed": 3, "network": NETWORK}
    named = score_table(CELLS, *minibatch, columns=("params", "live_mflops"), **arguments)
    pd.testing.assert_frame_equal(named, score_table(CELLS, *minibatch, **arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ("other",)}, "proxy: found 'other', expected one of epe"),
        ({"columns": ("latency_ms",)}, "proxy: found 'latency_ms', expected one of epe"),
        ({"objective": ("epe", "other")}, "found 'other', expected one of epe"),
        ({"objective": ("params",)}, "found params, expected a proxy among them"),
        ({"combine": "mean"}, "found 'mean', expected one of log_rank_sum"),
        ({"init": "other"}, "init: found 'other'"),
        ({"num_inits": 0}, "num_inits: found 0"),
    ],
)
def test_what_cannot_be_used_is_named(minibatch, arguments, message):
    with pytest.raises(InputError, match=message):
        score_table(CELLS, *minibatch, network=NETWORK, **arguments)


@pytest.mark.parametrize("channels", [1, 4])
def test_costs_are_those_of_images_of_other_channels(minibatch, channels):
    images, labels = minibatch
    images = np.repeat(images[..., :1], channels, axis=-1)
    table = score_table(CELLS[:1], images, labels, objective=("epe",), network=NETWORK)
    variables = NETWORK.init(jax.random.key(0), images, CELLS[0])
    stem = variables["params"]["stem"]["conv_bn"]["kernel"]
    assert stem.shape[:3] == (3, 3, channels)
    difference = 9 * (channels - 3) * stem.shape[3]
    rgb = NETWORK.cost(CELLS[:1], side=8)
    assert table["params"][0] == rgb.params[0] + difference
    assert table["mflops"][0] == pytest.approx((rgb.flops[0] + 64 * difference) / 1e6, rel=1e-12)


def test_cells_that_are_none_of_the_space_are_refused(table):
    minibatch, _ = table
    with pytest.raises(InputError, match="found operation index 5"):
        score_table(CELLS + 4, *minibatch, objective=("epe",), seed=3, network=NETWORK)


@pytest.mark.slow
def test_a_network_of_another_space_has_a_table_too(table):
    minibatch, _ = table
    # As in the test of DARTS's scores, which so share their program.
    network = DartsNetwork(num_classes=3, channels=4, num_cells=3, param_dtype=jnp.float64)
    cells = np.stack([parse_genotype(text) for text in (DARTS_V1, DARTS_V2)])
    cells = np.append(cells, np.zeros((1, 28), np.int32), axis=0)
    arguments = {"seed": 0, "network": network, "cells_per_step": 2}
    table = score_table(cells, *minibatch, objective=("epe",), **arguments)
    assert table["arch"].tolist() == [format_genotype(cell) for cell in cells]
    expected = score_cells(cells, *minibatch, **arguments)
    assert np.array_equal(table["score"], expected, equal_nan=True)
    assert ranks_of(table) == ranks_by_counting(expected.tolist())
    assert np.isfinite(expected[:2]).all()
    assert np.isnan(expected[2])
    assert np.array_equal(table["params"], network.cost(cells, side=8).params)


def test_arch_strings_and_lists_of_pixels_have_the_table_of_arrays(table):
    (images, labels), expected = table
    archs = [format_arch(cell) for cell in CELLS]
    found = score_table(
        archs, images.tolist(), labels.tolist(), columns=("epe",), seed=3, network=NETWORK
    )
    pd.testing.assert_frame_equal(found, expected)
