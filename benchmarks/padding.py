r"""How much of an accelerator's steps is padding: places of groups that hold no cell.

On a GPU an operation of an edge runs once for all cells of a step that have it there, in a group of
fixed size. Steps are packed so that groups are full; empty places are computed all the same. They
are counted, not timed, so that no accelerator is needed. Populations are those of searches by the
committed scores of the whole space.

Command:  python -m benchmarks.padding
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from absl import app, flags

from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.scoring.packing import in_vain, pack, uniform_packer
from epe_nas_jax.search import algorithms, ranking
from epe_nas_jax.spaces.base import Cells
from epe_nas_jax.spaces.nasbench201.genotype import (
    OPERATIONS,
    encode,
    every_genotype,
    parse_arch,
    prune_dead,
    sample,
)
from epe_nas_jax.spaces.nasbench201.operations import GROUP_WORK
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

_STEP = flags.DEFINE_integer("cells_per_step", 64, "Cells of a device in a step.", lower_bound=1)
_SCORES = flags.DEFINE_string("scores", "results/space_cifar10_fast.csv.gz", "Scores of all cells.")

_OPERATIONS = ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
_CHILDREN = 24
_RANKED_BY = ("jacob_cov", "nwot", "grad_entropy", "grad_decay", "live_params")


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    # Samples other than those for which the steps were designed.
    uniform, another = (np.asarray(sample(jax.random.key(seed), 1000)) for seed in (100, 101))
    convolutions = every_genotype()
    is_convolution = np.isin(convolutions, [OPERATIONS.index(name) for name in _OPERATIONS[:2]])
    asked = populations(Path(_SCORES.value))
    evolved = np.concatenate(asked)
    lists = {
        "1,000 uniform cells": [uniform],
        "1,000 others": [another],
        "300 uniform cells": [uniform[:300]],
        "all cells of convolutions only": [convolutions[is_convolution.all(axis=1)]],
        "the whole space": [every_genotype()],
        "an evolution of 1,000 cells, as one list": [evolved],
        "the same, step by step": asked,
    }
    rows = [row_of(name, cells) for name, cells in lists.items()]
    header = ["cells", "networks", "steps", *(f"{name} wasted" for name in _OPERATIONS)]
    print(as_markdown(Table("", header, rows)))


def live_forms(cells: Cells) -> np.ndarray:
    """The different networks among cells `[A, E]`."""
    return np.unique(prune_dead(np.asarray(cells)), axis=0)


def row_of(name: str, lists: Sequence[np.ndarray]) -> list[str]:
    """A row of the table: lists of cells, which are scored one after another."""
    different = [live_forms(cells) for cells in lists]
    num_together = None if len(different) == 1 else _CHILDREN
    packer = uniform_packer(NASBENCH201, live_forms, GROUP_WORK, num_together)
    profiles = packer.profiles(_STEP.value)
    networks = np.concatenate(different)
    rounds = [done for cells in different for done in pack(cells, profiles, GROUP_WORK)]
    shares = [
        f"{in_vain(networks, rounds, OPERATIONS.index(name)):.1%}"
        if (networks == OPERATIONS.index(name)).any()
        else ""
        for name in _OPERATIONS
    ]
    return [name, f"{len(networks):,}", f"{len(rounds):,}", *shares]


def populations(path: Path) -> list[np.ndarray]:
    """The networks that each step of an evolution asks for, except those asked for before."""
    table = pd.read_csv(path)
    codes = encode(np.stack([parse_arch(arch) for arch in table["arch"]]))
    sums = ranking.log_rank_sum(table[list(_RANKED_BY)].to_numpy())
    scores = dict(zip(np.asarray(codes).tolist(), sums, strict=True))
    asked: list[np.ndarray] = []
    seen: set[bytes] = set()

    def score(cells: np.ndarray) -> np.ndarray:
        networks = live_forms(cells)
        new = [network for network in networks if network.tobytes() not in seen]
        seen.update(network.tobytes() for network in new)
        if new:
            asked.append(np.stack(new))
        return np.array([scores[code] for code in np.asarray(encode(cells)).tolist()])

    algorithm = algorithms.evolution(
        population=30, tournament=10, candidates_per_step=_CHILDREN, space=NASBENCH201
    )
    algorithms.run(algorithm, jax.random.key(0), score, 1000)
    return asked


if __name__ == "__main__":
    app.run(main)
