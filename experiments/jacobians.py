r"""Where the input Jacobian's signals fail, one change at a time (docs/spaces-ranked.md).

Scores the same cells of NAS-Bench-101 by `epe` and `jacob_cov` again and again, each time with one
thing changed: images, their number, depth, channels. And it ranks the cells with and without
max pools apart, and those with as many 3x3 convolutions.

Command:  python -m experiments.jacobians --table=nasbench101.csv.gz --path=cifar10.npz
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import app, flags
from scipy import stats

from epe_nas_jax import score_table
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.data.datasets import draw_fixed_minibatch, load_dataset
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.runs import runtime
from epe_nas_jax.spaces.nasbench101.space import NASBENCH101
from epe_nas_jax.spaces.table import space_entry
from experiments.choice import unscored_last

_SCORES = Path(__file__).parent.parent / "results" / "nasbench101_fast.csv.gz"
_SIGNALS = ("epe", "jacob_cov")
_CONV, _POOL = "conv3x3-bn-relu", "maxpool3x3"

_TABLE = flags.DEFINE_string("table", None, "Trained accuracies.", required=True)
_PATH = flags.DEFINE_string("path", None, "CIFAR-10.", required=True)
_CELLS = flags.DEFINE_integer("cells", 300, "How many cells.", lower_bound=10)


class Setting(NamedTuple):
    """How cells are scored.

    Attributes:
      name: what is changed.
      side: of the images, in pixels.
      batch: how many images.
      channels: of the first stage.
      cells_per_stage: of each of the three stages.
    """

    name: str
    side: int = 8
    batch: int = 32
    channels: int = 128
    cells_per_stage: int = 3


SETTINGS = (
    Setting("the fast setting"),
    Setting("16x16 pixels", side=16),
    Setting("128 images", batch=128),
    Setting("a cell a stage", cells_per_stage=1),
    Setting("16 channels", channels=16),
)


def main(argv: Sequence[str]) -> None:
    """Prints the tables as Markdown."""
    del argv
    runtime.prepare()
    by_arch = read_accuracies(_TABLE.value, "val_108", space=NASBENCH101)
    archs = [arch for arch in pd.read_csv(_SCORES)["arch"] if arch in by_arch]
    archs = archs[:: len(archs) // _CELLS.value][: _CELLS.value]
    accuracies = np.array([by_arch[arch] for arch in archs])
    found = {setting.name: scored(archs, setting) for setting in SETTINGS}
    has_pool = np.array([_POOL in arch for arch in archs])
    groups = {"all": np.ones(len(archs), bool), "no max pool": ~has_pool, "max pools": has_pool}
    heads = ["changed", "signal", *(f"{name}, {rows.sum()} cells" for name, rows in groups.items())]
    table = [
        [
            name,
            signal,
            *(correlation(scores[signal][rows], accuracies[rows]) for rows in groups.values()),
        ]
        for name, scores in found.items()
        for signal in _SIGNALS
    ]
    print(as_markdown(Table("Spearman with accuracy", heads, table)), end="\n\n")
    convs = np.array([arch.count(_CONV) for arch in archs])
    print(as_markdown(by_convolutions(found[SETTINGS[0].name], convs, accuracies)))


def scored(archs: Sequence[str], setting: Setting) -> dict[str, np.ndarray]:
    """The cells' signals."""
    dataset = load_dataset("cifar10", _PATH.value, side=setting.side)
    images, labels = draw_fixed_minibatch(jax.random.key(0), dataset, setting.batch, augment=False)
    network = space_entry("nasbench101").make_network(
        10, setting.channels, setting.cells_per_stage, jnp.dtype(jnp.float32)
    )
    table = score_table(archs, images, labels, columns=_SIGNALS, network=network, progress=True)
    return {name: unscored_last(table[name].to_numpy()) for name in _SIGNALS}


def by_convolutions(
    scores: dict[str, np.ndarray], convs: np.ndarray, accuracies: np.ndarray
) -> Table:
    """Accuracy and signals among cells with as many 3x3 convolutions."""
    rows = []
    for number in np.unique(convs):
        some = convs == number
        medians = (f"{np.median(values[some]):.2f}" for values in (accuracies, *scores.values()))
        within = (correlation(values[some], accuracies[some]) for values in scores.values())
        rows.append([str(number), str(some.sum()), *medians, *within])
    medians_of = (f"median {name}" for name in ("accuracy", *scores))
    heads = ["3x3 convolutions", "cells", *medians_of, *(f"Spearman, {name}" for name in scores)]
    return Table("by the number of 3x3 convolutions", heads, rows)


def correlation(scores: np.ndarray, accuracies: np.ndarray) -> str:
    """Spearman's rho, or nothing for fewer than ten cells."""
    if len(scores) < 10:
        return ""
    return f"{stats.spearmanr(scores, accuracies).statistic:.3f}"


if __name__ == "__main__":
    app.run(main)
