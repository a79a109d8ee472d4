"""Plots as PNG files."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def score_scatter(scores: np.ndarray, pytorch_scores: np.ndarray) -> bytes:
    """Our scores `[A]` against PyTorch's `[A]`, with the diagonal; cells without scores left out.

    Returns:
      The content of a PNG file.
    """
    figure = Figure(figsize=(5, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_aspect("equal")
    known = np.isfinite(scores) & np.isfinite(pytorch_scores)
    if known.any():
        somewhere = float(pytorch_scores[known][0])
        axes.axline((somewhere, somewhere), slope=1, color="0.7", linewidth=1, zorder=1)
    axes.scatter(pytorch_scores[known], scores[known], s=12, zorder=2)
    axes.set_xlabel("score by PyTorch")
    axes.set_ylabel("score by epe_nas_jax")
    axes.set_title(f"{known.sum()} cells")
    return _png(figure)


def training_curves(
    rows: Sequence[Mapping[str, Any]], held_out: str, table_accuracy: float | None
) -> bytes:
    """Accuracy over epochs, a line a seed, with the table's accuracy where it is known.

    Args:
      rows: the epochs, as in `metrics.csv`.
      held_out: name of the held-out images, `"test"` or `"validation"`.
      table_accuracy: after the table's training, in percent, or None.

    Returns:
      The content of a PNG file.
    """
    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, color in (("train", "0.6"), (held_out, "C0")):
        label: str | None = name
        for seed in sorted({row["seed"] for row in rows}):
            own = [row for row in rows if row["seed"] == seed]
            values = [row[f"{name}_accuracy"] for row in own if f"{name}_accuracy" in row]
            epochs = [row["epoch"] for row in own][: len(values)]
            axes.plot(epochs, values, color=color, linewidth=1.2, label=label if values else None)
            label = None
    if table_accuracy is not None:
        axes.axhline(table_accuracy, color="C1", linestyle="--", linewidth=1, label="table")
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy in percent")
    axes.legend(loc="lower right")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
