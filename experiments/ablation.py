r"""Scores the same cells several times, with one thing changed at a time.

Other weights, another mini-batch, both; weights of their own for every cell; a class-balanced
mini-batch; smaller and larger ones; other images; float64. The file has a row for every cell and
variant; `experiments/ranking.py` makes the tables, and means over several draws of the weights from
the variants `weights_*`.

Command:  python -m experiments.ablation --path=cifar10.npz --cifar100=cifar100.npz \
              --cells=200 --csv=ablation_cifar10.csv
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import app, flags

from epe_nas_jax import NasBench201Network, ScoringConfig, compile_scorer, format_arch
from epe_nas_jax.data.datasets import Dataset, draw_fixed_minibatch, load_dataset
from epe_nas_jax.runs import runtime
from epe_nas_jax.spaces.nasbench201.genotype import sample

_PATH = flags.DEFINE_string("path", None, "CIFAR-10.", required=True)
_CIFAR100 = flags.DEFINE_string("cifar100", "", "CIFAR-100; without it, its variant is left out.")
_CELLS = flags.DEFINE_integer("cells", 200, "How many uniformly drawn cells.", lower_bound=1)
_CSV = flags.DEFINE_string("csv", None, "Where to write the scores.", required=True)

_PROXIES = ("epe", "jacob_cov", "nwot", "grad_entropy", "grad_decay")
_NUM_WEIGHTS = 8
_BATCH = 256
# Side in pixels of the squares that blurring averages over.
_BLUR = 4

Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Variant(NamedTuple):
    """One variant: what differs from the first one."""

    name: str
    dataset: str = "cifar10"
    weights_seed: int = 0
    batch_seed: int = 0
    batch: int = _BATCH
    balanced: bool = False
    init: str = "shared"
    double: bool = False
    change: Change | None = None


def variants() -> Iterator[Variant]:
    """All variants; the first is what the others are compared with."""
    for seed in range(_NUM_WEIGHTS):
        yield Variant(f"weights_{seed}", weights_seed=seed)
    yield Variant("other_batch", batch_seed=1)
    yield Variant("other_weights_and_batch", weights_seed=1, batch_seed=1)
    yield Variant("independent_weights", init="independent")
    yield Variant("balanced_batch", balanced=True)
    for batch in (32, 64, 128, 512):
        yield Variant(f"batch_{batch}", batch=batch)
    yield Variant("noise", change=noise)
    yield Variant("blurred", change=blurred)
    yield Variant("half_class_mean", change=half_class_mean)
    yield Variant("digits", dataset="digits")
    if _CIFAR100.value:
        yield Variant("cifar100", dataset="cifar100")
    yield Variant("float64", double=True)


def noise(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Gaussian noise instead of images; the labels stay."""
    del labels
    return np.random.default_rng(0).normal(size=images.shape)


def blurred(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Every square of 4x4 pixels in its mean colour."""
    del labels
    n, side, _, colours = images.shape
    squares = images.reshape(n, side // _BLUR, _BLUR, side // _BLUR, _BLUR, colours)
    mean = squares.mean(axis=(2, 4))
    return mean.repeat(_BLUR, axis=1).repeat(_BLUR, axis=2)


def half_class_mean(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean of every image and the mean image of its class in the mini-batch."""
    means = {label: images[labels == label].mean(axis=0) for label in np.unique(labels)}
    return (images + np.stack([means[label] for label in labels])) / 2


def score(variant: Variant, dataset: Dataset, cells: np.ndarray) -> np.ndarray:
    """The proxies `[A, P]` of cells `[A, E]`."""
    dtype = jnp.float64 if variant.double else jnp.float32
    with jax.enable_x64(variant.double):
        drawn = draw_fixed_minibatch(
            jax.random.key(variant.batch_seed),
            dataset,
            variant.batch,
            augment=False,
            class_balanced=variant.balanced,
        )
        images, labels = map(np.asarray, drawn)
        if variant.change is not None:
            images = variant.change(images, labels)
        scorer = compile_scorer(
            images.astype(dtype),
            labels,
            seed=variant.weights_seed,
            network=NasBench201Network(dataset.num_classes, param_dtype=dtype),
            config=ScoringConfig(init=variant.init, proxies=_PROXIES),
            progress=True,
        )
        return scorer.proxies(cells)


def main(argv: Sequence[str]) -> None:
    """Scores the cells and writes the table after every variant."""
    del argv
    runtime.prepare()
    datasets = {
        "cifar10": load_dataset("cifar10", _PATH.value),
        "digits": load_dataset("digits", ""),
    }
    if _CIFAR100.value:
        datasets["cifar100"] = load_dataset("cifar100", _CIFAR100.value)
    cells = np.asarray(sample(jax.random.key(0), _CELLS.value))
    tables = []
    for variant in variants():
        start = time.perf_counter()
        table = pd.DataFrame(score(variant, datasets[variant.dataset], cells), columns=_PROXIES)
        table.insert(0, "arch", [format_arch(cell) for cell in cells])
        table.insert(0, "variant", variant.name)
        tables.append(table)
        print(f"{variant.name}: {time.perf_counter() - start:.0f} s", flush=True)
        pd.concat(tables).to_csv(Path(_CSV.value), index=False, float_format="%.9g")


if __name__ == "__main__":
    app.run(main)
