r"""Chooses one sum of signals for all search spaces (docs/spaces-ranked.md).

The rule: of all sums of up to five columns, take the one with the highest mean Spearman with
accuracy over 500 cells of NAS-Bench-201 by CIFAR-10 and 500 of 2,000 drawn cells of NAS-Bench-101.
Prints the best sums, the best one for each number of columns, and how the first one ranks the other
cells of both spaces. `experiments/spaces_tables.py` reports it on all spaces.

Command:  python -m experiments.spaces_choice --nasbench201=nasbench201.csv.gz \
              --nasbench101=nasbench101.csv.gz
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from absl import app, flags

from epe_nas_jax import BEST_RANKING
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.spaces.nasbench101.space import NASBENCH101
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
from experiments.choice import CHOSEN_ON, combined, drawn_cells
from experiments.spaces import COUNTS, SIGNALS, read_scores, spearman

COLUMNS = (*SIGNALS, *COUNTS)
_MOST_COLUMNS = 5
_RESULTS = Path(__file__).parent.parent / "results"
_SHOWN = 8
# Of NAS-Bench-101, a sum is chosen on every fourth drawn cell.
_CHOSEN_ON_101 = 4

_NB201 = flags.DEFINE_string("nasbench201", None, "Trained accuracies.", required=True)
_NB101 = flags.DEFINE_string("nasbench101", None, "Trained accuracies.", required=True)


class Sample(NamedTuple):
    """Cells on which a sum is chosen, or on which it is tested.

    Attributes:
      name: name of their space.
      scores: a row per cell and a column per signal.
      accuracies: `[A]`.
    """

    name: str
    scores: pd.DataFrame
    accuracies: np.ndarray

    def only(self, rows: np.ndarray) -> "Sample":
        """The cells for which `rows`, bool `[A]`, is true."""
        return Sample(self.name, self.scores[rows], self.accuracies[rows])


def main(argv: Sequence[str]) -> None:
    """Prints the tables as Markdown."""
    del argv
    parts = nasbench201(), nasbench101()
    samples = [sample.only(is_chosen_on) for sample, is_chosen_on in parts]
    rest = [sample.only(~is_chosen_on) for sample, is_chosen_on in parts]
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
    for title, some in (("the best sums", by_mean[:_SHOWN]), ("the best of each size", of_number)):
        print_table(f"{title}, of {len(sums)}", samples, {names: found[names] for names in some})
    compared = (by_mean[0], BEST_RANKING, ("live_params",))
    values = {names: [correlation(sample, names) for sample in rest] for names in compared}
    print_table("the cells on which nothing was chosen", rest, values)


def print_table(
    title: str, samples: Sequence[Sample], found: Mapping[tuple[str, ...], list[float]]
) -> None:
    """Prints the Spearman of some sums in each sample, and its mean."""
    heads = ["sum", *(f"{s.name}, {len(s.scores)} cells" for s in samples), "mean"]
    rows = [
        [" + ".join(names), *(f"{value:.3f}" for value in (*values, np.mean(values)))]
        for names, values in found.items()
    ]
    print(as_markdown(Table(f"{title}: Spearman", heads, rows)), end="\n\n")


def nasbench201() -> tuple[Sample, np.ndarray]:
    """All cells, and which of them are the 500 on which rankings of NAS-Bench-201 were chosen."""
    path = str(_RESULTS / "space_cifar10_fast.csv.gz")
    archs = [str(arch) for arch in pd.read_csv(path)["arch"]]
    by_arch = read_accuracies(_NB201.value, "cifar10_test_200", space=NASBENCH201)
    accuracies = np.array([by_arch[arch] for arch in archs])
    sample = Sample("NAS-Bench-201", read_scores(path, archs, "nasbench201"), accuracies)
    return sample, np.isin(archs, drawn_cells()[::CHOSEN_ON])


def nasbench101() -> tuple[Sample, np.ndarray]:
    """The drawn cells that were trained, and which of them are every fourth one."""
    path = str(_RESULTS / "nasbench101_fast.csv.gz")
    by_arch = read_accuracies(_NB101.value, "val_108", space=NASBENCH101)
    archs = [arch for arch in pd.read_csv(path)["arch"] if arch in by_arch]
    accuracies = np.array([by_arch[arch] for arch in archs])
    sample = Sample("NAS-Bench-101", read_scores(path, archs, "nasbench101"), accuracies)
    return sample, np.arange(len(archs)) % _CHOSEN_ON_101 == 0


def correlation(sample: Sample, names: Sequence[str]) -> float:
    """Spearman's rho of a sum with accuracy."""
    return spearman(combined(sample.scores, names), sample.accuracies)


if __name__ == "__main__":
    app.run(main)
