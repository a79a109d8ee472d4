"""Shared by experiments on the choice of a ranking: cells, accuracies, and scores of sums."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from epe_nas_jax.search import ranking

DRAWN = Path(__file__).parent.parent / "results" / "scores_cifar10_4500.csv.gz"
# The recommended combination was chosen on every third of the first 1,500 drawn cells.
CHOSEN_OF, CHOSEN_ON = 1500, 3
# Columns of the benchmark.
ACCURACIES = {
    "CIFAR-10": "cifar10_test_200",
    "CIFAR-100": "cifar100_test_200",
    "ImageNet16-120": "imagenet16_test_200",
}


def drawn_cells(num_cells: int = CHOSEN_OF) -> list[str]:
    """The first of the drawn cells, as arch strings."""
    return [str(arch) for arch in pd.read_csv(DRAWN)["arch"][:num_cells]]


def unscored_last(scores: np.ndarray) -> np.ndarray:
    """Scores in which cells without a score are worse than all others."""
    return np.where(np.isnan(scores), -np.inf, scores)


def combined(signals: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Sums of log ranks among the given cells, `[A]`; cells that lack a signal come last."""
    return unscored_last(ranking.log_rank_sum(signals[list(names)].to_numpy()))
