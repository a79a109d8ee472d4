"""What a person reads of a finished run."""

from collections.abc import Mapping
from typing import Any


def result_table(summary: Mapping[str, Any], best: list[dict[str, Any]]) -> str:
    """A finished run as a small table.

    Args:
      summary: the content of `summary.json`.
      best: the best cells, best first: `arch`, `score` and, with a benchmark, `accuracy`.

    Returns:
      Lines of text.
    """
    has_accuracies = any("accuracy" in cell for cell in best)
    head = f"{'rank':>4}  {'score':>10}  " + ("accuracy  " if has_accuracies else "") + "cell"
    lines = [head]
    for rank, cell in enumerate(best, 1):
        accuracy = _percent(cell.get("accuracy")) if has_accuracies else ""
        lines.append(f"{rank:>4}  {cell['score']:>10.1f}  {accuracy}{cell['arch']}")
    if not best:
        lines.append("no cell has a score")
    lines += [
        "",
        f"scored      {summary['num_scored']} cells, of which {summary['num_degenerate']} "
        "degenerate (no path from input to output, no score)",
        f"time        {summary['compile_seconds']:.1f} s compiling, {summary['seconds']:.1f} s "
        f"scoring, {summary['ms_per_cell']:.1f} ms a cell",
        f"device      {summary['device']}",
    ]
    if has_accuracies:
        lines += [
            f"accuracy    {_value(summary['best_accuracy'])} % for the chosen cell, "
            f"{_value(summary['sample_best_accuracy'])} % for the best in the sample",
        ]
        correlations = summary["rank_correlation"]
        for name in ("spearman", "kendall"):
            value = correlations[name]
            text = "undefined on this sample"
            if value is not None:
                text = (
                    f"{value['value']:.3f}, 95 % interval {value['low']:.3f} to {value['high']:.3f}"
                )
            lines.append(f"{name:<11} {text} ({correlations['num_cells']} cells)")
    return "\n".join(lines)


def _percent(accuracy: float | None) -> str:
    return f"{_value(accuracy):>8}  "


def _value(accuracy: float | None) -> str:
    return "unknown" if accuracy is None else f"{accuracy:.2f}"
