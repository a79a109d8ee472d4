"""Plots for pages, papers and talks.

Their colours are those of Okabe and Ito, which people with colour blindness can tell apart.
"""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE = "#0072b2"
ORANGE = "#d55e00"
GREY = "#767676"
_RULE = "#e6e6e6"
_INK = "#000000"

_COUNT_TICKS = "{x:,.0f}"

# A page's CSS variables for these colours, by which plots follow its light and dark looks.
_CSS_VARIABLES = {BLUE: "blue", ORANGE: "orange", GREY: "muted", _RULE: "rule", _INK: "ink"}


def to_png(figure: Figure) -> bytes:
    """A plot as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()


def to_svg(figure: Figure, name: str, titles: Mapping[str, str] | None = None) -> str:
    """A plot as an SVG element for a page, with the page's fonts and colours.

    Args:
      figure: the plot.
      name: a prefix of the identifiers in it, different for each plot of a page.
      titles: text that the page shows when the pointer is over a part of the plot, by the
        identifier of the part, its `gid`.
    """
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", dpi=220, transparent=True, metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # The page sets the width.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for part, title in (titles or {}).items():
        svg = svg.replace(f'<g id="{part}">', f'<g id="{part}"><title>{escape(title)}</title>')
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\1{name}-", svg)
    for colour, variable in _CSS_VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg


def accuracy_scatter(
    scores: np.ndarray,
    accuracies: np.ndarray,
    measured: str,
    chosen: int | None = None,
    *,
    score_name: str = "score",
) -> Figure:
    """Plots trained accuracies `[A]` against scores `[A]`; cells with NaN are left out.

    Args:
      scores: `[A]`.
      accuracies: `[A]`, in percent.
      measured: name of the accuracy.
      chosen: index of a cell to mark.
      score_name: name of the score.
    """
    figure, axes = new_figure(5, 3.6)
    known = ~np.isnan(scores) & ~np.isnan(accuracies)
    size = float(np.clip(20_000 / max(known.sum(), 1), 3, 20))
    axes.scatter(
        scores[known],
        accuracies[known],
        s=size,
        color=BLUE,
        alpha=0.5,
        linewidths=0,
        rasterized=True,
    )
    if chosen is not None and known[chosen]:
        axes.plot(
            scores[chosen],
            accuracies[chosen],
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=ORANGE,
            markeredgewidth=2,
        )
    _score_axis(axes, score_name)
    axes.set_ylabel(f"{measured}, %")
    return figure


def best_of_n(
    sizes: np.ndarray, curves: Mapping[str, np.ndarray], random_mean: float, measured: str
) -> Figure:
    """Plots the accuracy of the chosen cell against the length of the search.

    Args:
      sizes: lengths, `[L]`.
      curves: as from `paper_tables.best_of_n`, means and deviations `[L, 2]`.
      random_mean: mean accuracy of a cell at random.
      measured: name of the accuracy.
    """
    figure, axes = new_figure(5, 3.8)
    looks = {"best": ("best of the N cells", ORANGE, "--"), "score": ("best score", BLUE, "-")}
    for name, (label, colour, dashes) in looks.items():
        mean, deviation = curves[name].T
        axes.plot(sizes, mean, color=colour, linestyle=dashes, label=label)
        axes.fill_between(
            sizes, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0
        )
    axes.axhline(random_mean, color=GREY, linestyle=":", label="a cell at random")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_COUNT_TICKS)
    # The deviations of the shortest searches would squeeze all the rest.
    means = np.concatenate([[random_mean], *(curve[:, 0] for curve in curves.values())])
    low, high = np.nanmin(means), np.nanmax(means)
    margin = 0.1 * (high - low) + 1e-3
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("N, cells that a random search draws")
    axes.set_ylabel(f"{measured}, %")
    axes.set_title("mean over searches, with one standard deviation", fontsize=9)
    _legend_below(figure)
    return figure


def score_histogram(scores: np.ndarray, *, score_name: str = "score") -> Figure:
    """Plots the distribution of scores `[A]`, NaN left out; `score_name` is their name."""
    figure, axes = new_figure(5, 3.6)
    known = scores[np.isfinite(scores)].astype(np.float64)
    # Scores that differ in their last bits have no room for many bins between them.
    is_flat = not len(known) or np.ptp(known) <= 1e-9 * np.abs(known).max()
    axes.hist(known, bins=1 if is_flat else 40, color=BLUE)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _score_axis(axes, score_name)
    axes.set_ylabel("cells")
    return figure


def best_so_far(scores: np.ndarray, accuracies: np.ndarray | None) -> Figure:
    """Plots the best score so far, in the order of the search, and the accuracy of that cell.

    Args:
      scores: `[A]`, NaN for a cell without one.
      accuracies: `[A]`, in percent, NaN where unknown; or None.
    """
    figure, _ = new_figure(5, 3.6)
    figure.clear()
    rows = 1 if accuracies is None else 2
    panels = figure.subplots(rows, sharex=True, squeeze=False)[:, 0]
    seen = np.arange(1, len(scores) + 1)
    best = np.fmax.accumulate(scores)
    panels[0].step(seen, best, where="post", color=BLUE)
    panels[0].set_ylabel("best score")
    panels[0].yaxis.set_major_formatter(tick)
    if accuracies is not None:
        # The first cell with the best score so far.
        is_new = np.append(True, best[1:] != best[:-1]) & ~np.isnan(best)
        chosen = np.maximum.accumulate(np.where(is_new, np.arange(len(scores)), -1))
        of_chosen = np.where(chosen < 0, np.nan, accuracies[chosen])
        highest = np.fmax.accumulate(accuracies)
        panels[1].step(
            seen, highest, where="post", color=ORANGE, linestyle="--", label="highest so far"
        )
        panels[1].step(seen, of_chosen, where="post", color=BLUE, label="of the best cell so far")
        panels[1].set_ylabel("accuracy, %")
        _legend_below(figure)
    panels[-1].set_xlabel("cells scored")
    panels[-1].xaxis.set_major_formatter(_COUNT_TICKS)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels:
        _style(axes)
    return figure


def class_bars(class_scores: np.ndarray, class_sizes: np.ndarray | None) -> Figure:
    """Plots |e_c| of each class, whose sum is the EPE-NAS score.

    Args:
      class_scores: e_c, `[K]`.
      class_sizes: images of each class, `[K]`, or None where they differ from cell to cell.
    """
    parts, classes = np.abs(class_scores), np.arange(len(class_scores))
    if len(parts) > 30:
        figure, axes = new_figure(5, 3.6)
        axes.bar(classes, parts, width=1, color=BLUE)
        axes.set_xlabel("class")
        axes.set_ylabel("|e_c|")
        return figure
    figure, axes = new_figure(5, 1.2 + 0.24 * len(parts))
    axes.barh(classes, parts, height=0.7, color=BLUE)
    labels = [str(c) for c in classes]
    if class_sizes is not None:
        labels = [f"{c} ({size} images)" for c, size in enumerate(class_sizes)]
    axes.set_yticks(classes, labels)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(tick)
    axes.set_xlabel("|e_c|")
    axes.set_ylabel("class")
    return figure


def training_curves(
    rows: Sequence[Mapping[str, Any]], held_out: str, table_accuracy: float | None
) -> Figure:
    """Plots accuracy over epochs, one line for each seed.

    Args:
      rows: the epochs, as in `metrics.csv`.
      held_out: name of the held-out images, `"test"` or `"validation"`.
      table_accuracy: after the table's training, in percent; None where unknown.
    """
    figure, axes = new_figure(5, 3.6)
    for name, colour in (("train", GREY), (held_out, BLUE)):
        label: str | None = name
        for seed in sorted({row["seed"] for row in rows}):
            own = [row for row in rows if row["seed"] == seed and f"{name}_accuracy" in row]
            if own:
                epochs, values = zip(
                    *[(row["epoch"], row[f"{name}_accuracy"]) for row in own], strict=True
                )
                marker = "." if len(own) == 1 else None
                axes.plot(epochs, values, color=colour, label=label, marker=marker)
                label = None
    if table_accuracy is not None:
        axes.axhline(table_accuracy, color=ORANGE, linestyle="--", label="table")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy, %")
    _legend_below(figure)
    return figure


def cost_of_ranking(
    costs: np.ndarray,
    correlations: np.ndarray,
    *,
    is_shallow: np.ndarray,
    front: np.ndarray,
    chosen: int,
    name: str,
) -> Figure:
    """Plots rank correlation against the cost of scoring, for several settings.

    Args:
      costs: ms a network at each setting, `[A]`.
      correlations: of scores and accuracies, `[A]`.
      is_shallow: which settings have a network of fewer cells, bool `[A]`.
      front: the settings that none beats in both, cheapest first.
      chosen: the chosen setting.
      name: of that setting.
    """
    figure, axes = new_figure(6.4, 4.0)
    axes.plot(costs[~is_shallow], correlations[~is_shallow], "o", color=BLUE, label="full depth")
    axes.plot(costs[is_shallow], correlations[is_shallow], "s", color=GREY, label="fewer cells")
    axes.step(costs[front], correlations[front], color=BLUE, linewidth=1, where="post")
    axes.annotate(
        f"chosen: {name}",
        (costs[chosen], correlations[chosen]),
        xytext=(12, -40),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "color": ORANGE},
        color=ORANGE,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("ms a network")
    axes.set_ylabel("Spearman with accuracy")
    axes.legend(frameon=False, loc="lower right")
    return figure


def rank_against_cost(
    ranks: np.ndarray,
    costs: np.ndarray,
    front: np.ndarray,
    names: Sequence[str],
    *,
    cost_name: str,
) -> Figure:
    """Plots ranks of networks, 1 at the top, against a cost, with a line through the front.

    Args:
      ranks: `[A]`.
      costs: above 0, `[A]`.
      front: those that no other one beats in both, cheapest first; they are named.
      names: of the networks.
      cost_name: of the cost, with its unit.
    """
    figure, axes = new_figure(6.5, 4.5)
    axes.scatter(costs, ranks, s=16, color=GREY)
    axes.step(costs[front], ranks[front], "o-", where="post", color=BLUE, linewidth=1)
    for place in front:
        axes.annotate(
            names[place],
            (costs[place], ranks[place]),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize="small",
            parse_math=False,
        )
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(cost_name)
    axes.set_ylabel("rank")
    return figure


def score_against_cost(
    scores: np.ndarray,
    costs: np.ndarray,
    front: np.ndarray,
    *,
    cost_name: str,
    score_name: str,
) -> Figure:
    """Plots scores of cells against a cost, with a line through the front; NaN left out.

    Args:
      scores: `[A]`.
      costs: `[A]`.
      front: cost and score of the cells that no other one beats in both, cheapest first, `[P, 2]`;
        the `gid` of the first is `front-0`, and so on.
      cost_name: of the cost, with its unit.
      score_name: name of the score.
    """
    figure, axes = new_figure(5, 3.6)
    known = np.isfinite(scores) & np.isfinite(costs)
    size = float(np.clip(20_000 / max(known.sum(), 1), 3, 20))
    axes.scatter(costs[known], scores[known], s=size, color=GREY, linewidths=0, rasterized=True)
    axes.step(*front.T, where="post", color=BLUE, linewidth=1)
    for place, (cost, score) in enumerate(front):
        axes.plot(cost, score, "o", color=BLUE, markersize=5, gid=f"front-{place}")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(tick)
    axes.yaxis.set_major_formatter(tick)
    axes.set_xlabel(cost_name)
    axes.set_ylabel(textwrap.fill(score_name, 40))
    return figure


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty plot, sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _style(axes)
    return figure, axes


def tick(value: float, _place: float) -> str:
    """A number at an axis: scores may differ by a tenth, parameters are millions."""
    value = float(f"{value:.6g}")
    return f"{value / 1e6:,.6g}M" if 1e6 <= abs(value) < 1e9 else f"{value:,.6g}"


def _score_axis(axes: Axes, name: str) -> None:
    """Labels the horizontal axis as one of scores."""
    axes.xaxis.set_major_formatter(tick)
    axes.set_xlabel(textwrap.fill(name, 50))


def _legend_below(figure: Figure) -> None:
    """Puts the legend below the axes, where it crosses no line."""
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
