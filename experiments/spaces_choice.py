r"""Chooses one sum of signals for all search spaces (docs/spaces-ranked.md).

The rule: of all sums of up to five columns that whose mean Spearman with accuracy is highest, over
500 cells of NAS-Bench-201 by CIFAR-10 and the 500 rows of NAS-Bench-Suite-Zero's table of
NAS-Bench-101. Prints the best sums, and of each number of columns the best. What is chosen is
reported on all other cells and spaces (`experiments/spaces_tables.py`).

Command:  python -m experiments.spaces_choice --nasbench201=nasbench201.csv.gz \
              --nasbench101=nasbench101_zc_500.csv.gz
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from absl import app, flags
from scipy import stats

from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
from experiments.choice import CHOSEN_ON, combined, drawn_cells
from experiments.spaces import COUNTS, SIGNALS, read_scores, texts_of

COLUMNS = (*SIGNALS, *COUNTS)
_MOST_COLUMNS = 5
_RESULTS = Path(__file__).parent.parent / "results"
_SHOWN = 8

_NB201 = flags.DEFINE_string("nasbench201", None, "Trained accuracies.", required=True)
_NB101 = flags.DEFINE_string("nasbench101", None, "Trained accuracies.", required=True)


class Sample(NamedTuple):
    """Cells on which a sum is chosen.

    Attributes:
      name: of their space.
      scores: a column a signal, a row a cell.
      accuracies: `[A]`.
    """

    name: str
    scores: pd.DataFrame
    accuracies: np.ndarray


def main(argv: Sequence[str]) -> None:
    """Prints the tables as Markdown."""
    del argv
    samples = (nasbench201(), nasbench101())
    sums = [
        names
        for number in range(1, _MOST_COLUMNS + 1)
        for names in itertools.combinations(COLUMNS, number)
    ]
    found = {names: [correlation(sample, names) for sample in samples] for names in sums}
    by_mean = sorted(sums, key=lambda names: -np.mean(found[names]))
    of_number = [
        next(names for names in by_mean if len(names) == number)
        for number in range(1, _MOST_COLUMNS + 1)
    ]
    heads = ["sum", *(sample.name for sample in samples), "mean"]
    for title, some in (("the best sums", by_mean[:_SHOWN]), ("the best of each size", of_number)):
        rows = [
            [
                " + ".join(names),
                *(f"{value:.3f}" for value in (*found[names], np.mean(found[names]))),
            ]
            for names in some
        ]
        print(as_markdown(Table(f"{title}, of {len(sums)}: Spearman", heads, rows)), end="\n\n")


def nasbench201() -> Sample:
    """The 500 cells on which rankings of NAS-Bench-201 were chosen."""
    archs = drawn_cells()[::CHOSEN_ON]
    scores = read_scores(str(_RESULTS / "space_cifar10_fast.csv.gz"), archs, "nasbench201")
    by_arch = read_accuracies(_NB201.value, "cifar10_test_200", space=NASBENCH201)
    return Sample("NAS-Bench-201", scores, np.array([by_arch[arch] for arch in archs]))


def nasbench101() -> Sample:
    """The 500 rows of the published table, which has some cells more than once."""
    trained = pd.read_csv(_NB101.value)
    path = str(_RESULTS / "nasbench101_zc_fast.csv.gz")
    scores = read_scores(path, texts_of(trained, "nasbench101"), "nasbench101")
    return Sample("NAS-Bench-101", scores, trained["val_accuracy"].to_numpy(np.float64))


def correlation(sample: Sample, names: Sequence[str]) -> float:
    """Spearman's rho of a sum with accuracy."""
    return float(stats.spearmanr(combined(sample.scores, names), sample.accuracies).statistic)


if __name__ == "__main__":
    app.run(main)
