"""Plots of a comparison with PyTorch."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from epe_nas_jax.reports.plots import BLUE, GREY, new_figure, tick


def score_scatter(scores: np.ndarray, pytorch_scores: np.ndarray) -> Figure:
    """Plots our scores `[A]` against PyTorch's `[A]`, with the diagonal; NaN left out."""
    figure, axes = new_figure(5, 5)
    axes.set_aspect("equal")
    known = np.isfinite(scores) & np.isfinite(pytorch_scores)
    if known.any():
        somewhere = float(pytorch_scores[known][0])
        axes.axline((somewhere, somewhere), slope=1, color=GREY, linewidth=1, zorder=1)
    axes.scatter(pytorch_scores[known], scores[known], s=12, color=BLUE, zorder=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(tick)
    axes.set_xlabel("score by PyTorch")
    axes.set_ylabel("score by epe_nas_jax")
    axes.set_title(f"{known.sum()} cells", fontsize=10)
    return figure


def relative_errors(errors: Mapping[str, np.ndarray]) -> Figure:
    """Plots relative errors of cells, a line of dots for each quantity that is compared.

    Args:
      errors: of the cells, `[A]`, by the name of the quantity. NaN and 0 are left out: they have no
        place on a logarithmic axis.
    """
    figure, axes = new_figure(5, 1.2 + 0.5 * len(errors))
    for place, values in enumerate(errors.values()):
        known = values[np.isfinite(values) & (values > 0)]
        axes.scatter(known, np.full(len(known), place), s=16, color=BLUE, alpha=0.4, linewidths=0)
    axes.set_xscale("log")
    axes.set_yticks(range(len(errors)), list(errors))
    axes.set_ylim(len(errors) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("relative error")
    return figure
