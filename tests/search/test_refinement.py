import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_space import ALGORITHMS, SPACES, noisy_sum

from epe_nas_jax import InputError
from epe_nas_jax.search import algorithms, ranking, refinement

NAN = float("nan")
# Few different numbers, so that many tie; infinities are numbers.
numbers = st.sampled_from([-1.5, 0.0, 2.0, 3.0, float("inf"), NAN])
scores_of_cells = st.lists(numbers, max_size=15)
hundredths = st.integers(1, 100)


def is_known(number):
    return number == number


def ranks_by_sorting(keys):
    """Ranks of keys, None for a cell without one, as the mean place among the sorted keys."""
    known = sorted(key for key in keys if key is not None)
    return [
        NAN
        if key is None
        else np.mean([place for place, other in enumerate(known, 1) if other == key]) / len(known)
        for key in keys
    ]


@given(scores_of_cells, hundredths)
def test_the_best_share_is_the_beginning_of_the_sorted_cells(scores, percent):
    known = [i for i in range(len(scores)) if is_known(scores[i])]
    in_order = sorted(known, key=lambda i: -scores[i])
    # In whole numbers, rounded up.
    expected = in_order[: -(-len(known) * percent // 100)]
    assert refinement.best_share(np.array(scores), percent / 100).tolist() == expected


def test_a_share_is_rounded_as_a_decimal_number():
    # 0.07 * 100 is 7.000000000000001 in binary.
    assert len(refinement.best_share(np.arange(100), 0.07)) == 7
    assert len(refinement.best_share(np.arange(101), 0.07)) == 8


def test_the_smallest_share_is_a_cell():
    assert refinement.best_share(np.array([1, 3, 2]), 1e-9).tolist() == [1]
    assert refinement.best_share(np.array([NAN]), 1e-9).tolist() == []


@given(scores_of_cells, st.data())
def test_cells_scored_again_come_first_then_the_others_as_before(scores, data):
    places = st.sampled_from(range(len(scores))) if scores else st.nothing()
    indices = data.draw(st.lists(places, unique=True))
    found = [data.draw(numbers) for _ in indices]
    keys = [(0, score) if is_known(score) else None for score in scores]
    for index, new in zip(indices, found, strict=True):
        # A cell that had no score gets none.
        keys[index] = (1, new) if keys[index] and is_known(new) else None
    ranks = refinement.refined_scores(np.array(scores), np.array(indices, int), np.array(found))
    np.testing.assert_allclose(ranks, ranks_by_sorting(keys), rtol=1e-12)


@pytest.mark.parametrize(
    ("indices", "found", "message"),
    [
        ([0, 1], [1.0], r"new scores: found values of shape \(1,\), expected \(2,\), one for each"),
        ([0, 0], [1.0, 2.0], "indices: found a cell twice, expected each once"),
    ],
)
def test_what_is_told_has_to_be_what_was_asked(indices, found, message):
    with pytest.raises(InputError, match=message):
        refinement.refined_scores(np.arange(3.0), np.array(indices), np.array(found))


@pytest.mark.parametrize("share", [0, -0.1, 1.001, NAN, float("inf")])
def test_a_share_that_is_none_is_refused(share):
    for work in (
        lambda: refinement.best_share(np.arange(3.0), share),
        lambda: refinement.refine(np.arange(3.0), np.eye(3, dtype=int), noisy_sum, share),
    ):
        with pytest.raises(InputError, match=r"share: found .*, expected a number above 0 and up"):
            work()


# --- both together


def cells_and_ranks(num_cells, seed=0):
    cells = np.asarray(SPACES["nasbench201"].sample(jax.random.key(seed), num_cells))
    return cells, noisy_sum(cells)


@given(st.integers(0, 40), hundredths, st.integers(0, 6))
def test_refine_is_ask_and_tell_with_a_score_function(num_cells, percent, num_nan):
    rng = np.random.default_rng(num_cells)
    cells = np.concatenate([np.arange(num_cells)[:, None], rng.integers(0, 9, (num_cells, 3))], 1)
    scores = noisy_sum(cells)

    def better(genotypes):
        return noisy_sum(genotypes[:, ::-1], num_nan)

    ranks = refinement.refine(scores, cells, better, percent / 100)
    known = [i for i in range(num_cells) if is_known(scores[i])]
    again = sorted(known, key=lambda i: -scores[i])[: -(-len(known) * percent // 100)]
    new = better(cells)
    keys = [(0, score) if is_known(score) else None for score in scores.tolist()]
    for i in again:
        keys[i] = (1, float(new[i])) if is_known(new[i]) else None
    np.testing.assert_allclose(ranks, ranks_by_sorting(keys), rtol=1e-12)


def test_only_the_best_are_scored_again_and_each_once():
    cells, scores = cells_and_ranks(60)
    cells, scores = np.concatenate([cells, cells[::-1]]), np.concatenate([scores, scores[::-1]])
    asked = []

    def better(genotypes):
        asked.extend(map(tuple, genotypes))
        return genotypes @ np.arange(6.0)

    ranks = refinement.refine(scores, cells, better, 0.1)
    num_known = np.sum(~np.isnan(scores))
    assert len(asked) == len(set(asked)) == -(-num_known // 20)
    # Both places of a cell are refined, though the share may end between them.
    assert np.array_equal(ranks[:60], ranks[60:][::-1], equal_nan=True)
    assert np.array_equal(np.isnan(ranks), np.isnan(scores))


def test_a_share_that_ends_between_two_places_of_a_cell_takes_both():
    cells = np.array([[1, 1], [2, 2], [1, 1], [3, 3]])
    indices = refinement.best_share(np.array([5.0, 4.0, 5.0, NAN]), 0.1)
    assert indices.tolist() == [0]
    assert refinement.with_equal_cells(indices, cells).tolist() == [0, 2]
    asked = []
    ranks = refinement.refine(
        np.array([5.0, 4.0, 5.0, NAN]), cells, lambda g: asked.append(g.tolist()) or g[:, 0], 0.1
    )
    assert asked == [[[1, 1]]]
    assert ranks[:3].tolist() == [2.5 / 3, 1 / 3, 2.5 / 3]


def test_proxies_are_ranked_among_the_cells_scored_again():
    cells, scores = cells_and_ranks(80)
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(6, 3))

    def proxies(genotypes):
        return genotypes @ weights

    ranks = refinement.refine(scores, cells, proxies, 0.25, combine=ranking.log_rank_sum)
    again = ranking.top_k(scores, -(-int(np.sum(~np.isnan(scores))) // 4))
    expected = ranking.log_rank_sum(proxies(cells[again]))
    keys = [(0, score) if is_known(score) else None for score in scores.tolist()]
    for i, new in zip(again, expected.tolist(), strict=True):
        keys[i] = (1, new)
    np.testing.assert_allclose(ranks, ranks_by_sorting(keys), rtol=1e-12)
    # Among all cells the ranks would be other ones.
    everywhere = ranking.log_rank_sum(proxies(cells))[again]
    assert np.argsort(everywhere).tolist() != np.argsort(expected).tolist()


def test_a_score_function_of_another_shape_is_refused():
    cells, scores = cells_and_ranks(20)
    with pytest.raises(InputError, match="score function: found values of shape"):
        refinement.refine(scores, cells, lambda g: g.astype(float), 0.5)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("space", SPACES)
def test_three_rungs_are_successive_halving(name, space):
    rungs = [noisy_sum, lambda g: np.cos(g @ np.arange(1.0, g.shape[1] + 1)), lambda g: g[:, 1] % 3]
    result = algorithms.run(ALGORITHMS[name](SPACES[space]), jax.random.key(1), rungs[0], 50)
    scores = result.scores
    for better, share in ((rungs[1], 0.5), (rungs[2], 0.1)):
        scores = refinement.refine(scores, result.genotypes, better, share)
    values = [rung(result.genotypes).tolist() for rung in rungs]
    alive = [i for i in range(len(scores)) if is_known(values[0][i])]
    # A tuple of the last rung that a cell reached and its score there, cell by cell.
    keys = [(0, values[0][i]) if i in alive else None for i in range(len(scores))]
    for rung, share in ((1, 2), (2, 10)):
        best_first = sorted(alive, key=lambda i: keys[i], reverse=True)
        for i in best_first[: -(-len(alive) // share)]:
            keys[i] = (rung, values[rung][i])
    assert {key[0] for key in keys if key} == {0, 1, 2}
    np.testing.assert_allclose(scores, ranks_by_sorting(keys), rtol=1e-12)
    assert keys[ranking.best_index(scores)] == max(key for key in keys if key)
