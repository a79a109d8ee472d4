"""Searches for the best scores at every cost: NSGA-II (Deb et al. 2002), without crossover.

The scored cells are ordered by Pareto fronts: the cells that no other beats in score and cost, then
those that only these beat, and so on; and within a front by the distance of a cell's neighbours.
"""

import jax
import numpy as np

from epe_nas_jax.search.algorithms import (
    Algorithm,
    ScoreFn,
    State,
    children_of,
    next_pending,
    start,
)
from epe_nas_jax.search.ranking import pareto_front
from epe_nas_jax.search.restrict import one_each
from epe_nas_jax.spaces.base import SearchSpace


def nsga2(
    *, population: int, candidates_per_step: int, costs: ScoreFn, space: SearchSpace
) -> Algorithm:
    """NSGA-II over score and cost, several children per step; an `algorithms.Algorithm`.

    The population starts with random cells. A child is a mutation of the better one of two cells of
    the population, drawn with replacement; the best cells of population and children together are
    the next population. Where neither of two cells has a score, a random cell replaces the child.

    Args:
      population: number of cells of the population, at least 1.
      candidates_per_step: B, at least 1.
      costs: from cells `[B, E]` to the cost of each, `[B]`; smaller is better, NaN is unknown and
        worse than any other.
      space: the search space.

    Examples:
      >>> from epe_nas_jax.search.algorithms import run
      >>> from epe_nas_jax.search.nsga2 import nsga2
      >>> def params(cells):
      ...     return network.cost(cells, side=8).params
      >>> algorithm = nsga2(
      ...     population=10, candidates_per_step=5, costs=params, space=network.space
      ... )
      >>> run(algorithm, jax.random.key(0), lambda cells: cells.sum(axis=1), 50).genotypes.shape
      (50, 6)
    """

    def init(key: jax.Array) -> State:
        return start(key, space, population)

    def ask(state: State) -> tuple[State, np.ndarray]:
        if len(state.pending):
            return next_pending(state, candidates_per_step)
        key, draw_key, mutate_key, sample_key = jax.random.split(state.key, 4)
        shape = (candidates_per_step, 2)
        pairs = np.asarray(jax.random.randint(draw_key, shape, 0, len(state.scores)))
        places = np.argsort(_order(state.genotypes, state.scores))
        parents = pairs[np.arange(len(pairs)), np.argmin(places[pairs], axis=1)]
        return state._replace(key=key), children_of(state, parents, space, mutate_key, sample_key)

    def tell(state: State, candidates: np.ndarray, scores: np.ndarray) -> State:
        genotypes = np.concatenate([state.genotypes, candidates])
        # A population never holds a cell twice.
        _, different = np.unique(genotypes, axis=0, return_index=True)
        different = np.sort(different)
        genotypes, scores = genotypes[different], np.concatenate([state.scores, scores])[different]
        best = _order(genotypes, scores)[:population]
        return state._replace(genotypes=genotypes[best], scores=scores[best])

    def _order(genotypes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        prices = one_each("costs", costs(genotypes), len(genotypes))
        return pareto_order(scores, prices)

    return Algorithm(init, ask, tell)


def pareto_order(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Orders cells from the best to the worst: by front, then by decreasing crowding distance.

    Args:
      scores: `[A]`, larger is better; cells with NaN come last.
      costs: `[A]`, smaller is better; cells with NaN come last.

    Returns:
      Indices of the cells, int `[A]`.
    """
    fronts = np.full(len(scores), len(scores))
    distances = np.zeros(len(scores))
    left = np.flatnonzero(~np.isnan(scores) & ~np.isnan(costs))
    number = 0
    while len(left):
        front = left[pareto_front(scores[left], costs[left])]
        fronts[front] = number
        distances[front] = crowding_distances(scores[front], costs[front])
        left = left[fronts[left] > number]
        number += 1
    return np.lexsort((-distances, fronts))


def crowding_distances(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The distance between the two neighbours of each cell of a front (Deb et al., section III-B).

    The distance is the sum, over score and cost, of the difference of the two neighbours divided by
    that of the front's two ends. The ends themselves have an infinite distance.

    Args:
      scores: scores of a front's cells, `[A]`, increasing.
      costs: costs of these cells, `[A]`, increasing.
    """
    distances = np.full(len(scores), np.inf)
    if len(scores) > 2:
        # Score and cost both increase along a front.
        distances[1:-1] = sum(
            (values[2:] - values[:-2]) / (values[-1] - values[0]) for values in (scores, costs)
        )
    return distances
