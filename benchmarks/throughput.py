r"""Seconds a cell beside PyTorch's: the same cells and mini-batch, on the CPU, in turns.

Command:  python benchmarks/throughput.py --cells=20
"""

import time
from collections.abc import Sequence

import jax
import numpy as np
import torch
from absl import app, flags
from xautodl.models.cell_infers import TinyNetwork
from xautodl.models.cell_searchs.genotypes import Structure

from epe_nas_jax import Network, format_arch
from epe_nas_jax.batching import CellScorer
from epe_nas_jax.genotype import sample

_CELLS = flags.DEFINE_integer("cells", 20, "Uniformly drawn cells.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 256, "Images in the mini-batch.", lower_bound=2)
_TURNS = flags.DEFINE_integer("turns", 3, "How often each side scores a cell.", lower_bound=1)


def torch_seconds(genotype: np.ndarray, images: np.ndarray, *, best: bool) -> float:
    """Seconds of one forward and backward pass: as released, or PyTorch at its best."""
    network = TinyNetwork(16, 5, Structure.str2structure(format_arch(genotype)), 10)
    x = torch.tensor(images.transpose(0, 3, 1, 2))
    if best:
        network = network.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
        network.requires_grad_(False)
    x.requires_grad_(True)
    start = time.perf_counter()
    _, logits = network(x)
    logits.backward(torch.ones_like(logits))
    return time.perf_counter() - start


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    rng = np.random.default_rng(0)
    images = rng.normal(size=(_BATCH.value, 32, 32, 3)).astype(np.float32)
    labels = rng.integers(0, 10, _BATCH.value)
    cells = np.asarray(sample(jax.random.key(0), _CELLS.value))
    scorer = CellScorer(images, labels, seed=0, network=Network(10))
    start = time.perf_counter()
    scorer.compile()
    compile_seconds = time.perf_counter() - start
    torch_seconds(cells[0], images, best=False)

    seconds: dict[str, list[float]] = {"ours": [], "as released": [], "at its best": []}
    for _ in range(_TURNS.value):
        for first in range(0, len(cells), scorer.cells_per_step):
            step = cells[first : first + scorer.cells_per_step]
            start = time.perf_counter()
            scorer(step)
            seconds["ours"].append((time.perf_counter() - start) / len(step))
            for name in ("as released", "at its best"):
                best = name == "at its best"
                each = [torch_seconds(cell, images, best=best) for cell in step]
                seconds[name].append(float(np.mean(each)))

    print(f"{len(cells)} cells, {_BATCH.value} images, {torch.get_num_threads()} threads")
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
