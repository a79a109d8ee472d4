import numpy as np

from experiments.picture import picture


def test_the_best_cell_is_on_the_right_and_its_correlation_above():
    scores = np.array([1.0, 2.0, 3.0, 4.0, np.nan])
    accuracies = np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    figure = picture({"up": scores, "down": -scores}, accuracies)
    up, down = figure.axes
    assert up.get_title() == "up: rank correlation 1.00"
    assert down.get_title() == "down: rank correlation -1.00"
    points = up.collections[0].get_offsets()
    np.testing.assert_array_equal(points[:4], [[4, 10], [3, 20], [2, 30], [1, 40]])
    left, right = up.get_xlim()
    assert left > right
