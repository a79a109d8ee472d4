import dataclasses
from collections import deque

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_space import ALGORITHMS, BASE, DIGITS, LENGTH, SPACES, noisy_sum

from epe_nas_jax import InputError
from epe_nas_jax.search import algorithms, ranking
from epe_nas_jax.search.algorithms import random_search
from epe_nas_jax.search.restrict import restrict
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.nasbench201 import genotype as nas_bench_201
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201


def codes_of(result):
    return np.asarray(nas_bench_201.encode(result.genotypes)).tolist()


# --- random search


def test_random_search_chooses_the_best_scored_cell():
    result = random_search(
        jax.random.key(0),
        lambda g: -np.abs(g.sum(axis=1) - 20.0),
        num_samples=300,
        space=NASBENCH201,
    )
    assert result.genotypes.shape == (300, 6)
    assert len(set(codes_of(result))) == 300
    assert result.scores[result.best] == result.scores.max()


@pytest.mark.parametrize("replace", [False, True])
def test_random_search_scores_the_cells_that_the_space_samples(replace):
    key = jax.random.key(5)
    result = random_search(key, noisy_sum, num_samples=2000, replace=replace, space=NASBENCH201)
    cells = np.asarray(nas_bench_201.sample(key, 2000, replace=replace))
    assert np.array_equal(result.genotypes, cells)
    assert np.array_equal(result.scores, noisy_sum(cells), equal_nan=True)


def test_random_search_keeps_the_cells_of_a_seed():
    # Drawn by the version before there were other algorithms, which published scores of them.
    found = {}
    with jax.enable_x64(False):
        for name, replace in (("sampled", False), ("replaced", True)):
            result = random_search(
                jax.random.key(0), noisy_sum, num_samples=4, replace=replace, space=NASBENCH201
            )
            found[name] = codes_of(result)
    assert found == {"sampled": [15142, 9781, 1656, 7561], "replaced": [539, 5625, 14962, 6623]}


def test_a_cell_without_a_score_is_never_chosen():
    result = random_search(
        jax.random.key(0),
        lambda g: np.where(nas_bench_201.has_path(g), g[:, 0].astype(float), np.nan),
        num_samples=nas_bench_201.NUM_CELLS,
        space=NASBENCH201,
    )
    assert np.isnan(result.scores).sum() == 341
    assert result.scores[result.best] == 4


def test_nothing_is_chosen_when_no_cell_has_a_score():
    result = random_search(
        jax.random.key(0), lambda g: np.full(len(g), np.nan), num_samples=5, space=NASBENCH201
    )
    assert result.best is None


# --- every algorithm, on every space


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", ALGORITHMS)
@given(seed=st.integers(0, 2**31 - 1), budget=st.integers(1, 60), num_nan=st.integers(0, 7))
@settings(deadline=None, max_examples=10)
def test_a_search_scores_valid_cells_once_within_its_budget(name, space, seed, budget, num_nan):
    asked = []

    def score(cells):
        asked.append(cells)
        return noisy_sum(cells, num_nan)

    algorithm = ALGORITHMS[name](SPACES[space])
    result = algorithms.run(algorithm, jax.random.key(seed), score, budget)
    cells = np.concatenate(asked)
    # In the order they were scored, none of them twice, and exactly as many as were paid for.
    assert np.array_equal(result.genotypes, cells)
    assert len({cell.tobytes() for cell in cells}) == len(cells) == budget
    assert np.array_equal(result.scores, noisy_sum(cells, num_nan), equal_nan=True)
    assert result.num_steps == len(asked)
    if space == "digits":
        assert cells.shape[1] == LENGTH
        assert ((cells >= 0) & (cells < BASE)).all()
    else:
        assert np.array_equal(SPACES[space].check(cells), cells)
    if np.isnan(result.scores).all():
        assert result.best is None
    else:
        assert result.scores[result.best] == np.nanmax(result.scores)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_search_is_a_function_of_its_key_and_scores(name):
    algorithm = ALGORITHMS[name](NASBENCH201)
    first, again = (algorithms.run(algorithm, jax.random.key(3), noisy_sum, 60) for _ in range(2))
    assert np.array_equal(first.genotypes, again.genotypes)
    other = algorithms.run(algorithm, jax.random.key(4), noisy_sum, 60)
    assert not np.array_equal(first.genotypes, other.genotypes)
    # A shorter search is the beginning of a longer one.
    if name != "random":
        shorter = algorithms.run(algorithm, jax.random.key(3), noisy_sum, 31)
        assert np.array_equal(shorter.genotypes, first.genotypes[:31])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_ask_and_tell_leave_the_state_they_are_given(name):
    algorithm = ALGORITHMS[name](NASBENCH201)
    state = algorithm.init(jax.random.key(0))
    for _ in range(8):
        before = [array.tobytes() for array in state[1:]]
        asked, candidates = algorithm.ask(state)
        assert np.array_equal(algorithm.ask(state)[1], candidates)
        if not len(candidates):
            break
        told = algorithm.tell(asked, candidates, noisy_sum(candidates))
        assert before == [array.tobytes() for array in state[1:]]
        state = told


def separable_convolutions(cells):
    """How many edges of both cells have a separable convolution of 3x3."""
    return np.sum(np.asarray(cells) == 4, axis=1) * 1.0


@pytest.mark.parametrize("name", ["evolution", "local"])
def test_a_search_of_darts_climbs(name):
    guided = algorithms.run(ALGORITHMS[name](DARTS), jax.random.key(0), separable_convolutions, 600)
    # Of 16 edges each has one of seven operations: 10 alike come up once in 80,000 cells.
    assert max(guided.scores) >= 10
    best = guided.genotypes[guided.best]
    assert separable_convolutions(best[None])[0] == max(guided.scores)
    assert np.count_nonzero(best) == 16


@pytest.mark.parametrize("name", ["evolution", "local"])
def test_a_search_of_a_large_space_climbs(name):
    algorithm = ALGORITHMS[name](DIGITS)
    guided = algorithms.run(algorithm, jax.random.key(0), lambda c: c.sum(axis=1) * 1.0, 600)
    by_chance = algorithms.run(
        algorithms.random(600, space=DIGITS), jax.random.key(0), lambda c: c.sum(axis=1) * 1.0, 600
    )
    # A random sum has mean 54 and deviation 10, so that 600 of them stay below 54 + 4.5 * 10.
    assert max(by_chance.scores) < 99
    assert max(guided.scores) >= 99


@pytest.mark.parametrize("name", ["evolution", "local"])
def test_a_space_that_has_been_seen_whole_ends_the_search(name, monkeypatch):
    monkeypatch.setattr(algorithms, "MAX_IDLE_STEPS", 100)
    few = restrict(NASBENCH201, lambda g: (g[:, :4] == 2).all(axis=1))
    algorithm = {
        "evolution": algorithms.evolution(
            population=12, tournament=4, candidates_per_step=5, space=few
        ),
        "local": algorithms.local(candidates_per_step=5, space=few),
    }[name]
    result = algorithms.run(algorithm, jax.random.key(0), noisy_sum, 200)
    assert sorted(codes_of(result)) == sorted(
        np.asarray(nas_bench_201.encode(few.every())).tolist()
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_wrong_number_of_scores_is_refused(name):
    algorithm = ALGORITHMS[name](NASBENCH201)
    with pytest.raises(
        InputError, match=r"score function: found values of shape \(\d+, 1\), expected \(\d+,\)"
    ):
        algorithms.run(algorithm, jax.random.key(0), lambda g: noisy_sum(g)[:, None], 20)
    with pytest.raises(InputError, match=r"found values of shape \(\)"):
        algorithms.run(algorithm, jax.random.key(0), lambda g: 1.0, 20)  # noqa: ARG005


def two_proxies(cells):
    cells = np.asarray(cells)
    proxies = np.stack([noisy_sum(cells), np.cos(cells @ np.arange(2.0, cells.shape[1] + 2))])
    return proxies.T


@pytest.mark.parametrize("name", ALGORITHMS)
def test_combined_scores_are_told_anew_with_every_step(name):
    """Of all that an algorithm knows, every score is the one among all cells seen by then."""
    algorithm, seen = ALGORITHMS[name](NASBENCH201), []

    def combined(cells):
        scores = ranking.log_rank_sum(two_proxies(np.concatenate(seen)))
        places = [
            nas_bench_201.encode(np.concatenate(seen)).tolist().index(code)
            for code in nas_bench_201.encode(np.asarray(cells)).tolist()
        ]
        return scores[places]

    def tell(state, candidates, scores):
        known = set(map(bytes, np.concatenate(seen))) if seen else set()
        new = [cell for cell in candidates if bytes(cell) not in known]
        if new:
            seen.append(np.unique(new, axis=0))
        np.testing.assert_allclose(scores, combined(candidates))
        if len(state.genotypes):
            np.testing.assert_allclose(state.scores, combined(state.genotypes))
        return algorithm.tell(state, candidates, scores)

    result = algorithms.run(
        algorithm._replace(tell=tell),
        jax.random.key(1),
        two_proxies,
        60,
        combine=ranking.log_rank_sum,
    )
    np.testing.assert_allclose(result.scores, ranking.log_rank_sum(two_proxies(result.genotypes)))
    assert result.scores[result.best] == np.nanmax(result.scores)


def test_an_algorithm_may_keep_a_state_of_its_own():
    """Scores that do not change need not be told again, so nothing is asked of the state."""
    told = []
    algorithm = algorithms.Algorithm(
        init=lambda _: 0,
        ask=lambda step: (step + 1, nas_bench_201.every_genotype()[4 * step : 4 * step + 4]),
        tell=lambda step, _, scores: told.append(scores) or step,
    )
    result = algorithms.run(algorithm, jax.random.key(0), noisy_sum, 10)
    assert np.array_equal(result.scores, noisy_sum(result.genotypes), equal_nan=True)
    assert [len(scores) for scores in told] == [4, 4, 2]


def test_combined_scores_of_a_cell_drawn_twice_count_it_once():
    result = random_search(
        jax.random.key(5),
        two_proxies,
        num_samples=2000,
        replace=True,
        combine=ranking.rank_sum,
        space=NASBENCH201,
    )
    cells, back = np.unique(result.genotypes, axis=0, return_inverse=True)
    assert len(cells) < 2000
    np.testing.assert_allclose(result.scores, ranking.rank_sum(two_proxies(cells))[back])


def test_combined_search_wants_a_row_of_proxies_for_each_cell():
    algorithm = algorithms.random(5, space=NASBENCH201)
    with pytest.raises(InputError, match=r"found values of shape \(5,\), expected \(5, proxies\)"):
        algorithms.run(algorithm, jax.random.key(0), noisy_sum, 5, combine=ranking.rank_sum)
    with pytest.raises(InputError, match="combine: found values of shape"):
        algorithms.run(
            algorithm, jax.random.key(0), two_proxies, 5, combine=lambda values: values[:2]
        )


def test_numbers_below_1_are_refused():
    good = {"population": 2, "tournament": 2, "candidates_per_step": 2}
    for name in good:
        with pytest.raises(InputError, match=f"{name.replace('_', ' ')}: found 0"):
            algorithms.evolution(**{**good, name: 0}, space=NASBENCH201)
    with pytest.raises(InputError, match="candidates per step: found -1"):
        algorithms.local(candidates_per_step=-1, space=NASBENCH201)
    with pytest.raises(InputError, match="budget: found 0"):
        algorithms.run(algorithms.random(5, space=NASBENCH201), jax.random.key(0), noisy_sum, 0)


# --- evolution


def published_evolution(key, score, population, tournament, num_cells):
    """Real et al. 2019, algorithm 1, line by line; its random choices come in the same order."""
    alive, history = deque(), []
    key, sample_key = jax.random.split(key)
    for cell in np.asarray(nas_bench_201.sample(sample_key, population)):
        alive.append((tuple(cell.tolist()), score(cell)))
        history.append(alive[-1])
    while len(history) < num_cells:
        key, tournament_key, mutate_key, _ = jax.random.split(key, 4)
        drawn = jax.random.randint(tournament_key, (1, tournament), 0, population)[0].tolist()
        parent, parent_score = alive[drawn[0]]
        for place in drawn[1:]:
            cell, cell_score = alive[place]
            if cell_score > parent_score:
                parent, parent_score = cell, cell_score
        child = np.asarray(nas_bench_201.mutate(mutate_key, np.array([parent])))[0]
        alive.append((tuple(child.tolist()), score(child)))
        history.append(alive[-1])
        alive.popleft()
    return history


@pytest.mark.parametrize("seed", range(3))
def test_evolution_of_one_child_a_step_is_the_published_algorithm(seed):
    def score(cells):
        return noisy_sum(cells, num_nan=0)

    algorithm = algorithms.evolution(
        population=10, tournament=3, candidates_per_step=1, space=NASBENCH201
    )
    state = algorithm.init(jax.random.key(seed))
    seen = []
    for _ in range(80):
        state, candidates = algorithm.ask(state)
        state = algorithm.tell(state, candidates, score(candidates))
        seen.append(tuple(candidates[0].tolist()))
    expected = published_evolution(
        jax.random.key(seed), lambda cell: score(cell[None])[0], 10, 3, 80
    )
    assert seen == [cell for cell, _ in expected]
    assert [tuple(cell) for cell in state.genotypes.tolist()] == seen[-10:]


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_no_child_has_a_parent_without_a_score(seed):
    parents = []

    def spy(key, genotypes):
        parents.append(np.asarray(genotypes))
        return nas_bench_201.mutate(key, genotypes)

    space = dataclasses.replace(NASBENCH201, mutate=spy)
    algorithm = algorithms.evolution(population=8, tournament=2, candidates_per_step=4, space=space)
    state = algorithm.init(jax.random.key(seed))
    while len(state.scores) < 8:
        state, candidates = algorithm.ask(state)
        state = algorithm.tell(state, candidates, noisy_sum(candidates, num_nan=5))
    _, children = algorithm.ask(state)
    for parent, child in zip(parents[0], children, strict=True):
        if np.isnan(noisy_sum(parent[None], num_nan=5))[0]:
            # Nobody won: a random cell, which is a neighbour of the parent once in 650 times.
            continue
        assert (parent != child).sum() == 1


def test_a_population_without_a_score_is_replaced_by_random_cells():
    algorithm = algorithms.evolution(
        population=4, tournament=2, candidates_per_step=50, space=NASBENCH201
    )
    state = algorithm.init(jax.random.key(0))
    state, candidates = algorithm.ask(state)
    state = algorithm.tell(state, candidates, np.full(len(candidates), np.nan))
    _, children = algorithm.ask(state)
    distances = (children[:, None] != candidates[None]).sum(axis=2).min(axis=1)
    # Mutations would all be at distance 1; of 50 random cells about one is that near any of four.
    assert (distances > 1).sum() > 40


# --- local search


def peaks(cells):
    """A landscape of two peaks, of which one is the summit."""
    low, high = (np.sum(np.asarray(cells) != center, axis=1) for center in (0, 3))
    return np.maximum(10.0 - low, 20.0 - 4 * high)


@pytest.mark.parametrize("candidates_per_step", [1, 5, 24, 100])
@pytest.mark.parametrize("seed", range(3))
def test_local_search_climbs_to_a_local_optimum_before_it_starts_again(candidates_per_step, seed):
    algorithm = algorithms.local(candidates_per_step=candidates_per_step, space=NASBENCH201)
    state = algorithm.init(jax.random.key(seed))
    heights, optima = [], []
    for _ in range(400):
        asked, candidates = algorithm.ask(state)
        if len(state.scores) and not len(asked.scores):
            optima.append(state.genotypes[0])
            heights = []
        state = algorithm.tell(asked, candidates, peaks(candidates))
        heights.extend(state.scores)
        assert heights == sorted(heights)
    assert optima
    for cell in optima:
        around = nas_bench_201.neighbours(cell)
        assert peaks(cell[None])[0] >= peaks(around).max()


def test_local_search_finds_the_summit_after_restarts():
    result = algorithms.run(
        algorithms.local(candidates_per_step=24, space=NASBENCH201), jax.random.key(0), peaks, 2000
    )
    assert result.genotypes[result.best].tolist() == [3] * 6


def test_steepest_ascent_moves_to_the_best_neighbour():
    algorithm = algorithms.local(candidates_per_step=24, space=NASBENCH201)
    state, candidates = algorithm.ask(algorithm.init(jax.random.key(1)))
    state = algorithm.tell(state, candidates, noisy_sum(candidates))
    around = nas_bench_201.neighbours(state.genotypes[0])
    asked, candidates = algorithm.ask(state)
    assert {tuple(c) for c in candidates.tolist()} == {tuple(c) for c in around.tolist()}
    told = algorithm.tell(asked, candidates, noisy_sum(candidates))
    best = max(np.nanmax(noisy_sum(around)), state.scores[0])
    assert told.scores[0] == best


# --- the cache


@given(st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=8))
def test_cached_scores_are_the_scores_and_none_is_computed_twice(batches):
    asked = []

    def score(cells):
        asked.extend(cells[:, 0].tolist())
        return cells[:, 0] * 2.0

    scorer = algorithms.cached(score)
    for batch in batches:
        assert scorer(np.array(batch, int).reshape(-1, 1)).tolist() == [2.0 * x for x in batch]
    assert sorted(asked) == sorted({x for batch in batches for x in batch})


def test_the_cache_keeps_the_dtype_of_the_scores():
    scores = algorithms.cached(lambda g: g[:, 0].astype(np.float32))(np.zeros((3, 6), np.int32))
    assert scores.dtype == np.float32
