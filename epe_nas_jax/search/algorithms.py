"""Searches any space with any score function: an algorithm asks for cells and gets their scores.

An `Algorithm` is three pure functions over a `State`, as in evosax and blackjax:

    state = algorithm.init(key)
    state, candidates = algorithm.ask(state)
    state = algorithm.tell(state, candidates, score_fn(candidates))

`run` is that loop. A search depends on its key and on the scores that `tell` gets, and on nothing
else. A cell without a score, NaN, never wins.

`combine` makes one score of several proxies, by their ranks among the cells seen so far
(`ranking.log_rank_sum`). Such scores change with every new cell, so that every step computes them
again.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.search.ranking import Combine, best_index
from epe_nas_jax.search.restrict import one_each
from epe_nas_jax.spaces.base import SearchSpace

ScoreFn = Callable[[np.ndarray], np.ndarray]
"""From genotypes `[A, E]` to scores `[A]`, NaN for a cell without one; or `[A, P]` to combine."""

# A search ends after so many successive steps without a new cell.
MAX_IDLE_STEPS = 1000


class State(NamedTuple):
    """The state of a search algorithm between two steps.

    Attributes:
      key: random key for everything that is still to be drawn.
      pending: cells to ask for next, `[A, E]`.
      genotypes: cells from which candidates are made, `[A, E]`: the population, oldest first, or
        the cell whose neighbours are visited.
      scores: scores of these genotypes, `[A]`.

    Examples:
      >>> from epe_nas_jax.search import algorithms
      >>> state = algorithms.random(4, space=network.space).init(jax.random.key(0))
      >>> state.pending.shape, state.genotypes.shape
      ((4, 6), (0, 6))
    """

    key: jax.Array
    pending: np.ndarray
    genotypes: np.ndarray
    scores: np.ndarray


class Algorithm(NamedTuple):
    """A search algorithm as three pure functions.

    Attributes:
      init: from a key, consumed, to the first state.
      ask: from a state to the next state and candidates to score, `[B, E]`; without candidates the
        search is over.
      tell: from a state, candidates `[B, E]` and their scores `[B]` to the next state. The
        candidates may be fewer than those of `ask`, or others.

    Examples:
      >>> from epe_nas_jax.search import algorithms
      >>> algorithm = algorithms.local(candidates_per_step=8, space=network.space)
      >>> state, candidates = algorithm.ask(algorithm.init(jax.random.key(0)))
      >>> state = algorithm.tell(state, candidates, scores=candidates.sum(axis=1))
      >>> candidates.shape
      (8, 6)
    """

    init: Callable[[jax.Array], State]
    ask: Callable[[State], tuple[State, np.ndarray]]
    tell: Callable[[State, np.ndarray, np.ndarray], State]


class SearchResult(NamedTuple):
    """The cells that a search has scored, in that order, and the cell that it chooses.

    Attributes:
      genotypes: the different cells, int32 `[A, E]`.
      scores: the cells' scores, `[A]`, NaN for a cell without a score.
      best: index of the chosen cell, or None if no cell has a score.
      num_steps: how many steps had new cells.

    Examples:
      >>> from epe_nas_jax.search.algorithms import random_search
      >>> result = random_search(
      ...     jax.random.key(0), lambda cells: cells[:, 0], num_samples=10, space=network.space
      ... )
      >>> bool(result.scores[result.best] == result.scores.max())
      True
    """

    genotypes: np.ndarray
    scores: np.ndarray
    best: int | None
    num_steps: int


def run(
    algorithm: Algorithm,
    key: jax.Array,
    score_fn: ScoreFn,
    budget: int,
    *,
    combine: Combine | None = None,
) -> SearchResult:
    """Runs a search algorithm until it has scored a given number of different cells.

    A cell that is asked for again gets its earlier score, at no cost. The last step is cut to the
    budget. The search ends early if the algorithm asks for no more cells, or for no new cell in
    `MAX_IDLE_STEPS` steps.

    Args:
      algorithm: what to search with.
      key: random key, consumed.
      score_fn: from genotypes `[B, E]` to their scores `[B]`, larger is better; with `combine`, to
        their proxies `[B, P]`.
      budget: the most different cells to score.
      combine: from the proxies `[A, P]` of all cells seen so far to their scores `[A]`.

    Raises:
      InputError: the budget is below 1, or `score_fn` does not return a number for each cell.

    Examples:
      >>> from epe_nas_jax.search import algorithms
      >>> algorithm = algorithms.local(candidates_per_step=8, space=network.space)
      >>> result = algorithms.run(
      ...     algorithm, jax.random.key(0), lambda cells: cells.sum(axis=1), budget=50
      ... )
      >>> result.genotypes.shape
      (50, 6)
    """
    _check_at_least_1("budget", budget)
    score = cached(score_fn, combine)
    seen: dict[bytes, np.ndarray] = {}
    num_steps = idle_steps = 0
    state = algorithm.init(key)
    while len(seen) < budget and idle_steps < MAX_IDLE_STEPS:
        state, candidates = algorithm.ask(state)
        if not len(candidates):
            break
        num_seen, num_affordable = len(seen), 0
        for cell in candidates:
            if len(seen) == budget and cell.tobytes() not in seen:
                break
            seen.setdefault(cell.tobytes(), cell)
            num_affordable += 1
        candidates = candidates[:num_affordable]
        scores = score(candidates)
        if combine is not None:
            state = state._replace(scores=score(state.genotypes))
        state = algorithm.tell(state, candidates, scores)
        is_idle = len(seen) == num_seen
        idle_steps = idle_steps + 1 if is_idle else 0
        num_steps += not is_idle
    genotypes = np.array(list(seen.values()))
    scores = score(genotypes)
    return SearchResult(genotypes, scores, best_index(scores), num_steps)


def cached(score_fn: ScoreFn, combine: Combine | None = None) -> ScoreFn:
    """Makes a score function that remembers its scores and scores no cell twice.

    Args:
      score_fn: as in `run`.
      combine: as in `run`; the cells seen so far are those of all calls.

    Raises:
      InputError: when called, if `score_fn` or `combine` do not return a number for each cell.

    Examples:
      >>> from epe_nas_jax.search.algorithms import cached
      >>> def slow(cells):
      ...     print("scores", cells.tolist())
      ...     return cells.sum(axis=1)
      >>> cached(slow)(np.array([[3, 3], [3, 0], [3, 3]]))
      scores [[3, 3], [3, 0]]
      array([6, 3, 6])
    """
    place: dict[bytes, int] = {}
    values: list[np.ndarray] = []

    def score(genotypes: np.ndarray) -> np.ndarray:
        new = {cell.tobytes(): cell for cell in genotypes if cell.tobytes() not in place}
        if new:
            found = np.asarray(score_fn(np.array(list(new.values()))))
            if combine is None:
                found = one_each("score function", found, len(new))
            elif found.ndim != 2 or len(found) != len(new):
                raise InputError(
                    f"score function: found values of shape {found.shape}, "
                    f"expected ({len(new)}, proxies), a row for each cell"
                )
            place.update(zip(new, range(len(place), len(place) + len(new)), strict=True))
            values.extend(found)
        asked = [place[cell.tobytes()] for cell in genotypes]
        if combine is None or not asked:
            return np.array([values[index] for index in asked])
        return one_each("combine", combine(np.array(values)), len(values))[asked]

    return score


def random(num_cells: int, *, space: SearchSpace) -> Algorithm:
    """Random search (EPE-NAS, algorithm 1): one step of cells, uniformly drawn, all different.

    Args:
      num_cells: how many cells, A.
      space: the search space.

    Examples:
      >>> from epe_nas_jax.search import algorithms
      >>> algorithm = algorithms.random(20, space=network.space)
      >>> state, candidates = algorithm.ask(algorithm.init(jax.random.key(0)))
      >>> candidates.shape
      (20, 6)
    """

    def init(key: jax.Array) -> State:
        cells = np.asarray(space.sample(key, num_cells))
        return State(key, cells, cells[:0], np.zeros(0))

    def ask(state: State) -> tuple[State, np.ndarray]:
        return state._replace(pending=state.pending[:0]), state.pending

    def tell(state: State, candidates: np.ndarray, scores: np.ndarray) -> State:
        del candidates, scores
        return state

    return Algorithm(init, ask, tell)


def evolution(
    *,
    population: int,
    tournament: int,
    candidates_per_step: int,
    space: SearchSpace,
) -> Algorithm:
    """Regularised evolution (Real et al. 2019, algorithm 1), several children per step.

    The population starts with random cells. A child is a mutation of the best cell of a tournament,
    whose cells are drawn from the population with replacement; each child replaces the oldest cell.
    With one candidate per step this is the published algorithm; with more, all children of a step
    have their parents in the same population. Where no cell of a tournament has a score, a random
    cell replaces the child.

    Args:
      population: number of cells of the population.
      tournament: number of cells of a tournament.
      candidates_per_step: B.
      space: the search space.

    Raises:
      InputError: a number is below 1.

    Examples:
      >>> from epe_nas_jax.search import algorithms
      >>> algorithm = algorithms.evolution(
      ...     population=10, tournament=5, candidates_per_step=5, space=network.space
      ... )
      >>> result = algorithms.run(
      ...     algorithm, jax.random.key(0), lambda cells: cells.sum(axis=1), budget=200
      ... )
      >>> bool(result.scores.max() > result.scores[:10].max())  # better than the first, random ones
      True
    """
    _check_at_least_1("population", population)
    _check_at_least_1("tournament", tournament)
    _check_at_least_1("candidates per step", candidates_per_step)

    def init(key: jax.Array) -> State:
        return start(key, space, population)

    def ask(state: State) -> tuple[State, np.ndarray]:
        if len(state.pending):
            return next_pending(state, candidates_per_step)
        key, tournament_key, mutate_key, sample_key = jax.random.split(state.key, 4)
        shape = (candidates_per_step, tournament)
        drawn = np.asarray(jax.random.randint(tournament_key, shape, 0, len(state.scores)))
        comparable = np.where(np.isnan(state.scores), -np.inf, state.scores)
        winners = drawn[np.arange(candidates_per_step), np.argmax(comparable[drawn], axis=1)]
        return state._replace(key=key), children_of(state, winners, space, mutate_key, sample_key)

    def tell(state: State, candidates: np.ndarray, scores: np.ndarray) -> State:
        return state._replace(
            genotypes=np.concatenate([state.genotypes, candidates])[-population:],
            scores=np.concatenate([state.scores, scores])[-population:],
        )

    return Algorithm(init, ask, tell)


def local(*, candidates_per_step: int, space: SearchSpace) -> Algorithm:
    """Local search with restarts (as in White et al. 2021), several neighbours per step.

    It starts at the best of B random cells, and scores the neighbours in random order, B per step.
    When the best of a step is better than the cell, it moves there: first improvement for B = 1,
    steepest ascent for B as large as the neighbourhood. A cell with no better neighbour is a local
    optimum, and the search starts again at other random cells.

    Args:
      candidates_per_step: B.
      space: the search space.

    Raises:
      InputError: a number is below 1.

    Examples:
      >>> from epe_nas_jax.search import algorithms
      >>> algorithm = algorithms.local(candidates_per_step=24, space=network.space)
      >>> result = algorithms.run(
      ...     algorithm, jax.random.key(0), lambda cells: cells.sum(axis=1), budget=300
      ... )
      >>> int(result.scores.max())  # six times the last operation, number 4
      24
    """
    _check_at_least_1("candidates per step", candidates_per_step)

    def init(key: jax.Array) -> State:
        return start(key, space, candidates_per_step)

    def ask(state: State) -> tuple[State, np.ndarray]:
        state = state if len(state.pending) else init(state.key)
        return next_pending(state, candidates_per_step)

    def tell(state: State, candidates: np.ndarray, scores: np.ndarray) -> State:
        best = best_index(scores)
        if best is None or (len(state.scores) and scores[best] <= state.scores[0]):
            return state
        key, order_key = jax.random.split(state.key)
        neighbours = space.neighbours(candidates[best])
        order = np.asarray(jax.random.permutation(order_key, len(neighbours)))
        here = slice(best, best + 1)
        return State(key, neighbours[order], candidates[here], scores[here])

    return Algorithm(init, ask, tell)


def random_search(
    key: jax.Array,
    score_fn: ScoreFn,
    *,
    num_samples: int,
    space: SearchSpace,
    replace: bool = False,
    combine: Combine | None = None,
) -> SearchResult:
    """Draws cells uniformly, scores them all and chooses the best (EPE-NAS, algorithm 1).

    Args:
      key: random key, consumed.
      score_fn: from genotypes `[A, E]` to their scores `[A]`; larger is better.
      num_samples: how many cells, A.
      space: the search space.
      replace: whether a cell may be drawn twice, as in the released code.
      combine: as in `run`.

    Raises:
      InputError: more cells than the space has, without replacement; or `score_fn` does not return
        a number for each cell.

    Examples:
      >>> from epe_nas_jax.search.algorithms import random_search
      >>> scorer = epe_nas_jax.compile_scorer(images, labels, seed=0, network=network)
      >>> result = random_search(jax.random.key(0), scorer, num_samples=3, space=network.space)
      >>> epe_nas_jax.format_arch(result.genotypes[result.best])
      '|...~0|+|...~0|...~1|+|...~0|...~1|...~2|'
    """
    if not replace:
        return run(random(num_samples, space=space), key, score_fn, num_samples, combine=combine)
    genotypes = np.asarray(space.sample_with_replacement(key, num_samples))
    scores = cached(score_fn, combine)(genotypes)
    return SearchResult(genotypes, scores, best_index(scores), num_steps=1)


def start(key: jax.Array, space: SearchSpace, num_cells: int) -> State:
    """The first state of a search: random cells to ask for, and no scored cells."""
    key, sample_key = jax.random.split(key)
    cells = np.asarray(space.sample(sample_key, num_cells))
    return State(key, cells, cells[:0], np.zeros(0))


def children_of(
    state: State,
    parents: np.ndarray,
    space: SearchSpace,
    mutate_key: jax.Array,
    sample_key: jax.Array,
) -> np.ndarray:
    """Mutates cells of a state; a parent without a score gives a random cell.

    Args:
      state: the state of the search.
      parents: indices of the state's genotypes, `[B]`.
      space: the search space.
      mutate_key: random key of the mutations, consumed.
      sample_key: random key of the random cells, consumed.

    Returns:
      The children, `[B, E]`.
    """
    children = np.array(space.mutate(mutate_key, state.genotypes[parents]))
    orphans = np.isnan(state.scores[parents])
    if orphans.any():
        children[orphans] = space.sample(sample_key, int(orphans.sum()))
    return children


def next_pending(state: State, num_cells: int) -> tuple[State, np.ndarray]:
    """Takes the next pending cells: the state without them, and these cells."""
    return state._replace(pending=state.pending[num_cells:]), state.pending[:num_cells]


def _check_at_least_1(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name}: found {value}, expected at least 1")
