import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epe_nas_jax.search import ranking

floats = st.floats(-5, 5) | st.just(float("nan"))


@given(st.lists(floats, max_size=20), st.integers(1, 10))
def test_top_k_is_the_sorted_list_without_nan(values, k):
    scores = np.array(values, float)
    chosen = ranking.top_k(scores, k)
    expected = sorted((v for v in values if v == v), reverse=True)[:k]
    assert scores[chosen].tolist() == expected


def test_best_index_is_the_first_largest_number():
    assert ranking.best_index(np.array([np.nan, 1.0, 3.0, 3.0])) == 2
    assert ranking.best_index(np.array([np.nan, np.nan])) is None


def shares_by_counting(values):
    """Ranks by their definition: how many are below, and half of those that are equal."""
    return [
        (sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2) / len(values)
        for value in values
    ]


@given(st.lists(st.tuples(floats, st.integers(0, 3), floats), max_size=12))
def test_ranks_are_added_up_over_the_cells_with_all_proxies(cells):
    values = np.array(cells, float).reshape(-1, 3)
    known = [row for row in values.tolist() if not any(np.isnan(row))]
    columns = [shares_by_counting(column) for column in zip(*known, strict=True)]
    shares = iter(zip(*columns, strict=True))
    sums, log_sums = [], []
    for row in values.tolist():
        share = (np.nan,) * 3 if any(np.isnan(row)) else next(shares)
        sums.append(sum(share))
        log_sums.append(sum(np.log(share)))
    np.testing.assert_allclose(ranking.rank_sum(values), sums, rtol=1e-12)
    np.testing.assert_allclose(ranking.log_rank_sum(values), log_sums, rtol=1e-12, atol=1e-12)


@given(st.lists(st.tuples(floats, st.integers(0, 3)), max_size=12))
def test_a_rank_of_a_column_counts_the_cells_that_are_better(cells):
    values = np.array(cells, float).reshape(-1, 2)
    known = [row for row in values.tolist() if not any(np.isnan(row))]
    expected = [
        [1 + sum(other[p] > row[p] for other in known) for p in range(2)]
        if not any(np.isnan(row))
        else [np.nan] * 2
        for row in values.tolist()
    ]
    np.testing.assert_array_equal(
        ranking.column_ranks(values), np.array(expected, float).reshape(-1, 2)
    )


def test_a_bad_rank_weighs_more_than_a_good_one_in_the_log_rank_sum():
    # The second cell is in the middle of both proxies, the others are best in one, worst in one.
    values = np.array([[9.0, 0.0], [5.0, 5.0], [0.0, 9.0]])
    assert ranking.best_index(ranking.log_rank_sum(values)) == 1
    assert ranking.rank_sum(values) == pytest.approx([4 / 3] * 3)


def test_infinite_proxies_are_ranked():
    values = np.array([[-np.inf], [1.0], [np.inf], [np.nan]])
    assert ranking.rank_sum(values)[:3] == pytest.approx([1 / 3, 2 / 3, 1])


def beats(other, cell):
    """Whether one cell, (score, cost), is no worse than another in both and better in one."""
    return other[0] >= cell[0] and other[1] <= cell[1] and other != cell


@given(
    st.lists(
        st.tuples(floats | st.integers(0, 3), st.integers(0, 4) | st.just(math.nan)), max_size=25
    )
)
def test_pareto_front_holds_what_nothing_beats(cells):
    front = ranking.pareto_front(*np.array(cells, float).reshape(-1, 2).T)
    numbers = [cell for cell in cells if not any(map(math.isnan, cell))]
    expected = {cell for cell in numbers if not any(beats(other, cell) for other in numbers)}
    # Each pair once, by its first cell, cheapest first.
    assert [cells[i] for i in front] == sorted(expected, key=lambda cell: cell[1])
    assert all(cells.index(cells[i]) == i for i in front)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_hypervolume_is_the_number_of_squares_that_a_cell_beats(cells):
    scores, costs = np.array(cells, float).reshape(-1, 2).T
    found = ranking.hypervolume(scores, costs, least_score=2.0, most_cost=8.0)
    squares = [
        any(score >= upper and cost <= lower for score, cost in cells)
        for upper in range(3, 10)
        for lower in range(8)
    ]
    assert found == sum(squares)


def concordance(x, y):
    """Kendall's tau by counting pairs, for values without ties."""
    signs = [np.sign((x[i] - x[j]) * (y[i] - y[j])) for i in range(len(x)) for j in range(i)]
    return np.mean(signs)


def test_correlations_follow_their_definitions_and_leave_nan_out():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    ranks = [np.argsort(np.argsort(v)) for v in (x, y)]
    padded = np.concatenate([x, [np.nan, 4.0]]), np.concatenate([y, [9.0, np.nan]])
    rho = ranking.spearman(*padded)
    tau = ranking.kendall(*padded)
    assert rho.value == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert tau.value == pytest.approx(concordance(x, y))
    for correlation in (rho, tau):
        assert correlation.low < correlation.value < correlation.high


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = 6 / np.pi * np.arcsin(0.6 / 2)
    covered = 0
    for trial in range(60):
        x = rng.normal(size=100)
        y = 0.6 * x + 0.8 * rng.normal(size=100)
        interval = ranking.spearman(x, y, seed=trial, num_resamples=200)
        covered += interval.low <= truth <= interval.high
    # 95 % of 60 is 57; fewer than 51 has a probability below 1 in 200.
    assert covered >= 51


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([1, 2], [3, 4]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])],
)
def test_correlation_is_none_where_it_is_undefined(x, y):
    assert ranking.spearman(np.array(x, float), np.array(y, float)) is None


def test_small_samples_with_constant_resamples_do_not_warn():
    assert ranking.kendall(np.array([1.0, 2, 3]), np.array([1.0, 2, 3])).value == pytest.approx(1)


@given(
    st.lists(st.tuples(floats, floats), max_size=30),
    st.sampled_from([0.1, 0.2, 0.5, 1.0]),
)
def test_most_accurate_are_the_first_of_the_sorted_cells_with_both(cells, fraction):
    scores, accuracies = np.array(cells, float).reshape(-1, 2).T
    both = [
        i for i in range(len(cells)) if scores[i] == scores[i] and accuracies[i] == accuracies[i]
    ]
    in_order = sorted(both, key=lambda i: -accuracies[i])
    # Tenths of whole numbers, in whole numbers, rounded up.
    expected = in_order[: -(-len(both) * round(10 * fraction) // 10)]
    assert ranking.most_accurate(scores, accuracies, fraction).tolist() == expected
