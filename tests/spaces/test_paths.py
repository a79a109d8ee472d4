"""Counts along paths, against an enumeration of the paths from the genotype."""

import itertools
from collections import Counter

import jax
import numpy as np
import pytest

from epe_nas_jax import NasBench201Network
from epe_nas_jax.scoring.columns import COLUMNS, RunCells
from epe_nas_jax.spaces import paths
from epe_nas_jax.spaces.base import CellGraph, GraphEdge
from epe_nas_jax.spaces.darts import edges as darts
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.nasbench201 import genotype as nasbench201
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

POOLS = {"avg_pool_3x3", "max_pool_3x3"}
WIDE = {"nor_conv_3x3", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"}


def nasbench201_paths(genotype):
    """The operations on each path without a none, by going through subsets of nodes."""
    last = nasbench201.NUM_NODES - 1
    found = []
    for between in itertools.chain.from_iterable(
        itertools.combinations(range(1, last), size) for size in range(last)
    ):
        steps = itertools.pairwise((0, *between, last))
        ops = [genotype[nasbench201.EDGES.index(step)] for step in steps]
        if all(ops):
            found.append([nasbench201.OPERATIONS[op] for op in ops])
    return [found]


def darts_paths(genotype):
    """The operations on each path of each of the two cells, by going back from every node."""

    def back(ops, node):
        if node < 2:
            return [[]]
        return [
            [*path, darts.OPERATIONS[op]]
            for op, (source, target) in zip(ops, darts.CELL_EDGES, strict=True)
            if target == node and op
            for path in back(ops, source)
        ]

    halves = np.asarray(genotype).reshape(2, -1)
    return [[path for node in darts.NODES for path in back(ops, node)] for ops in halves]


@pytest.mark.parametrize(
    ("space", "paths_of"), [(NASBENCH201, nasbench201_paths), (DARTS, darts_paths)]
)
def test_columns_are_counts_of_an_enumeration_of_paths(space, paths_of):
    cells = np.asarray(space.sample(jax.random.key(0), 60))
    # The space is all that these columns ask of a network.
    network = NasBench201Network(10) if space is NASBENCH201 else type("N", (), {"space": space})
    found = {
        name: column.values(RunCells(cells, network, side=32))
        for name, column in (
            (name, COLUMNS[name])
            for name in ("few_pools", "little_pooling", "wide_convs", "mean_convs")
        )
    }
    for row, cell in enumerate(cells):
        expected = np.zeros(4)
        for of_cell in paths_of(cell):
            pools = [sum(op in POOLS for op in path) for path in of_cell]
            wide = [sum(op in WIDE for op in path) for path in of_cell]
            convs = [sum("conv" in op for op in path) for path in of_cell]
            counts = (
                [-min(pools), -np.mean(pools), max(wide), np.mean(convs)] if of_cell else np.nan
            )
            expected += counts
        values = [of_column[row] for of_column in found.values()]
        assert np.allclose(values, expected, rtol=1e-12, equal_nan=True)


def test_wide_convolutions_of_all_paths_count_once_each():
    cells = np.asarray(NASBENCH201.sample(jax.random.key(2), 60))
    column = COLUMNS["all_wide_convs"]
    found = column.values(RunCells(cells, NasBench201Network(10), side=32))
    live = NASBENCH201.prune_dead(cells)
    expected = np.sum(live == nasbench201.OPERATIONS.index("nor_conv_3x3"), axis=1).astype(float)
    assert np.array_equal(found, np.where(live.any(axis=1), expected, np.nan), equal_nan=True)


def test_a_skip_around_pools_leaves_a_path_without_any():
    cell = np.full(6, nasbench201.OPERATIONS.index("avg_pool_3x3"))
    cell[nasbench201.EDGES.index((0, 3))] = nasbench201.OPERATIONS.index("skip_connect")
    (graph,) = NASBENCH201.graphs(cell)
    counted = paths.count_on_paths(graph, paths.is_pool)
    assert counted == Counter({0: 1, 2: 2, 3: 1})
    assert (paths.fewest(counted), paths.most(counted), paths.mean(counted)) == (0, 3, 7 / 4)


def test_dead_edges_are_on_no_path_and_edges_may_come_in_any_order():
    edges = (
        GraphEdge(1, 3, "avg_pool_3x3", "pool"),
        GraphEdge(0, 2, "nor_conv_3x3", "conv", is_live=False),
        GraphEdge(0, 3, "nor_conv_1x1", "conv"),
        GraphEdge(0, 1, "nor_conv_3x3", "conv"),
    )
    graph = CellGraph("", 1, 1, (), edges)
    assert paths.count_on_paths(graph, paths.is_pool) == Counter({0: 1, 1: 1})
    assert paths.count_on_paths(graph, paths.is_wide_conv) == Counter({0: 1, 1: 1})


def test_without_a_path_there_are_no_counts():
    (graph,) = NASBENCH201.graphs(np.zeros(6, np.int32))
    counted = paths.count_on_paths(graph, paths.is_pool)
    assert not counted
    assert np.isnan([paths.fewest(counted), paths.most(counted), paths.mean(counted)]).all()
    assert np.isnan(paths.count_on_edges(graph, paths.is_pool))
