"""A finished search as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from epe_nas_jax.reports import html, plots
from epe_nas_jax.reports.text import (
    COST_NAMES,
    number,
    refined_in_words,
    score_or_none,
    scores_apart,
)
from epe_nas_jax.spaces.base import CellGraph

# The objective whose score is EPE-NAS's, a sum over classes.
_EPE = ("epe",)
_COMBINATIONS = {"log_rank_sum": "sum of log ranks", "rank_sum": "sum of ranks"}
# The score where the best cells were scored again.
_RANK = "rank (1: best), cells scored again first"
_UNREAD = ("arch", "from_run", "compare", "train", "latency_sha256")


class ColumnRanks(NamedTuple):
    """How the best cells rank by each column of the objective.

    Attributes:
      ranks: of the best cells, `[B, P]`, 1 for the largest value; NaN for a cell that was not
        ranked.
      num_cells: how many different cells were ranked.
    """

    ranks: np.ndarray
    num_cells: int


def run_page(
    *,
    summary: Mapping[str, Any],
    provenance: Mapping[str, Any],
    best: Sequence[Mapping[str, Any]],
    ranks: ColumnRanks | None,
    graphs: Sequence[CellGraph],
    objective: Sequence[str],
    scores: np.ndarray,
    costs: Mapping[str, np.ndarray],
    accuracies: np.ndarray | None,
    benchmark_accuracies: np.ndarray | None,
    class_scores: np.ndarray | None,
    class_sizes: np.ndarray | None,
) -> str:
    """Makes the page of a search.

    Args:
      summary: the content of `summary.json`.
      provenance: the content of `config.json`.
      best: the best cells, best first: `arch`, `score` and, with a benchmark, `accuracy`.
      ranks: of the best cells by each column of the objective; None of an objective of one column.
      graphs: how the best cell is drawn; empty if no cell has a score.
      objective: the columns that the score is made of.
      scores: `[A]` in the order of the search, NaN for a cell without one.
      costs: by the names of the summary's fronts, what the cells cost, `[A]`, NaN where unknown.
      accuracies: their accuracies `[A]`, NaN where unknown; None without a benchmark.
      benchmark_accuracies: all accuracies of the benchmark, `[T]`; None without one.
      class_scores: e_c of the best cell, `[K]`, only shown if the objective is `("epe",)`; None if
        no cell has a score, or the score is a rank after the best cells were scored again.
      class_sizes: images of each class in the mini-batch, `[K]`; None where every cell has a
        mini-batch of its own.

    Returns:
      The content of an HTML file.
    """
    config = provenance["config"]
    title = _title(objective, config)
    is_refined = "stages" in summary
    name = _RANK if is_refined else _score_name(objective, config)
    if tuple(objective) != _EPE or is_refined:
        class_scores = None
    sections = [
        _headline(title, summary, benchmark_accuracies),
        _best_cells(best, graphs) if best else "",
        _why(ranks, objective, config, is_refined=is_refined) if best and ranks else "",
        '<div class="plots">',
        _scatter(scores, accuracies, name, summary) if accuracies is not None else "",
        # Ranks are spread evenly.
        "" if is_refined else _distribution(scores, name, summary, is_relative=len(objective) > 1),
        _progress(scores, accuracies),
        *(
            _front(scores, costs[cost], cost, front, name)
            for cost, front in summary["pareto_front"].items()
            if front
        ),
        _classes(class_scores, class_sizes) if class_scores is not None else "",
        "</div>",
        _time_and_origin(summary, provenance),
    ]
    return html.document(title, sections)


def _title(objective: Sequence[str], config: Mapping[str, Any]) -> str:
    dataset = config["data"]["name"]
    if tuple(objective) == _EPE:
        return f"EPE-NAS on {dataset}"
    return f"Search on {dataset} by {', '.join(objective)}"


def _score_name(objective: Sequence[str], config: Mapping[str, Any]) -> str:
    """The name of the score."""
    if tuple(objective) == _EPE:
        return "EPE-NAS score"
    if len(objective) == 1:
        return objective[0]
    return f"score: {_combination(config)} of {', '.join(objective)}"


def _combination(config: Mapping[str, Any]) -> str:
    """The name of the way in which several columns are one score."""
    combine = config["score"]["combine"]
    return _COMBINATIONS.get(combine, combine)


def _headline(
    title: str, summary: Mapping[str, Any], benchmark_accuracies: np.ndarray | None
) -> str:
    facts = [("score", score_or_none(summary["best_score"], ","))]
    if benchmark_accuracies is not None:
        accuracy = summary["best_accuracy"]
        rank = "unknown"
        if accuracy is not None:
            rank = f"{1 + int(np.sum(benchmark_accuracies > accuracy)):,}"
        facts += [
            ("accuracy after training", "unknown" if accuracy is None else f"{accuracy:.2f} %"),
            (f"rank by accuracy among {len(benchmark_accuracies):,}", rank),
            ("Spearman", _correlation(summary["rank_correlation"]["spearman"], interval=False)),
        ]
    facts += [
        ("cells scored", f"{summary['num_scored']:,}"),
        ("without a score", f"{summary['num_degenerate']:,}"),
    ]
    if summary["best_arch"] is None:
        lead = "<p>No cell has a score.</p>"
    else:
        lead = f'<p class="best">The best cell is<br>{html.arch_code(summary["best_arch"])}</p>'
    return html.header(title, lead, facts)


def _best_cells(best: Sequence[Mapping[str, Any]], graphs: Sequence[CellGraph]) -> str:
    """The drawing of the best cell, and a table of the best cells."""
    figures = html.cell_figures("The best cell", graphs, best[0]["arch"])
    ranking = f'<div class="ranking"><h2>The best cells by score</h2>{_ranking(best)}</div>'
    if len(graphs) == 1:
        return f'<section class="cells">{figures}{ranking}</section>'
    return f'<section><div class="plots">{figures}</div>{ranking}</section>'


def _ranking(best: Sequence[Mapping[str, Any]]) -> str:
    has_accuracies = any("accuracy" in cell for cell in best)
    header = ["rank", "score", *(["accuracy, %"] if has_accuracies else []), "cell"]
    scores = scores_apart([cell["score"] for cell in best], ",")
    rows = []
    for rank, (score, cell) in enumerate(zip(scores, best, strict=True), 1):
        row = [str(rank), score]
        if has_accuracies:
            accuracy = cell.get("accuracy")
            row.append("none" if accuracy is None else f"{accuracy:.2f}")
        rows.append([*map(escape, row), html.arch_code(cell["arch"])])
    return html.table(header, rows)


def _why(
    ranks: ColumnRanks,
    objective: Sequence[str],
    config: Mapping[str, Any],
    *,
    is_refined: bool,
) -> str:
    """The ranks of the best cells by each column of the objective, as a table."""
    which, order = "different cells with a score", "The score is"
    if is_refined:
        which = "different cells that were scored again, at the full setting"
        order = "These cells are in the order of"
    caption = (
        f"The ranks of the best cells by each column of the objective alone, among the "
        f"{ranks.num_cells:,} {which}; rank 1 has the largest value, and equal values share a "
        f"rank. {order} the "
        f"{_combination(config)}, for which ranks are counted the other way round, from the worst "
        "cell: one that is good by all columns can come before one that is first by a single one."
    )
    if np.isnan(ranks.ranks).any():
        caption += " A cell without ranks was not scored again; it comes after those that were."
    rows = [
        [escape(f"by {column}"), *("" if np.isnan(rank) else f"{rank:,.0f}" for rank in of_column)]
        for column, of_column in zip(objective, ranks.ranks.T, strict=True)
    ]
    header = ["rank by score", *map(str, range(1, len(ranks.ranks) + 1))]
    return (
        f'<section class="why"><h2>Why these are first</h2>{html.table(header, rows)}'
        f'<p class="caption">{escape(caption)}</p></section>'
    )


def _scatter(
    scores: np.ndarray, accuracies: np.ndarray, score_name: str, summary: Mapping[str, Any]
) -> str:
    chosen = None if np.isnan(scores).all() else int(np.nanargmax(scores))
    correlations = summary["rank_correlation"]
    plot = plots.accuracy_scatter(
        scores, accuracies, "accuracy after training", chosen, score_name=score_name
    )
    return html.figure(
        "Score against accuracy",
        plots.to_svg(plot, "accuracy"),
        f"{correlations['num_cells']:,} cells with score and accuracy; the ring is the best cell. "
        f"Spearman {_correlation(correlations['spearman'])}, Kendall "
        f"{_correlation(correlations['kendall'])}.",
    )


def _distribution(
    scores: np.ndarray, score_name: str, summary: Mapping[str, Any], *, is_relative: bool
) -> str:
    caption = (
        f"{np.sum(~np.isnan(scores)):,} cells with a score, {summary['num_degenerate']:,} without "
        "(as a rule, for lack of a path from input to output)."
    )
    if is_relative:
        caption += " Ranks are those among the cells of this search."
    plot = plots.score_histogram(scores, score_name=score_name)
    return html.figure("Scores", plots.to_svg(plot, "scores"), caption)


def _progress(scores: np.ndarray, accuracies: np.ndarray | None) -> str:
    caption = "The best score among the cells scored so far"
    if accuracies is not None:
        caption += ", the accuracy of the cell with that score, and the highest accuracy so far"
    caption += "."
    plot = plots.best_so_far(scores, accuracies)
    return html.figure("Best so far", plots.to_svg(plot, "progress"), caption)


def _front(
    scores: np.ndarray,
    costs: np.ndarray,
    cost: str,
    front: Sequence[Mapping[str, Any]],
    score_name: str,
) -> str:
    """The plot of scores against a cost, with the names of the cells on the front."""
    what = COST_NAMES.get(cost, cost)
    plot = plots.score_against_cost(
        scores,
        costs,
        np.array([(cell[cost], cell["score"]) for cell in front]),
        cost_name=what,
        score_name=score_name,
    )
    shown = scores_apart([cell["score"] for cell in front], ",")
    titles = {
        f"front-{place}": f"{cell['arch']}: {number(cell[cost])} {what}, score {score}"
        for place, (score, cell) in enumerate(zip(shown, front, strict=True))
    }
    return html.figure(
        f"Score and {what}",
        plots.to_svg(plot, f"front-{cost}", titles),
        f"The line is the Pareto front of {len(front)} cells: no other cell has a better score at "
        "the same or a lower cost. The pointer over one of them shows its name.",
    )


def _classes(class_scores: np.ndarray, class_sizes: np.ndarray | None) -> str:
    plot = plots.class_bars(class_scores, class_sizes)
    return html.figure(
        "Classes of the best cell",
        plots.to_svg(plot, "classes"),
        "The score is the sum of |e_c| over the classes c; e_c is a sum over all pairs of images "
        "of a class.",
    )


def _time_and_origin(summary: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    facts = {
        "scoring": f"{summary['seconds']:.1f} s",
        "compiling": f"{summary['compile_seconds']:.1f} s",
        "for each cell": f"{summary['ms_per_cell']:.1f} ms",
        "different networks": f"{summary['num_networks']:,}",
        "device": summary["device"],
    }
    if "stages" in summary:
        facts["refined"] = refined_in_words(summary)
    command = html.command_of("search", provenance["config"], _UNREAD)
    return html.origin(facts, provenance, command)


def _correlation(correlation: Mapping[str, float] | None, *, interval: bool = True) -> str:
    if correlation is None:
        return "undefined"
    text = f"{correlation['value']:.3f}"
    if interval:
        text += f" (95 % interval {correlation['low']:.3f} to {correlation['high']:.3f})"
    return text
