"""Plots as PNG files."""

import io

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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
