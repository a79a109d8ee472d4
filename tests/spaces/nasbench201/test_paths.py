import itertools

import numpy as np
import pytest

from epe_nas_jax.spaces.nasbench201 import paths
from epe_nas_jax.spaces.nasbench201.genotype import (
    EDGES,
    NUM_EDGES,
    NUM_NODES,
    OPERATIONS,
    decode,
    every_genotype,
    has_path,
    prune_dead,
)

COUNTED = [("avg_pool_3x3",), ("nor_conv_3x3",), ("nor_conv_1x1", "nor_conv_3x3")]


def sequences(genotype):
    """The operations on each path without a none, found by going through subsets of nodes."""
    found = []
    middle = range(1, NUM_NODES - 1)
    for size in range(NUM_NODES - 1):
        for between in itertools.combinations(middle, size):
            nodes = (0, *between, NUM_NODES - 1)
            names = [OPERATIONS[genotype[EDGES.index(e)]] for e in itertools.pairwise(nodes)]
            if "none" not in names:
                found.append(names)
    return found


@pytest.mark.parametrize("names", COUNTED)
def test_counts_are_those_of_an_enumeration_of_paths(names):
    genotypes = np.asarray(decode(np.random.default_rng(0).choice(15625, 300, replace=False)))
    least, most, mean = (f(genotypes, names) for f in (paths.fewest, paths.most, paths.mean))
    for row, genotype in enumerate(genotypes):
        counts = [sum(name in names for name in path) for path in sequences(genotype)]
        found = [least[row], most[row], mean[row]]
        expected = [min(counts), max(counts), np.mean(counts)] if counts else [np.nan] * 3
        assert np.allclose(found, expected, rtol=1e-12, equal_nan=True)


def test_paths_lead_from_input_to_output():
    assert len(set(paths.PATHS)) == len(paths.PATHS) == 4
    for path in paths.PATHS:
        ends = [EDGES[edge] for edge in path]
        assert ends[0][0] == 0
        assert ends[-1][1] == NUM_NODES - 1
        assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))


def test_a_cell_without_a_path_has_no_counts_and_dead_operations_change_none():
    every = every_genotype()
    for names in COUNTED:
        for count in (paths.fewest, paths.most, paths.mean):
            counts = count(every, names)
            assert np.array_equal(~np.isnan(counts), has_path(every))
            assert np.array_equal(counts, count(prune_dead(every), names), equal_nan=True)


def test_a_skip_around_pools_leaves_a_path_without_any():
    pool, skip = OPERATIONS.index("avg_pool_3x3"), OPERATIONS.index("skip_connect")
    cell = np.full((1, NUM_EDGES), pool)
    assert paths.fewest(cell, ("avg_pool_3x3",)) == 1
    assert paths.most(cell, ("avg_pool_3x3",)) == 3
    cell[0, EDGES.index((0, 3))] = skip
    assert paths.fewest(cell, ("avg_pool_3x3",)) == 0
    assert paths.mean(cell, ("avg_pool_3x3",)) == 7 / 4
