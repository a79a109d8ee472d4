"""Plots as PNG files, in colours that the colour-blind tell apart (Okabe and Ito).

Shape legend: A cells, L lengths of a search.
"""

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE = "#0072B2"
ORANGE = "#E69F00"
GREY = "0.45"


def score_scatter(scores: np.ndarray, pytorch_scores: np.ndarray) -> bytes:
    """Our scores `[A]` against PyTorch's `[A]`, with the diagonal; cells without scores left out.

    Returns:
      The content of a PNG file.
    """
    figure, axes = _figure(5, 5)
    axes.set_aspect("equal")
    known = np.isfinite(scores) & np.isfinite(pytorch_scores)
    if known.any():
        somewhere = float(pytorch_scores[known][0])
        axes.axline((somewhere, somewhere), slope=1, color="0.7", linewidth=1, zorder=1)
    axes.scatter(pytorch_scores[known], scores[known], s=12, color=BLUE, zorder=2)
    axes.set_xlabel("score by PyTorch")
    axes.set_ylabel("score by epe_nas_jax")
    axes.set_title(f"{known.sum()} cells")
    return _png(figure)


def accuracy_scatter(scores: np.ndarray, accuracies: np.ndarray, dataset: str) -> bytes:
    """Trained accuracies `[A]`, in percent, against scores `[A]`, NaN left out.

    Returns:
      The content of a PNG file.
    """
    figure, axes = _figure(6.4, 4.2)
    known = ~np.isnan(scores) & ~np.isnan(accuracies)
    size = float(np.clip(20_000 / max(known.sum(), 1), 3, 20))
    axes.scatter(scores[known], accuracies[known], s=size, color=BLUE, alpha=0.45, linewidths=0)
    axes.set_xlabel("EPE-NAS score of the untrained network")
    axes.set_ylabel(f"{dataset} test accuracy after training, %")
    missing = int(np.isnan(scores).sum())
    axes.set_title(f"{known.sum():,} cells; {missing} without a score not shown", fontsize=10)
    return _png(figure)


def best_of_n(
    sizes: np.ndarray, curves: Mapping[str, np.ndarray], random_mean: float, dataset: str
) -> bytes:
    """Accuracy of the chosen cell against the length of the search.

    Args:
      sizes: lengths, `[L]`.
      curves: as from `evaluation.best_of_n`, means and deviations `[L, 2]`.
      random_mean: mean accuracy of a cell at random.
      dataset: its name.

    Returns:
      The content of a PNG file.
    """
    figure, axes = _figure(6.4, 4.2)
    looks = {
        "best": ("best of the N cells", ORANGE, "--"),
        "score": ("cell of the best score", BLUE, "-"),
    }
    for name, (label, colour, dashes) in looks.items():
        mean, deviation = curves[name].T
        axes.plot(sizes, mean, color=colour, linestyle=dashes, label=label)
        axes.fill_between(
            sizes, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0
        )
    axes.axhline(random_mean, color=GREY, linestyle=":", label="a cell at random")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    # The deviations of the shortest searches would squeeze all the rest.
    means = np.concatenate([[random_mean], *(curve[:, 0] for curve in curves.values())])
    low, high = np.nanmin(means), np.nanmax(means)
    margin = 0.1 * (high - low) + 1e-3
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("N, cells that a random search draws")
    axes.set_ylabel(f"{dataset} test accuracy, %")
    axes.set_title("Mean over searches, with one standard deviation", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty plot, sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
