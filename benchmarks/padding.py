r"""What an accelerator's steps run in vain: 3x3 convolutions of blocks that are partly idle.

A step's cells are sorted by operation on every edge, and an operation runs over its cells in
blocks; the last block of each is padded. Counted, not timed: no accelerator is needed.

Command:  python -m benchmarks.padding
"""

from collections.abc import Sequence

import jax
import numpy as np
from absl import app, flags

from epe_nas_jax.scoring.planning import assign_slots
from epe_nas_jax.spaces.layers.grouped_switch import block_size
from epe_nas_jax.spaces.nasbench201.genotype import (
    OPERATIONS,
    every_genotype,
    prune_dead,
    relative_work,
    sample,
)

_STEP = flags.DEFINE_integer("cells_per_step", 64, "Cells of a device in a step.", lower_bound=1)


def run_and_needed(networks: np.ndarray, cells_per_step: int) -> tuple[int, int]:
    """3x3 convolutions that one device runs for networks `[A, E]`, and those that they have."""
    block = block_size(cells_per_step)
    index = OPERATIONS.index("nor_conv_3x3")
    run = 0
    for start in range(0, len(networks), cells_per_step):
        step = networks[start : start + cells_per_step]
        order = assign_slots(relative_work(step), 1, cells_per_step)
        placed = step[order[order < len(step)]]
        counts = np.sum(placed == index, axis=0)
        run += int(np.sum(-(-counts // block) * block))
    return run, int(np.sum(networks == index))


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    uniform = prune_dead(np.asarray(sample(jax.random.key(0), 1000)))
    lists = {
        "1,000 uniform cells": np.unique(uniform, axis=0),
        "1,000 copies of one cell, weights of their own": np.tile(uniform[:1] * 0 + 3, (1000, 1)),
        "the whole space": np.unique(prune_dead(every_genotype()), axis=0),
    }
    print(f"{'':<48}{'networks':>9}{'steps':>7}{'3x3 needed':>12}{'run':>8}{'in vain':>9}")
    for name, networks in lists.items():
        run, needed = run_and_needed(networks, _STEP.value)
        steps = -(-len(networks) // _STEP.value)
        waste = run / needed - 1
        print(f"{name:<48}{len(networks):>9}{steps:>7}{needed:>12}{run:>8}{waste:>9.1%}")


if __name__ == "__main__":
    app.run(main)
