r"""How long a score takes in each search space, compared with its arithmetic.

The same number of cells of every space is scored by `epe` on one device, in networks of the
benchmarks' sizes, in turns. A multiply-add, as `mflops` counts them, is two operations; the
gradient by the images takes as many operations as the forward pass.

Command:  python -m benchmarks.spaces
"""

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from epe_nas_jax import compile_scorer
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.runs import runtime
from epe_nas_jax.spaces.base import CellNetwork
from epe_nas_jax.spaces.table import SPACES

# Channels of the first stage and cells per stage, as in the benchmarks.
SIZES = {
    "nasbench201": (16, 5),
    "darts": (32, 2),
    "nasbench301": (32, 2),
    "nasbench101": (128, 3),
    "transnas_micro": (64, 2),
    "nats_sss": (8, 1),
}
_CLASSES = 10
_PASSES, _OPERATIONS = 2, 2

_CELLS = flags.DEFINE_integer("cells", 8, "Cells of each space.", lower_bound=1)
_SIDE = flags.DEFINE_integer("side", 32, "Side of the images in pixels.", lower_bound=4)
_BATCH = flags.DEFINE_integer("batch", 32, "Images in the mini-batch.", lower_bound=2)
_TURNS = flags.DEFINE_integer("turns", 3, "How often each is timed.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Prints the table as Markdown."""
    del argv
    runtime.prepare()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(_BATCH.value, _SIDE.value, _SIDE.value, 3)).astype(np.float32)
    labels = np.arange(_BATCH.value) % _CLASSES
    scorers, cells, compiling, gflop = {}, {}, {}, {}
    for name, sizes in SIZES.items():
        network = SPACES[name].make_network(_CLASSES, *sizes, jnp.dtype(jnp.float32))
        start = time.perf_counter()
        scorers[name] = compile_scorer(
            images, labels, seed=0, network=network, devices=jax.devices()[:1]
        )
        cells[name] = cells_of(network)
        scorers[name](cells[name])
        compiling[name] = time.perf_counter() - start
        gflop[name] = gflop_of(network, cells[name])
    seconds: dict[str, list[float]] = {name: [] for name in SIZES}
    for _ in range(_TURNS.value):
        for name, scorer in scorers.items():
            start = time.perf_counter()
            scorer(cells[name])
            seconds[name].append(time.perf_counter() - start)
    per_gflop = {name: 1e3 * np.median(seconds[name]) / gflop[name] for name in SIZES}
    rows = [
        [
            name,
            f"{gflop[name] / _CELLS.value:.2f}",
            f"{compiling[name]:.0f}",
            f"{1e3 * np.median(seconds[name]) / _CELLS.value:.0f}",
            f"{per_gflop[name]:.1f}",
            f"{per_gflop[name] / per_gflop['nasbench201']:.2f}",
        ]
        for name in SIZES
    ]
    heads = ["space", "GFLOP a cell", "compiling, s", "ms a cell", "ms a GFLOP", "times the first"]
    title = f"{_CELLS.value} cells, {_BATCH.value} images of {_SIDE.value}x{_SIDE.value}, one core"
    print(as_markdown(Table(title, heads, rows)))


def cells_of(network: CellNetwork) -> np.ndarray:
    """Different cells of the network's space, drawn at random from those with a path."""
    drawn = np.asarray(network.space.sample(jax.random.key(0), 4 * _CELLS.value))
    live = np.unique(network.space.prune_dead(drawn), axis=0)
    live = live[network.space.has_path(live)]
    chosen = np.random.default_rng(0).permutation(len(live))[: _CELLS.value]
    return live[chosen]


def gflop_of(network: CellNetwork, cells: np.ndarray) -> float:
    """The arithmetic of all these scores."""
    flops = network.cost(cells, side=_SIDE.value, live=True).flops.sum()
    return float(_OPERATIONS * _PASSES * _BATCH.value * flops / 1e9)


if __name__ == "__main__":
    app.run(main)
