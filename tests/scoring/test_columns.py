import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax import BEST_RANKING, InputError, NasBench201Network
from epe_nas_jax.proxies.table import PROXIES
from epe_nas_jax.scoring.columns import (
    COLUMNS,
    LIMITS,
    MEASURED,
    Objective,
    RunCells,
    objective_of,
    proxies_to_score,
)
from epe_nas_jax.search.ranking import log_rank_sum, rank_sum
from epe_nas_jax.spaces.base import Cost
from epe_nas_jax.spaces.darts.published import DARTS_V1
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
from epe_nas_jax.spaces.table import SPACES


@dataclasses.dataclass
class Counting:
    """A network that only says what cells cost, and notes when it is asked."""

    asked: list = dataclasses.field(default_factory=list)
    space = NASBENCH201

    def cost(self, genotypes, *, side, image_channels, live=False):
        self.asked.append(live)
        params = np.arange(len(genotypes), dtype=np.int64) + 1000 * live
        return Cost(params, 10**6 * params + side + 1000 * (image_channels - 3))


def test_columns_are_what_the_network_says_its_cells_cost():
    cells = RunCells(np.zeros((3, 6), np.int32), Counting(), side=32)
    assert COLUMNS["params"].values(cells).tolist() == [0, 1, 2]
    assert COLUMNS["live_params"].values(cells).tolist() == [1000, 1001, 1002]
    assert COLUMNS["mflops"].values(cells).tolist() == [32e-6, 1 + 32e-6, 2 + 32e-6]
    assert COLUMNS["live_mflops"].values(cells).tolist() == [1000 + i + 32e-6 for i in range(3)]


def test_what_several_columns_share_is_counted_once():
    network = Counting()
    cells = RunCells(np.zeros((3, 6), np.int32), network, side=32)
    assert network.asked == []
    for column in cells.columns.values():
        column.values(cells)
        column.values(cells)
    assert sorted(network.asked) == [False, True]


@pytest.mark.parametrize("name", SPACES)
def test_every_space_has_every_column(name):
    space, make_network, *_ = SPACES[name]
    network = make_network(10, 4, 1, jnp.float32)
    genotypes = space.check(space.sample(jax.random.key(0), 5))
    cells = RunCells(genotypes, network, side=8)
    values = {column: COLUMNS[column].values(cells) for column in cells.columns}
    for live in (False, True):
        params, flops = network.cost(genotypes, side=8, live=live)
        prefix = "live_" if live else ""
        assert np.array_equal(values.pop(f"{prefix}params"), params)
        assert np.allclose(values.pop(f"{prefix}mflops"), flops / 1e6, rtol=1e-12)
    assert set(values) == {
        "few_pools",
        "little_pooling",
        "wide_convs",
        "all_wide_convs",
        "mean_convs",
    }
    has_path = space.has_path(genotypes)
    for counts in values.values():
        assert np.array_equal(~np.isnan(counts), has_path)


def test_what_lies_on_paths_is_that_of_the_live_form_and_of_no_size():
    cells = np.asarray(NASBENCH201.sample(jax.random.key(1), 40))
    live = NASBENCH201.prune_dead(cells)
    for name in ("few_pools", "little_pooling", "wide_convs", "all_wide_convs", "mean_convs"):
        values = COLUMNS[name].values
        found = values(RunCells(cells, NasBench201Network(10), side=32))
        other = values(RunCells(live, NasBench201Network(3, 4, 1), side=8))
        assert np.array_equal(found, other, equal_nan=True)
        assert np.isnan(found).sum() == np.sum(~NASBENCH201.has_path(cells))
        # Tables show no -0.
        assert not np.signbit(found[found == 0]).any()


def test_of_a_cell_without_operations_the_other_one_is_counted():
    network = SPACES["nasbench301"].make_network(10, 4, 1, jnp.dtype(jnp.float32))
    normal = DARTS_V1.split(", reduce=")[0]
    empty = ", ".join(f"('none', {source})" for source in (0, 1) * 4)
    text = f"{normal}, reduce=[{empty}], reduce_concat=[2, 3, 4, 5])"
    cell = network.space.parse(text)[None]
    both = network.space.parse(DARTS_V1)[None]
    counts = [COLUMNS["all_wide_convs"].values(RunCells(some, network, 8)) for some in (cell, both)]
    # DARTS_V1's normal cell has five convolutions, its reduction cell none.
    assert [count.tolist() for count in counts] == [[5.0], [5.0]]
    empty_too = np.zeros_like(cell)
    assert np.isnan(COLUMNS["all_wide_convs"].values(RunCells(empty_too, network, 8))).all()


def test_a_name_is_a_proxy_or_another_column_and_entries_are_complete():
    assert not set(PROXIES) & set(COLUMNS)
    for name, column in COLUMNS.items():
        assert column.name == name
        assert column.meaning


def test_limits_are_costs_of_the_cell_as_built_and_what_is_measured():
    assert LIMITS == ("params", "mflops", "latency_ms")
    network = Counting()
    for name in LIMITS[:2]:
        COLUMNS[name].values(RunCells(np.zeros((1, 6), np.int32), network, side=8))
    assert network.asked == [False, False]


def test_measured_columns_are_there_where_something_measures():
    asked = []

    def latency(genotypes):
        asked.append(genotypes)
        return np.array([2.5, np.nan, 1.0])

    genotypes = np.zeros((3, 6), np.int32)
    assert set(COLUMNS) - set(RunCells(genotypes, Counting(), 8).columns) == set(MEASURED)
    cells = RunCells(genotypes, Counting(), 8, latency=latency)
    assert cells.columns == COLUMNS
    for _ in range(2):
        found = COLUMNS["latency_ms"].values(cells)
        assert np.array_equal(found, [2.5, np.nan, 1.0], equal_nan=True)
    assert len(asked) == 1
    assert asked[0] is genotypes


def test_an_objective_of_one_column_is_its_values():
    objective = objective_of(("epe",), "log_rank_sum")
    assert objective == Objective(("epe",), None)
    assert objective.proxies == ("epe",)
    cells = RunCells(np.zeros((2, 6), np.int32), Counting(), side=8)
    assert objective.values({"epe": np.array([3.0, 1.0])}, cells).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("name", "combine"), [("log_rank_sum", log_rank_sum), ("rank_sum", rank_sum)]
)
def test_an_objective_of_several_columns_is_a_row_of_them_in_order(name, combine):
    objective = objective_of(("live_params", "nwot", "params", "epe"), name)
    assert objective.combine is combine
    assert objective.proxies == ("nwot", "epe")
    cells = RunCells(np.zeros((2, 6), np.int32), Counting(), side=8)
    proxies = {"epe": np.array([3.0, np.nan]), "nwot": np.array([5.0, 4.0])}
    expected = [[1000, 5, 0, 3], [1001, 4, 1, np.nan]]
    assert np.array_equal(objective.values(proxies, cells), expected, equal_nan=True)


def test_the_recommended_ranking_is_an_objective():
    objective = objective_of(BEST_RANKING, "log_rank_sum")
    assert objective.columns == BEST_RANKING
    assert objective.proxies == ("jacob_cov", "nwot", "grad_entropy", "grad_decay")


@pytest.mark.parametrize(
    ("columns", "combine", "message"),
    [
        (("epe",), "mean", "score.combine: found 'mean', expected one of log_rank_sum, rank_sum"),
        (("epe", "other"), "rank_sum", "score.objective: found 'other', expected one of epe"),
        (("epe", "params", "epe"), "rank_sum", "score.objective: found 'epe' twice"),
        (("epe", "latency_ms"), "rank_sum", "found 'latency_ms', expected one of epe"),
        (("params", "mflops"), "rank_sum", "found params, mflops, expected a proxy among them"),
        ((), "rank_sum", "score.objective: found nothing, expected a proxy among them"),
    ],
)
def test_other_objectives_are_refused_by_what_is_wrong(columns, combine, message):
    with pytest.raises(InputError, match=message):
        objective_of(columns, combine)


def test_further_proxies_come_after_the_objectives_and_each_once():
    objective = objective_of(("params", "nwot", "epe"), "rank_sum")
    assert proxies_to_score(objective) == ("nwot", "epe")
    assert proxies_to_score(objective, ("snip", "epe", "jacob_cov", "snip")) == (
        "nwot",
        "epe",
        "snip",
        "jacob_cov",
    )


def test_a_network_knows_the_columns_of_its_own_cells_only():
    network = NasBench201Network(10)
    with pytest.raises(InputError, match="genotypes: found shape"):
        COLUMNS["params"].values(RunCells(np.zeros((1, 28), int), network, side=32))


def test_an_infinite_proxy_is_no_score():
    cells = RunCells(np.zeros((3, 6), np.int32), Counting(), side=32)
    proxies = {"nwot": np.array([1.0, -np.inf, 3.0])}
    alone = objective_of(("nwot",), "rank_sum").values(proxies, cells)
    assert np.array_equal(alone, [1, np.nan, 3], equal_nan=True)
    objective = objective_of(("nwot", "live_params"), "rank_sum")
    together = objective.combine(objective.values(proxies, cells))
    assert np.isnan(together).tolist() == [False, True, False]
