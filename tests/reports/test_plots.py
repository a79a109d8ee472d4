import re
from xml.etree import ElementTree

import numpy as np
import pytest

from epe_nas_jax.reports import comparison_plots, plots


def test_best_so_far_follows_the_search():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 30, 40).astype(float)
    scores[[0, 1, 7]] = np.nan
    accuracies = rng.uniform(10, 90, 40)
    accuracies[3] = np.nan
    expected, best = [], None
    for i, score in enumerate(scores):
        if score == score and (best is None or score > scores[best]):
            best = i
        highest = [a for a in accuracies[: i + 1] if a == a]
        expected.append(
            (np.nan, np.nan, max(highest))
            if best is None
            else (scores[best], accuracies[best], max(highest))
        )
    top, bottom = plots.best_so_far(scores, accuracies).axes
    drawn = top.lines[0], bottom.lines[1], bottom.lines[0]
    for line, values in zip(drawn, zip(*expected, strict=True), strict=True):
        assert line.get_xdata().tolist() == list(range(1, 41))
        assert np.array_equal(line.get_ydata(), values, equal_nan=True)


def test_legends_cross_no_axes():
    epochs = [
        {"seed": 0, "epoch": epoch, "train_accuracy": 90.0, "test_accuracy": 80.0}
        for epoch in range(9)
    ]
    sizes, scores = np.arange(1.0, 9), np.linspace(-1.3, -1.2, 8)
    curve = np.stack([scores, scores], axis=1)
    for figure in (
        plots.best_so_far(scores, np.linspace(90, 10, 8)),
        plots.training_curves(epochs, "test", 85.0),
        plots.best_of_n(sizes, {"best": curve, "score": curve}, -1.25, "accuracy"),
    ):
        figure.canvas.draw()
        (legend,) = figure.legends
        for axes in figure.axes:
            # With its labels, and so with all lines in it.
            assert not legend.get_window_extent().overlaps(axes.get_tightbbox())
            assert axes.get_legend() is None
        box = legend.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert box.y0 >= 0


def test_plots_leave_cells_without_a_score_out():
    scores, accuracies = np.array([1.0, np.nan, 3.0, 4.0]), np.array([10.0, 20.0, np.nan, 40.0])
    (axes,) = plots.accuracy_scatter(scores, accuracies, "accuracy", 3).axes
    assert axes.collections[0].get_offsets().tolist() == [[1, 10], [4, 40]]
    assert axes.lines[0].get_xydata().tolist() == [[4, 40]]
    (axes,) = plots.score_histogram(scores).axes
    assert sum(patch.get_height() for patch in axes.patches) == 3


@pytest.mark.parametrize("num_classes", [3, 120])
def test_a_bar_for_every_class(num_classes):
    e = -np.arange(1.0, num_classes + 1)
    (axes,) = plots.class_bars(e, None).axes
    size = "get_width" if num_classes == 3 else "get_height"
    assert [getattr(patch, size)() for patch in axes.patches] == (-e).tolist()


@pytest.mark.parametrize(
    "name", ["EPE-NAS score", "nwot", f"score: sum of ranks of {', '.join(['some_column'] * 5)}"]
)
def test_an_axis_of_scores_says_which_score_it_is(name):
    scores = np.array([1.0, 2.0])
    for figure in (
        plots.accuracy_scatter(scores, scores, "accuracy", score_name=name),
        plots.score_histogram(scores, score_name=name),
    ):
        (axes,) = figure.axes
        label = axes.get_xlabel()
        assert label.replace("\n", " ") == name
        # Long names take several lines: a plot is some 60 letters wide.
        assert max(map(len, label.split("\n"))) <= 60
        assert "EPE" in label or "EPE" not in name


def ticks(axis):
    """The numbers at an axis as they are written."""
    axis.figure.canvas.draw()
    return [label.get_text().replace("\N{MINUS SIGN}", "-") for label in axis.get_ticklabels()]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-1.3, -1.2, r"-1\.\d+"), (20_000, 26_000, r"2\d,\d00"), (1e-3, 2e-3, r"0\.00\d+")],
)
def test_scores_of_any_size_have_ticks_that_differ(low, high, expected):
    scores = np.linspace(low, high, 30)
    for axis in (
        plots.accuracy_scatter(scores, scores, "accuracy").axes[0].xaxis,
        plots.score_histogram(scores).axes[0].xaxis,
        plots.best_so_far(scores, None).axes[0].yaxis,
        plots.class_bars(scores, None).axes[0].xaxis,
    ):
        shown = ticks(axis)
        assert len(shown) == len(set(shown)) > 2
    assert any(
        re.fullmatch(expected, tick) for tick in ticks(plots.score_histogram(scores).axes[0].xaxis)
    )


def test_a_plot_of_a_page_has_names_of_its_own_and_the_pages_colours():
    scores = np.arange(9.0)
    first, second = (plots.to_svg(plots.score_histogram(scores), name) for name in ("a", "b"))
    for svg, name in ((first, "a"), (second, "b")):
        assert svg.startswith("<svg")
        used = re.findall(r'(?: id="|url\(#|href="#)([^")]*)', svg)
        assert used
        assert all(identifier.startswith(f"{name}-") for identifier in used)
        assert "var(--blue)" in svg
        assert plots.BLUE not in svg
        assert not re.search("<svg[^>]* (width|height)=", svg)


def test_training_curves_have_a_line_a_seed_and_the_tables_accuracy():
    rows = [
        {"seed": seed, "epoch": epoch, "train_accuracy": 10.0 * epoch, "test_accuracy": seed}
        for seed in (3, 4)
        for epoch in (1, 2)
    ]
    (axes,) = plots.training_curves(rows, "test", 90.0).axes
    assert len(axes.lines) == 5
    assert axes.lines[0].get_xydata().tolist() == [[1, 10], [2, 20]]
    assert axes.lines[3].get_xydata().tolist() == [[1, 4], [2, 4]]
    assert set(axes.lines[4].get_ydata()) == {90}


def test_scores_beside_pytorch_leave_out_what_is_unknown():
    ours, theirs = np.array([1.0, np.nan, 3.0, 4.0]), np.array([1.5, 2.0, np.nan, 4.0])
    (axes,) = comparison_plots.score_scatter(ours, theirs).axes
    assert axes.collections[0].get_offsets().tolist() == [[1.5, 1], [4, 4]]
    assert axes.get_title() == "2 cells"


def test_errors_have_a_line_of_dots_for_each_quantity():
    errors = {"logits": np.array([1e-6, 0.0, 3e-6]), "score": np.array([np.nan, 2e-5, np.inf])}
    (axes,) = comparison_plots.relative_errors(errors).axes
    logits, score = axes.collections
    assert logits.get_offsets().tolist() == [[1e-6, 0], [3e-6, 0]]
    assert score.get_offsets().tolist() == [[2e-5, 1]]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["logits", "score"]


def test_millions_of_parameters_are_no_powers_of_ten():
    params = np.linspace(1e6, 5e6, 30)
    front = np.array([(1e6, 1.0)])
    figure = plots.score_against_cost(params, params, front, cost_name="x", score_name="y")
    shown = ticks(figure.axes[0].xaxis)
    assert len(shown) > 2
    assert all(re.fullmatch(r"\d(\.\d+)?M|0", tick) for tick in shown), shown


@pytest.mark.parametrize(
    ("scores", "num_bars"),
    [
        ([1.0, -np.inf, np.nan, 3.0], 40),
        # Neighbours in float32, between which float32 has no room for a bin.
        ([70000.0, np.nextafter(np.float32(70000), np.float32(0))], 40),
        ([2.0], 1),
        ([np.nan], 1),
        ([0.0, 0.0], 1),
    ],
)
def test_a_histogram_of_any_scores_is_drawn(scores, num_bars):
    (axes,) = plots.score_histogram(np.array(scores, np.float32)).axes
    assert len(axes.patches) == num_bars
    assert sum(bar.get_height() for bar in axes.patches) == np.isfinite(scores).sum()


def test_costs_of_rankings_show_every_setting_the_front_and_the_choice():
    costs, rho = np.array([1.0, 4.0, 2.0, 8.0]), np.array([0.7, 0.9, 0.6, 0.8])
    is_shallow = np.array([True, False, True, False])
    figure = plots.cost_of_ranking(
        costs, rho, is_shallow=is_shallow, front=np.array([0, 1]), chosen=1, name="8x8"
    )
    (axes,) = figure.axes
    deep, shallow, front = axes.lines
    assert deep.get_xydata().tolist() == [[4, 0.9], [8, 0.8]]
    assert shallow.get_xydata().tolist() == [[1, 0.7], [2, 0.6]]
    assert front.get_xydata().tolist() == [[1, 0.7], [4, 0.9]]
    (note,) = axes.texts
    assert (note.get_text(), note.xy) == ("chosen: 8x8", (4, 0.9))


def test_scores_against_a_cost_show_the_cells_that_have_both_and_the_front():
    scores, costs = np.array([3.0, 1.0, np.nan, 2.0]), np.array([30.0, 10.0, 5.0, np.nan])
    front = np.array([(10.0, 1.0), (30.0, 3.0)])
    figure = plots.score_against_cost(
        scores, costs, front, cost_name="parameters", score_name="nwot"
    )
    (axes,) = figure.axes
    (points,) = axes.collections
    assert points.get_offsets().tolist() == [[30, 3], [10, 1]]
    line, *marks = axes.lines
    assert line.get_xydata().tolist() == front.tolist()
    assert [mark.get_xydata().tolist() for mark in marks] == [[[10, 1]], [[30, 3]]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("parameters", "nwot")


def test_a_part_of_a_plot_says_its_title_as_text():
    front = np.array([(1.0, 1.0), (2.0, 2.0)])
    figure = plots.score_against_cost(*front.T, front, cost_name="x", score_name="y")
    svg = plots.to_svg(figure, "front", {"front-1": "a < b & c"})
    root = ElementTree.fromstring(svg)
    (title,) = root.iter("{http://www.w3.org/2000/svg}title")
    assert title.text == "a < b & c"
    (part,) = [group for group in root.iter() if title in list(group)]
    assert part.attrib["id"] == "front-front-1"


def test_ranks_against_a_cost_have_the_best_at_the_top_and_name_the_front():
    ranks, costs = np.array([1, 2, 3]), np.array([100.0, 10.0, 50.0])
    names = ["large", "$small", "beaten"]
    figure = plots.rank_against_cost(ranks, costs, np.array([1, 0]), names, cost_name="parameters")
    (axes,) = figure.axes
    (points,) = axes.collections
    assert points.get_offsets().tolist() == [[100, 1], [10, 2], [50, 3]]
    (front,) = axes.lines
    assert front.get_xydata().tolist() == [[10, 2], [100, 1]]
    assert [note.get_text() for note in axes.texts] == ["$small", "large"]
    assert axes.yaxis_inverted()
    assert axes.get_xlabel() == "parameters"
    assert plots.to_svg(figure, "ranks").startswith("<svg")


def test_a_tick_just_below_a_million_is_a_million():
    shown = [plots.tick(value, 0) for value in (0.25, 12_345.0, 999_999.7, 1_200_000.0)]
    assert shown == ["0.25", "12,345", "1M", "1.2M"]
