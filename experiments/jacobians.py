r"""Where the input Jacobian's signals fail, one change at a time (docs/spaces-ranked.md).

Scores the same cells of NAS-Bench-101 by `epe` and `jacob_cov` several times, each time with one
thing changed: images, their number, depth, channels. It also ranks groups of the cells that were
scored at the fast setting: those with the same number of 3x3 convolutions, and those with and
without max pools. And it prints the `jacob_cov` of unrelated Jacobians, made of normal numbers.

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

from epe_nas_jax import score_table
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.data.datasets import draw_fixed_minibatch, load_dataset
from epe_nas_jax.proxies.jacobian_proxies import jacob_cov_score
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.runs import runtime
from epe_nas_jax.search import ranking
from epe_nas_jax.seeds import generator
from epe_nas_jax.spaces.nasbench101.space import NASBENCH101
from epe_nas_jax.spaces.table import space_entry
from experiments.choice import unscored_last
from experiments.spaces import spearman

_SCORES = Path(__file__).parent.parent / "results" / "nasbench101_fast.csv.gz"
_SIGNALS = ("epe", "jacob_cov")
_CONV, _POOL = "conv3x3-bn-relu", "maxpool3x3"
# For fewer cells no correlation is printed.
_FEWEST = 10

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
    fast = pd.read_csv(_SCORES).set_index("arch")
    fast = fast[fast.index.isin(by_arch)]
    accuracies = pd.Series({arch: by_arch[arch] for arch in fast.index})
    archs = list(fast.index)[:: len(fast) // _CELLS.value][: _CELLS.value]
    changed = [
        [setting.name, *correlations(scored(archs, setting), accuracies[archs])]
        for setting in SETTINGS
    ]
    heads = ["changed", *_SIGNALS]
    title = f"Spearman with accuracy, {len(archs)} cells, one thing changed"
    print(as_markdown(Table(title, heads, changed)), end="\n\n")
    print(as_markdown(splits_table(fast, accuracies)), end="\n\n")
    print(as_markdown(noise_table()))


def splits_table(scores: pd.DataFrame, accuracies: pd.Series) -> Table:
    """Accuracy and signals of cells by number of 3x3 convolutions, and with and without pools."""
    convs = np.array([arch.count(_CONV) for arch in scores.index])
    has_pool = np.array([_POOL in arch for arch in scores.index])
    groups = {f"{number} convolutions 3x3": convs == number for number in np.unique(convs)}
    groups = {"all": convs >= 0, **groups, "no max pool": ~has_pool, "max pools": has_pool}
    rows = []
    for name, some in groups.items():
        medians = (
            accuracies[some].median(),
            *(scores[signal][some].median() for signal in _SIGNALS),
        )
        rows.append(
            [
                name,
                str(some.sum()),
                *(f"{median:.2f}" for median in medians),
                *correlations(scores[some], accuracies[some]),
            ]
        )
    heads = ["cells", "number", *(f"median {name}" for name in ("accuracy", *_SIGNALS))]
    title = "Spearman with accuracy at the fast setting"
    return Table(title, [*heads, *_SIGNALS], rows)


def noise_table() -> Table:
    """The `jacob_cov` of normal numbers instead of Jacobians, for 32 images of several sides."""
    rng = generator(0)
    rows = []
    for side in (8, 16, 32):
        noise = rng.normal(size=(32, side * side * 3)).astype(np.float32)
        rows.append([f"{side}x{side}", f"{float(jacob_cov_score(jnp.asarray(noise))):.2f}"])
    return Table("unrelated Jacobians of 32 images", ["pixels", "jacob_cov"], rows)


def scored(archs: Sequence[str], setting: Setting) -> pd.DataFrame:
    """The cells' signals, by cell."""
    dataset = load_dataset("cifar10", _PATH.value, side=setting.side)
    images, labels = draw_fixed_minibatch(jax.random.key(0), dataset, setting.batch, augment=False)
    network = space_entry("nasbench101").make_network(
        10, setting.channels, setting.cells_per_stage, jnp.dtype(jnp.float32)
    )
    table = score_table(archs, images, labels, columns=_SIGNALS, network=network, progress=True)
    return table.set_index("arch").loc[list(archs)]


def correlations(scores: pd.DataFrame, accuracies: pd.Series) -> list[str]:
    """Spearman of each signal with accuracy, and an interval; nothing for fewer than ten cells."""
    if len(scores) < _FEWEST:
        return [""] * len(_SIGNALS)
    found = (
        ranking.with_interval(
            spearman,
            unscored_last(scores[name].to_numpy()),
            accuracies.to_numpy(),
            num_resamples=200,
        )
        for name in _SIGNALS
    )
    return [f"{rho.value:.3f} ({rho.low:.2f} to {rho.high:.2f})" for rho in found]


if __name__ == "__main__":
    app.run(main)
