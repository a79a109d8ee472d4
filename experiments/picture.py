r"""The picture of the README: rank by score against accuracy after training, all cells of a space.

Left EPE-NAS, right the recommended ranking, from a run's `scores.csv` of all cells by EPE-NAS.

Command:  python -m experiments.picture --scores=results/space_cifar10.csv.gz \
              --benchmark=nasbench201.csv.gz --column=cifar10_test_200 --out=docs/images/ranking.png
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from absl import app, flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from epe_nas_jax import BEST_RANKING
from epe_nas_jax.data import score_files
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.reports.plots import BLUE, GREY, to_png
from epe_nas_jax.search import ranking
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201


def picture(panels: dict[str, np.ndarray], accuracies: np.ndarray) -> Figure:
    """Ranks, 1 at the right, against accuracies `[A]` in percent; a panel for each `[A]` of scores.

    A cell without a score is left out.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True)
    for place, ((title, scores), colour) in enumerate(
        zip(panels.items(), (GREY, BLUE), strict=True)
    ):
        ranks = pd.Series(scores).rank(ascending=False).to_numpy()
        known = ~np.isnan(scores)
        found = ranking.spearman(scores[known], accuracies[known])
        rho = "undefined" if found is None else f"{found.value:.2f}"
        axes[place].scatter(
            ranks, accuracies, s=2, color=colour, alpha=0.4, linewidths=0, rasterized=True
        )
        axes[place].set_title(f"{title}: rank correlation {rho}", fontsize=11)
        axes[place].set_xlabel("rank of the untrained cell by score (1: the best)")
        axes[place].xaxis.set_major_formatter("{x:,.0f}")
        axes[place].set_xticks((1, 5_000, 10_000, 15_000))
        axes[place].invert_xaxis()
        axes[place].grid(color="#e6e6e6", linewidth=0.6)
        axes[place].set_axisbelow(True)
        axes[place].spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("accuracy after training, %")
    return figure


def main(argv: Sequence[str]) -> None:
    """Writes the picture."""
    del argv
    table = score_files.read_scores(_SCORES.value, space=NASBENCH201)
    by_arch = read_accuracies(_BENCHMARK.value, _COLUMN.value, space=NASBENCH201)
    accuracies = np.array([by_arch[str(arch)] for arch in table.index])
    panels = {
        "EPE-NAS": table[score_files.SCORE].to_numpy(),
        "five signals together": ranking.log_rank_sum(table[list(BEST_RANKING)].to_numpy()),
    }
    Path(_OUT.value).write_bytes(to_png(picture(panels, accuracies)))


if __name__ == "__main__":
    _SCORES = flags.DEFINE_string("scores", None, "Scores of all cells.", required=True)
    _BENCHMARK = flags.DEFINE_string("benchmark", None, "Trained accuracies.", required=True)
    _COLUMN = flags.DEFINE_string("column", "cifar10_test_200", "The column of accuracies.")
    _OUT = flags.DEFINE_string("out", None, "The PNG file to write.", required=True)
    app.run(main)
