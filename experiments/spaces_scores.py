r"""Scores cells of a table of a search space by all signals of one pass (docs/spaces-ranked.md).

The table names each cell in a column `arch` or `genotype`, or by `adjacency` and `ops`. All cells
are scored, or some that are drawn, all different; the accuracies are not read. The network has the
benchmark's sizes.

Command:  python -m experiments.spaces_scores --space=nasbench101 --table=nasbench101.csv.gz \
              --path=cifar10.npz --cells=2000 --csv=nasbench101_fast.csv
"""

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import pandas as pd
from absl import app, flags

from epe_nas_jax import InputError, score_table
from epe_nas_jax.data.datasets import draw_fixed_minibatch, load_dataset
from epe_nas_jax.runs import runtime
from epe_nas_jax.seeds import generator
from epe_nas_jax.spaces.table import space_entry
from experiments.spaces import SIGNALS, SIZES, texts_of

_DIGITS = "%.6g"

_SPACE = flags.DEFINE_enum("space", None, list(SIZES), "The search space.", required=True)
_TABLE = flags.DEFINE_string("table", None, "Cells.", required=True)
_PATH = flags.DEFINE_string("path", None, "CIFAR-10.", required=True)
_CELLS = flags.DEFINE_integer("cells", 0, "How many different cells; 0: all.", lower_bound=0)
_SIDE = flags.DEFINE_integer("side", 8, "Side of the images in pixels.", lower_bound=4)
_BATCH = flags.DEFINE_integer("batch", 32, "Images in the mini-batch.", lower_bound=2)
_CSV = flags.DEFINE_string("csv", None, "Where to write the scores.", required=True)


def main(argv: Sequence[str]) -> None:
    """Writes a row for every cell."""
    del argv
    runtime.prepare()
    entry = space_entry(_SPACE.value)
    texts = dict.fromkeys(texts_of(pd.read_csv(_TABLE.value), _SPACE.value))
    cells = drawn(list(texts), _CELLS.value)
    dataset = load_dataset("cifar10", _PATH.value, side=_SIDE.value)
    images, labels = draw_fixed_minibatch(jax.random.key(0), dataset, _BATCH.value, augment=False)
    network = entry.make_network(*SIZES[_SPACE.value], jnp.dtype(jnp.float32))
    start = time.perf_counter()
    table = score_table(cells, images, labels, columns=SIGNALS, network=network, progress=True)
    seconds = time.perf_counter() - start
    table.drop(columns=["score", "rank"]).to_csv(_CSV.value, index=False, float_format=_DIGITS)
    print(f"{len(cells)} cells, {1e3 * seconds / len(cells):.1f} ms a cell, compiling included")


def drawn(cells: list[str], number: int) -> list[str]:
    """Draws a number of cells, and keeps their order; 0: all."""
    if not number:
        return cells
    if number > len(cells):
        raise InputError(f"cells: found {number}, expected at most {len(cells)}")
    chosen = generator(0).choice(len(cells), number, replace=False)
    return [cells[place] for place in sorted(chosen)]


if __name__ == "__main__":
    app.run(main)
