"""The settings that `settings_scores.py` scores at, and the cells that it scores.

The cells are the first of those drawn for `results/scores_cifar10_4500.csv.gz`; on every third of
them the recommended combination was chosen.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from epe_nas_jax import BEST_RANKING, format_arch, parse_arch
from epe_nas_jax.scoring.columns import COLUMNS
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead

DRAWN = Path(__file__).parent.parent / "results" / "scores_cifar10_4500.csv.gz"
PROXIES = tuple(name for name in BEST_RANKING if name not in COLUMNS)
CHOSEN_OF, CHOSEN_ON = 1500, 3


class Setting(NamedTuple):
    """What a score is computed on; the full setting by default."""

    side: int = 32
    batch_size: int = 256
    cells_per_stage: int = 5
    channels: int = 16
    num_inits: int = 1


FULL = Setting()


def settings() -> Iterator[Setting]:
    """All settings but the full one: images, then depth, width and draws of the weights."""
    batch_sizes = {4: (16, 32, 64, 256), 8: (16, 32, 64, 128), 16: (32, 64), 32: (32,)}
    for side, sizes in batch_sizes.items():
        for batch_size in sizes:
            yield Setting(side, batch_size)
    for cells_per_stage in (1, 2, 3):
        yield Setting(8, 32, cells_per_stage)
    yield Setting(16, 64, cells_per_stage=2)
    for side, batch_size in ((8, 32), (8, 64), (16, 64)):
        yield Setting(side, batch_size, channels=8)
    yield Setting(4, 32, num_inits=2)
    yield Setting(8, 16, num_inits=2)
    yield Setting(8, 32, channels=8, num_inits=2)
    yield Setting(8, 32, num_inits=2)
    yield Setting(8, 32, num_inits=4)


def drawn_cells(num_cells: int = CHOSEN_OF) -> list[str]:
    """The first cells of those drawn, as arch strings."""
    return [str(arch) for arch in pd.read_csv(DRAWN)["arch"][:num_cells]]


def live_forms(archs: Sequence[str]) -> list[str]:
    """The networks of cells: arch strings without dead operations."""
    return [format_arch(cell) for cell in prune_dead(np.array([parse_arch(a) for a in archs]))]
