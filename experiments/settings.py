"""The settings at which `settings_scores.py` scores cells, and the networks that it scores."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from epe_nas_jax import BEST_RANKING, format_arch, parse_arch
from epe_nas_jax.scoring.columns import COLUMNS
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead

PROXIES = tuple(name for name in BEST_RANKING if name not in COLUMNS)


class Setting(NamedTuple):
    """Images, network and draws by which a cell is scored; by default the full setting."""

    side: int = 32
    batch_size: int = 256
    cells_per_stage: int = 5
    channels: int = 16
    num_inits: int = 1


FULL = Setting()


def settings() -> Iterator[Setting]:
    """All settings except the full one: images, then depth, width and draws of the weights."""
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


def live_forms(archs: Sequence[str]) -> list[str]:
    """The networks of cells: arch strings without dead operations."""
    return [format_arch(cell) for cell in prune_dead(np.array([parse_arch(a) for a in archs]))]
