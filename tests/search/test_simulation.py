from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epe_nas_jax import InputError
from epe_nas_jax.search import simulation

scores_of_cells = st.lists(st.integers(0, 4) | st.just(float("nan")), min_size=1, max_size=9)


def first_of_the_best(scores, cells):
    """What a search chooses, cell after cell."""
    chosen = None
    for cell in cells:
        if not np.isnan(scores[cell]) and (chosen is None or scores[cell] > scores[chosen]):
            chosen = cell
    return chosen


@given(scores_of_cells, st.data())
def test_each_search_chooses_its_first_cell_of_the_best_score(values, data):
    scores = np.array(values, float)
    num_samples = data.draw(st.integers(1, len(scores)))
    draws = simulation.draw_searches(len(scores), num_samples, num_searches=7, seed=3)
    accuracies = np.arange(len(scores)) * 1.5
    expected = [first_of_the_best(scores, cells) for cells in draws.tolist()]
    got = simulation.choose(scores, draws)
    assert got.tolist() == [simulation.NO_CELL if cell is None else cell for cell in expected]
    got = simulation.chosen_accuracies(scores, accuracies, draws)
    assert np.array_equal(
        got, [np.nan if cell is None else accuracies[cell] for cell in expected], equal_nan=True
    )
    lost = [
        max(accuracies[cells]) - accuracies[cell]
        for cells, cell in zip(draws, expected, strict=True)
        if cell is not None
    ]
    got = simulation.regret(scores, accuracies, draws)
    assert got == pytest.approx(np.mean(lost)) if lost else np.isnan(got)


def test_a_search_draws_different_cells_and_a_longer_one_goes_on():
    short = simulation.draw_searches(30, 4, num_searches=50, seed=1)
    long = simulation.draw_searches(30, 12, num_searches=50, seed=1)
    assert np.array_equal(short, long[:, :4])
    assert all(len(set(cells)) == 12 for cells in long.tolist())
    assert len({tuple(cells) for cells in long.tolist()}) == 50
    assert not np.array_equal(long, simulation.draw_searches(30, 12, num_searches=50, seed=2))
    with pytest.raises(InputError, match="found 31, expected at most 30"):
        simulation.draw_searches(30, 31, num_searches=2, seed=0)


@pytest.mark.parametrize("num_samples", [1, 3, 10, 40])
def test_mean_accuracy_is_the_one_that_counting_gives(num_samples):
    rng = np.random.default_rng(0)
    num_cells, num_searches = 40, 4000
    scores, accuracies = rng.permutation(num_cells).astype(float), rng.uniform(50, 90, num_cells)
    draws = simulation.draw_searches(num_cells, num_samples, num_searches=num_searches, seed=5)
    got = simulation.spread(simulation.chosen_accuracies(scores, accuracies, draws))
    # The cell of rank k from below is chosen when the others drawn are among the k below it.
    chances = [comb(int(k), num_samples - 1) / comb(num_cells, num_samples) for k in scores]
    mean = np.dot(chances, accuracies)
    deviation = np.sqrt(np.dot(chances, (accuracies - mean) ** 2))
    # 4 standard errors; both have a chance below 1 in 5,000 to be farther off.
    assert abs(got.mean - mean) <= 4 * deviation / np.sqrt(num_searches) + 1e-9
    assert got.deviation == pytest.approx(deviation, rel=0.1, abs=1e-9)


def test_spread_leaves_searches_without_a_choice_out():
    assert simulation.spread(np.array([1.0, np.nan, 3.0])) == (2.0, 1.0)
    assert np.isnan(simulation.spread(np.array([np.nan]))).all()
