"""A finished comparison with PyTorch as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from epe_nas_jax.reports import comparison_plots, html, plots
from epe_nas_jax.reports.text import relative_error, score_or_none

_UNREAD = ("arch", "from_run", "search", "refine", "benchmark", "train")
# What is compared, by the name of its error in `compare.json`.
_COMPARED = {"logits_error": "logits", "jacobian_error": "Jacobian", "score_error": "score"}
_TIMES = ("seconds", "pytorch_seconds", "pytorch_best_seconds")


def comparison_page(
    summary: Mapping[str, Any],
    provenance: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    scatter: Figure,
) -> str:
    """Makes the page of a comparison.

    Args:
      summary: the summary in `compare.json`.
      provenance: the content of `config.json`.
      rows: the cells in `compare.json`.
      scatter: as from `comparison_plots.score_scatter`.

    Returns:
      The content of an HTML file.
    """
    config = provenance["config"]
    title = f"Comparison with PyTorch on {config['data']['name']}"
    return html.document(
        title,
        [
            html.header(title, _lead(summary), _facts(summary)),
            '<div class="plots">',
            _scores(summary, scatter),
            _errors(summary, rows),
            "</div>",
            f'<section class="compared"><h2>All cells</h2>{_table(rows)}</section>',
            _time_and_origin(summary, provenance),
        ],
    )


def _lead(summary: Mapping[str, Any]) -> str:
    best, pytorch_best = summary["best_arch"], summary["pytorch_best_arch"]
    if best is None or pytorch_best is None:
        return "<p>A side has no cell with a score.</p>"
    if summary["same_best"]:
        return f'<p class="best">The best cell by both sides is<br>{html.arch_code(best)}</p>'
    return (
        f'<p class="best">The best cell by epe_nas_jax is<br>{html.arch_code(best)}<br>'
        f"and by PyTorch<br>{html.arch_code(pytorch_best)}</p>"
    )


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    ratios, spearman = summary["times_ours"], summary["spearman"]
    return [
        ("cells", f"{summary['num_cells']:,}"),
        ("worst relative error of a score", relative_error(summary["score_error"]["worst"])),
        ("Spearman of the two scores", "undefined" if spearman is None else f"{spearman:.6f}"),
        ("time of PyTorch as released, over ours", f"{ratios['pytorch_as_released']:.2f} x"),
        ("time of PyTorch at its best, over ours", f"{ratios['pytorch_at_its_best']:.2f} x"),
    ]


def _scores(summary: Mapping[str, Any], scatter: Figure) -> str:
    caption = (
        "Both sides have the same weights and the same mini-batch. On the diagonal the scores are "
        f"equal. Cells without a score: {summary['num_degenerate']} on both sides, "
        f"{summary['num_scored_on_one_side_only']} on one side only."
    )
    return html.figure("Scores of both sides", plots.to_svg(scatter, "scores"), caption)


def _errors(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    errors = {
        what: np.array([row[name] for row in rows], np.float64) for name, what in _COMPARED.items()
    }
    found = ", ".join(
        f"{what} {relative_error(summary[name]['median'])} and "
        f"{relative_error(summary[name]['worst'])}"
        for name, what in _COMPARED.items()
    )
    caption = (
        f"One dot for each cell; median and worst error: {found}. An error is the largest "
        "difference, relative to the largest magnitude on PyTorch's side; both sides computed in "
        f"{summary['dtype']}. An error of 0 is not drawn."
    )
    plot = comparison_plots.relative_errors(errors)
    return html.figure("Relative errors", plots.to_svg(plot, "errors"), caption)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    header = [
        *("our score", "PyTorch's score"),
        *(f"error of {what}" for what in _COMPARED.values()),
        *("our seconds", "seconds as released", "seconds at its best", "cell"),
    ]
    return html.table(
        header,
        [
            [
                *(score_or_none(row[side], ",") for side in ("score", "pytorch_score")),
                *(relative_error(row[name]) for name in _COMPARED),
                *(f"{row[name]:.3f}" for name in _TIMES),
                html.arch_code(row["arch"]),
            ]
            for row in rows
        ],
    )


def _time_and_origin(summary: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    seconds = summary["seconds_per_cell"]
    facts = {
        "ours": f"{seconds['ours']:.3f} s a cell from genotype to score, after "
        f"{summary['compile_seconds']:.1f} s compiling",
        "PyTorch as released": f"{seconds['pytorch_as_released']:.3f} s a cell, forward and "
        "backward pass alone, all gradients",
        "PyTorch at its best": f"{seconds['pytorch_at_its_best']:.3f} s a cell, forward and "
        "backward pass alone, gradient of the images only, channels last",
        "PyTorch's network": summary["pytorch_network"],
        "PyTorch's threads": str(summary["pytorch_threads"]),
        "images": str(summary["batch_size"]),
        "precision": summary["dtype"],
        "device": summary["device"],
    }
    command = html.command_of("compare", provenance["config"], _UNREAD)
    return html.origin(facts, provenance, command)
