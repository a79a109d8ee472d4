"""NSGA-II: its order of cells, and what it finds beside random search."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_space import DIGITS

from epe_nas_jax import InputError
from epe_nas_jax.search import algorithms, ranking
from epe_nas_jax.search.nsga2 import crowding_distances, nsga2, pareto_order

VALUES = st.integers(0, 5) | st.just(np.nan)


def front_of(cell, cells):
    """In which front a cell is: one behind the last of those that beat it; equal ones in turn."""
    place = cells.index(cell)
    above = [
        other
        for index, other in enumerate(cells)
        if other[0] >= cell[0] and other[1] <= cell[1] and (other[:2] != cell[:2] or index < place)
    ]
    return 1 + max((front_of(other, cells) for other in above), default=-1)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=9))
def test_cells_are_ordered_by_fronts_and_those_without_a_number_come_last(pairs):
    order = pareto_order(*np.array(pairs, float).reshape(-1, 2).T)
    assert sorted(order) == list(range(len(pairs)))
    known = [index for index in order if not np.isnan(pairs[index]).any()]
    assert list(order[: len(known)]) == known
    # With its place, each cell is another one.
    cells = [(*pairs[index], index) for index in sorted(known)]
    fronts = [front_of((*pairs[index], index), cells) for index in known]
    assert fronts == sorted(fronts)


def test_crowding_distances_are_the_papers():
    scores, costs = np.array([1.0, 2.0, 4.0, 5.0]), np.array([10.0, 30.0, 40.0, 60.0])
    expected = [np.inf, 3 / 4 + 30 / 50, 3 / 4 + 30 / 50, np.inf]
    np.testing.assert_allclose(crowding_distances(scores, costs), expected)
    assert np.isinf(crowding_distances(scores[:2], costs[:2])).all()
    # Of a front, its ends and the cells with room around them come first.
    scores, costs = np.array([0.0, 1, 2, 8, 10]), np.array([0.0, 1, 2, 8, 10])
    assert list(pareto_order(scores, costs)) == [0, 4, 3, 2, 1]


def score(cells):
    return np.sum(cells, axis=1) - 0.1 * np.sum(cells == 9, axis=1)


def cost(cells):
    """Grows faster than the score, so that every score has its price."""
    return np.sum(np.square(cells), axis=1).astype(float)


def volume(cells):
    return ranking.hypervolume(score(cells), cost(cells), least_score=0.0, most_cost=972.0)


def test_it_finds_better_cells_at_every_cost_than_random_search():
    volumes = []
    for seed in range(5):
        keys = jax.random.split(jax.random.key(seed))
        algorithm = nsga2(population=20, candidates_per_step=20, costs=cost, space=DIGITS)
        found = algorithms.run(algorithm, keys[0], score, 600)
        drawn = algorithms.run(algorithms.random(600, space=DIGITS), keys[1], score, 600)
        volumes.append([volume(found.genotypes), volume(drawn.genotypes)])
    ours, random = np.array(volumes).T
    assert (ours > 1.05 * random).all()


def test_cells_whose_cost_is_unknown_are_no_parents():
    def costs(cells):
        return np.where(cells[:, 0] < 5, np.nan, cost(cells))

    algorithm = nsga2(population=10, candidates_per_step=10, costs=costs, space=DIGITS)
    state = algorithm.init(jax.random.key(0))
    for _ in range(20):
        state, cells = algorithm.ask(state)
        state = algorithm.tell(state, cells, score(cells))
    assert (state.genotypes[:, 0] >= 5).all()
    assert len(np.unique(state.genotypes, axis=0)) == 10


def test_costs_that_are_not_one_a_cell_are_refused():
    algorithm = nsga2(population=4, candidates_per_step=4, costs=lambda _: np.ones(3), space=DIGITS)
    state = algorithm.init(jax.random.key(0))
    state, cells = algorithm.ask(state)
    with pytest.raises(InputError, match=r"costs: found values of shape \(3,\), expected \(4,\)"):
        algorithm.tell(state, cells, score(cells))
