r"""Scores the same cells again and again, with one thing changed at a time.

Other weights, another mini-batch, both; weights of their own for every cell; a class-balanced
mini-batch; smaller and larger ones; the mean over several draws of the weights. One column each,
for `benchmarks/agreement.py`.

Command:  python benchmarks/noise.py --dataset=cifar10 --path=cifar10.npz --cells=300 \
              --csv=noise_cifar10.csv
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from absl import app, flags

from epe_nas_jax import Network, Protocol, format_arch, runtime
from epe_nas_jax.batching import CellScorer
from epe_nas_jax.data import draw_fixed_minibatch, load_dataset
from epe_nas_jax.genotype import sample

_DATASET = flags.DEFINE_string("dataset", "digits", "Name of the data set.")
_PATH = flags.DEFINE_string("path", "", "Its file.")
_CELLS = flags.DEFINE_integer("cells", 300, "How many uniformly drawn cells.")
_BATCH = flags.DEFINE_integer("batch", 256, "Images in a mini-batch.")
_CSV = flags.DEFINE_string("csv", None, "Where to write the scores.", required=True)


class _Variant(NamedTuple):
    """What differs from the first column."""

    name: str
    weights_seed: int = 0
    batch_seed: int = 0
    batch: float = 1
    balanced: bool = False
    protocol: Protocol = Protocol()


def variants() -> Iterator[_Variant]:
    """All columns; the first is what the others are compared with."""
    yield _Variant("score")
    yield _Variant("other_weights", weights_seed=1)
    yield _Variant("other_batch", batch_seed=1)
    yield _Variant("both_other", weights_seed=1, batch_seed=1)
    yield _Variant("independent_weights", protocol=Protocol(init="independent"))
    yield _Variant("balanced_batch", balanced=True)
    yield _Variant("quarter_batch", batch=1 / 4)
    yield _Variant("double_batch", batch=2)
    yield _Variant("4_inits", weights_seed=2, protocol=Protocol(num_inits=4))


def main(argv: Sequence[str]) -> None:
    """Scores the cells and writes the table after every variant."""
    del argv
    runtime.prepare()
    dataset = load_dataset(_DATASET.value, _PATH.value)
    cells = np.asarray(sample(jax.random.key(0), _CELLS.value))
    table = pd.DataFrame({"arch": [format_arch(cell) for cell in cells]})
    for variant in variants():
        images, labels = draw_fixed_minibatch(
            jax.random.key(variant.batch_seed),
            dataset,
            int(variant.batch * _BATCH.value),
            augment=False,
            class_balanced=variant.balanced,
        )
        scorer = CellScorer(
            images,
            labels,
            seed=variant.weights_seed,
            network=Network(dataset.num_classes),
            protocol=variant.protocol,
            progress=True,
        )
        start = time.perf_counter()
        table[variant.name] = scorer(cells)
        print(f"{variant.name}: {time.perf_counter() - start:.0f} s", flush=True)
        table.to_csv(Path(_CSV.value), index=False, float_format="%.9g")


if __name__ == "__main__":
    app.run(main)
