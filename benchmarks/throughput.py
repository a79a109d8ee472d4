"""Seconds a cell beside PyTorch's: the same cells and mini-batch, on the CPU, in turns.

Each side has a process of its own, as its users run it: in one process PyTorch would profit from
memory that JAX has already taken from the system.

Command:  python benchmarks/throughput.py --cells=24
"""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import jax
import numpy as np
from absl import app, flags

from epe_nas_jax import Network, pytorch
from epe_nas_jax.batching import CellScorer
from epe_nas_jax.convert import Sizes
from epe_nas_jax.genotype import sample

_CELLS = flags.DEFINE_integer("cells", 20, "Uniformly drawn cells.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 256, "Images in the mini-batch.", lower_bound=2)
_TURNS = flags.DEFINE_integer("turns", 3, "How often each side scores a cell.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    rng = np.random.default_rng(0)
    images = rng.normal(size=(_BATCH.value, 32, 32, 3)).astype(np.float32)
    labels = rng.integers(0, 10, _BATCH.value)
    cells = np.asarray(sample(jax.random.key(0), _CELLS.value))
    sizes = Sizes(channels=16, cells_per_stage=5, num_classes=10)
    scorer = CellScorer(images, labels, seed=0, network=Network(10))
    start = time.perf_counter()
    scorer.compile()
    compile_seconds = time.perf_counter() - start

    seconds: dict[str, list[float]] = {"ours": [], "as released": [], "at its best": []}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as torch_process:
        for turn in range(_TURNS.value + 1):
            for first in range(0, len(cells), scorer.cells_per_step):
                step = cells[first : first + scorer.cells_per_step]
                start = time.perf_counter()
                scorer(step)
                values = {"ours": (time.perf_counter() - start) / len(step)}
                for name in ("as released", "at its best"):
                    best = name == "at its best"
                    runs = [
                        torch_process.submit(
                            pytorch.run_cell, cell, images, sizes=sizes, at_its_best=best
                        )
                        for cell in step
                    ]
                    values[name] = float(np.mean([run.result().seconds for run in runs]))
                if turn > 0:  # The first turn warms both sides up.
                    for name, value in values.items():
                        seconds[name].append(value)

    print(f"{len(cells)} cells, {_BATCH.value} images")
    print(f"compiling ours: {compile_seconds:.1f} s, not counted below")
    ours = np.median(seconds["ours"])
    for name, values in seconds.items():
        low, middle, high = np.percentile(values, [25, 50, 75])
        label = name if name == "ours" else f"PyTorch {name}"
        print(
            f"{label:<20} {middle:6.3f} s a cell ({low:.3f} to {high:.3f}), {middle / ours:.2f} x"
        )


if __name__ == "__main__":
    app.run(main)
