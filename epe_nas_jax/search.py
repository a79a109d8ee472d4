"""Search over any space with any score function: algorithms ask for cells and are told scores.

An `Algorithm` is three pure functions over a `State`, as in evosax and blackjax:

    state = algorithm.init(key)
    state, candidates = algorithm.ask(state)
    state = algorithm.tell(state, candidates, score_fn(candidates))

`run` is that loop. A search is a function of its key and of the scores it is told, and of nothing
else. NaN, a cell without a score, never wins.

With `combine` several proxies are one score, by their ranks among the cells seen so far
(`ranking.log_rank_sum`). Such scores change as cells come in, and are told anew at every step.

Shape legend: A cells, E numbers of a genotype (6 edges in NAS-Bench-201), P cells of a population,
B cells of a step, Q proxies.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from epe_nas_jax import genotype
from epe_nas_jax.errors import InputError
from epe_nas_jax.ranking import best_index

ScoreFn = Callable[[np.ndarray], np.ndarray]
Combine = Callable[[np.ndarray], np.ndarray]
Accept = Callable[[np.ndarray], np.ndarray]
Cells = np.ndarray | jax.Array

# After so many steps in a row without a new cell, a search is over.
MAX_IDLE_STEPS = 1000

_MAX_DRAWS = 100
_CELLS_PER_DRAW = 1000


class Space(NamedTuple):
    """A search space, as far as a search algorithm knows it. A genotype is a row of integers.

    Attributes:
      sample: from a key and a number A to A cells, `[A, E]`, drawn uniformly, all different.
      mutate: from a key and cells `[A, E]` to as many, each changed in one place.
      neighbours: from a genotype `[E]` to all cells that one change makes of it, `[A, E]`.
      every: lists all cells, `[A, E]`; None if there are too many.
    """

    sample: Callable[[jax.Array, int], Cells]
    mutate: Callable[[jax.Array, Cells], Cells]
    neighbours: Callable[[np.ndarray], np.ndarray]
    every: Callable[[], np.ndarray] | None = None


NAS_BENCH_201 = Space(
    genotype.sample, genotype.mutate, genotype.neighbours, genotype.every_genotype
)


class State(NamedTuple):
    """Where a search stands.

    Attributes:
      key: random key of all that is still to be drawn.
      pending: cells to ask for next, `[A, E]`.
      genotypes: cells that candidates are made from, `[A, E]`: the population, oldest first, or
        the cell whose neighbours are looked at.
      scores: theirs, `[A]`.
    """

    key: jax.Array
    pending: np.ndarray
    genotypes: np.ndarray
    scores: np.ndarray


class Algorithm(NamedTuple):
    """A search algorithm.

    Attributes:
      init: from a key, consumed, to the first state.
      ask: from a state to the next state and candidates to score, `[B, E]`; none: it is over.
      tell: from a state, candidates `[B, E]` and their scores `[B]` to the next state. The
        candidates may be fewer than were asked for, or other ones.
    """

    init: Callable[[jax.Array], State]
    ask: Callable[[State], tuple[State, np.ndarray]]
    tell: Callable[[State, np.ndarray, np.ndarray], State]


class SearchResult(NamedTuple):
    """What a search saw, in the order it saw it.

    Attributes:
      genotypes: int32 `[A, E]`.
      scores: `[A]`, NaN for a cell without a score.
      best: index of the chosen cell, or None if no cell has a score.
      num_steps: how many steps brought new cells.
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
    """Runs a search until it has scored so many different cells.

    A cell that is asked for again gets the score it had, at no cost. The last step is cut to the
    budget. The search ends early if the algorithm asks for nothing more, or for no new cell in
    `MAX_IDLE_STEPS` steps.

    Args:
      algorithm: what to search with.
      key: random key, consumed.
      score_fn: scores `[B]` of genotypes `[B, E]`; larger is better. With `combine`, their proxies
        `[B, Q]`.
      budget: how many different cells to score at most.
      combine: from the proxies `[A, Q]` of all cells seen so far to their scores `[A]`.

    Raises:
      InputError: the budget is below 1, or `score_fn` does not return a number for each cell.
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
    """A score function that scores no cell twice.

    Args:
      score_fn: as in `run`.
      combine: as in `run`; the cells seen so far are those of all calls.

    Raises:
      InputError: when called, if `score_fn` or `combine` do not return a number for each cell.
    """
    place: dict[bytes, int] = {}
    values: list[np.ndarray] = []

    def score(genotypes: np.ndarray) -> np.ndarray:
        new = {cell.tobytes(): cell for cell in genotypes if cell.tobytes() not in place}
        if new:
            found = np.asarray(score_fn(np.array(list(new.values()))))
            if combine is None:
                found = _one_each("score function", found, len(new))
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
        return _one_each("combine", combine(np.array(values)), len(values))[asked]

    return score


def random(num_cells: int, *, space: Space = NAS_BENCH_201) -> Algorithm:
    """Random search (EPE-NAS, algorithm 1): one step of cells, uniformly drawn, all different.

    Args:
      num_cells: how many cells, A.
      space: where to search.
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
    space: Space = NAS_BENCH_201,
) -> Algorithm:
    """Regularised evolution (Real et al. 2019, algorithm 1), a batch of children a step.

    The population starts with random cells. A child is a mutation of the best of a tournament,
    whose cells are drawn from the population with replacement; each child drives out the oldest
    cell. With one candidate a step this is the published algorithm; with more, all children of a
    step have their parents in the same population. A tournament without a score is won by nobody: a
    random cell takes the child's place.

    Args:
      population: P.
      tournament: cells of a tournament.
      candidates_per_step: B.
      space: where to search.

    Raises:
      InputError: a number below 1.
    """
    _check_at_least_1("population", population)
    _check_at_least_1("tournament", tournament)
    _check_at_least_1("candidates per step", candidates_per_step)

    def init(key: jax.Array) -> State:
        return _start(key, space, population)

    def ask(state: State) -> tuple[State, np.ndarray]:
        if len(state.pending):
            return _next_pending(state, candidates_per_step)
        key, tournament_key, mutate_key, sample_key = jax.random.split(state.key, 4)
        shape = (candidates_per_step, tournament)
        drawn = np.asarray(jax.random.randint(tournament_key, shape, 0, len(state.scores)))
        comparable = np.where(np.isnan(state.scores), -np.inf, state.scores)
        winners = drawn[np.arange(candidates_per_step), np.argmax(comparable[drawn], axis=1)]
        children = np.array(space.mutate(mutate_key, state.genotypes[winners]))
        orphans = np.isnan(state.scores[winners])
        if orphans.any():
            children[orphans] = space.sample(sample_key, int(orphans.sum()))
        return state._replace(key=key), children

    def tell(state: State, candidates: np.ndarray, scores: np.ndarray) -> State:
        return state._replace(
            genotypes=np.concatenate([state.genotypes, candidates])[-population:],
            scores=np.concatenate([state.scores, scores])[-population:],
        )

    return Algorithm(init, ask, tell)


def local(*, candidates_per_step: int, space: Space = NAS_BENCH_201) -> Algorithm:
    """Local search with restarts (as in White et al. 2021), a batch of neighbours a step.

    It starts at the best of B random cells, and looks at the neighbours in random order, B a step.
    When the best of a step is better than the cell, it moves there: first improvement for B = 1,
    steepest ascent for B as large as the neighbourhood. A cell with no better neighbour is a local
    optimum, and the search starts again elsewhere.

    Args:
      candidates_per_step: B.
      space: where to search.

    Raises:
      InputError: a number below 1.
    """
    _check_at_least_1("candidates per step", candidates_per_step)

    def start(key: jax.Array) -> State:
        return _start(key, space, candidates_per_step)

    def ask(state: State) -> tuple[State, np.ndarray]:
        state = state if len(state.pending) else start(state.key)
        return _next_pending(state, candidates_per_step)

    def tell(state: State, candidates: np.ndarray, scores: np.ndarray) -> State:
        best = best_index(scores)
        if best is None or (len(state.scores) and scores[best] <= state.scores[0]):
            return state
        key, order_key = jax.random.split(state.key)
        neighbours = space.neighbours(candidates[best])
        order = np.asarray(jax.random.permutation(order_key, len(neighbours)))
        here = slice(best, best + 1)
        return State(key, neighbours[order], candidates[here], scores[here])

    return Algorithm(start, ask, tell)


def restrict(space: Space, accept: Accept) -> Space:
    """The cells of a space that a predicate accepts; no other is ever sampled or proposed.

    Args:
      space: the whole space.
      accept: from cells `[A, E]` to bool `[A]`, such as a limit of the number of parameters.

    Returns:
      A space. A cell none of whose mutations is accepted mutates to itself.

    Raises:
      InputError: no cell is accepted; or, when sampled, fewer cells than asked for are accepted. In
        a space that is too large to list, this is told when sampled, after 100,000 cells.
    """

    def accepts(cells: np.ndarray) -> np.ndarray:
        return _one_each("accept", accept(cells), len(cells)).astype(bool)

    def mutate(key: jax.Array, genotypes: Cells) -> np.ndarray:
        children = np.array(genotypes)
        missing = np.ones(len(children), bool)
        for _ in range(_MAX_DRAWS):
            key, draw_key = jax.random.split(key)
            mutated = np.asarray(space.mutate(draw_key, genotypes))
            found = missing & accepts(mutated)
            children[found] = mutated[found]
            missing &= ~found
            if not missing.any():
                break
        return children

    def neighbours(cell: np.ndarray) -> np.ndarray:
        cells = space.neighbours(cell)
        return cells[accepts(cells)]

    def sample_by_rejection(key: jax.Array, num_cells: int) -> np.ndarray:
        found: dict[bytes, np.ndarray] = {}
        for _ in range(_MAX_DRAWS):
            key, draw_key = jax.random.split(key)
            cells = np.asarray(space.sample(draw_key, _CELLS_PER_DRAW))
            found.update((cell.tobytes(), cell) for cell in cells[accepts(cells)])
            if len(found) >= num_cells:
                return np.array(list(found.values())[:num_cells])
        raise _too_few_cells(len(found), num_cells)

    if space.every is None:
        return Space(sample_by_rejection, mutate, neighbours)

    listed = space.every()
    listed = listed[accepts(listed)]
    if not len(listed):
        raise _too_few_cells(0, 1)

    def sample_listed(key: jax.Array, num_cells: int) -> np.ndarray:
        if num_cells > len(listed):
            raise _too_few_cells(len(listed), num_cells)
        return listed[np.asarray(jax.random.permutation(key, len(listed)))[:num_cells]]

    return Space(sample_listed, mutate, neighbours, lambda: listed)


def random_search(
    key: jax.Array,
    score_fn: ScoreFn,
    *,
    num_samples: int,
    replace: bool = False,
    combine: Combine | None = None,
) -> SearchResult:
    """Draws cells uniformly, scores them all and chooses the best (EPE-NAS, algorithm 1).

    Args:
      key: random key, consumed.
      score_fn: scores `[A]` of genotypes `[A, E]`; larger is better.
      num_samples: how many cells, A.
      replace: whether a cell may be drawn twice, as in the released code.
      combine: as in `run`.

    Raises:
      InputError: more cells than the space has, without replacement; or `score_fn` does not return
        a number for each cell.
    """
    if not replace:
        return run(random(num_samples), key, score_fn, num_samples, combine=combine)
    genotypes = np.asarray(genotype.sample(key, num_samples, replace=True))
    scores = cached(score_fn, combine)(genotypes)
    return SearchResult(genotypes, scores, best_index(scores), num_steps=1)


def _start(key: jax.Array, space: Space, num_cells: int) -> State:
    """Random cells to ask for, and nothing seen."""
    key, sample_key = jax.random.split(key)
    cells = np.asarray(space.sample(sample_key, num_cells))
    return State(key, cells, cells[:0], np.zeros(0))


def _next_pending(state: State, num_cells: int) -> tuple[State, np.ndarray]:
    return state._replace(pending=state.pending[num_cells:]), state.pending[:num_cells]


def _too_few_cells(found: int, expected: int) -> InputError:
    return InputError(f"search space: found {found} cells that are accepted, expected {expected}")


def _check_at_least_1(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name}: found {value}, expected at least 1")


def _one_each(name: str, values: np.ndarray, num_cells: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (num_cells,):
        raise InputError(
            f"{name}: found values of shape {values.shape}, "
            f"expected ({num_cells},), one for each cell"
        )
    return values
