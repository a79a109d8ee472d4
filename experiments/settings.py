r"""Scores the same cells at many settings, from tiny to full, and takes the time of each.

The cells are the first of those drawn for `results/scores_cifar10_4500.csv.gz`; equal networks
are scored once. The file has a row for every network and setting; `experiments/settings_tables.py`
makes the table and the plot of docs/fast.md. Settings that the file holds are not scored again.

Command:  python -m experiments.settings --path=cifar10.npz --csv=settings_cifar10.csv

Times are taken in another file, of fewer networks, on a machine that does nothing else:

          python -m experiments.settings --path=cifar10.npz --cells=300 --csv=settings_times.csv
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from absl import app, flags

from epe_nas_jax import (
    BEST_RANKING,
    NasBench201Network,
    ScoringConfig,
    compile_scorer,
    format_arch,
    parse_arch,
)
from epe_nas_jax.data.datasets import draw_fixed_minibatch, load_dataset
from epe_nas_jax.runs import runtime
from epe_nas_jax.scoring.columns import COLUMNS
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead

DRAWN = Path(__file__).parent.parent / "results" / "scores_cifar10_4500.csv.gz"
PROXIES = tuple(name for name in BEST_RANKING if name not in COLUMNS)
# The recommended combination was chosen on every third of so many of them.
CHOSEN_OF, CHOSEN_ON = 1500, 3
_DIGITS = "%.6g"

_PATH = flags.DEFINE_string("path", None, "CIFAR-10.", required=True)
_CELLS = flags.DEFINE_integer("cells", CHOSEN_OF, "How many of the drawn cells.", lower_bound=1)
_CSV = flags.DEFINE_string("csv", None, "Where to write the scores.", required=True)


class Setting(NamedTuple):
    """What a score is computed on; the full setting by default."""

    side: int = 32
    batch_size: int = 256
    cells_per_stage: int = 5
    channels: int = 16
    num_inits: int = 1


FULL = Setting()


def settings() -> Iterator[Setting]:
    """All settings: images and mini-batches, then depth, width and draws of the weights."""
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
    yield FULL


def drawn_cells(num_cells: int = CHOSEN_OF) -> list[str]:
    """The first cells of those drawn, as arch strings."""
    return [str(arch) for arch in pd.read_csv(DRAWN)["arch"][:num_cells]]


def live_forms(archs: Sequence[str]) -> list[str]:
    """The networks of cells: arch strings without dead operations."""
    return [format_arch(cell) for cell in prune_dead(np.array([parse_arch(a) for a in archs]))]


def score(setting: Setting, path: str, networks: Sequence[str]) -> pd.DataFrame:
    """Scores networks at a setting: `arch`, the proxies, and `ms` a network after compiling."""
    dataset = load_dataset("cifar10", path, side=setting.side)
    images, labels = draw_fixed_minibatch(
        jax.random.key(0), dataset, setting.batch_size, augment=False
    )
    scorer = compile_scorer(
        images,
        labels,
        seed=0,
        network=NasBench201Network(
            dataset.num_classes,
            channels=setting.channels,
            cells_per_stage=setting.cells_per_stage,
        ),
        config=ScoringConfig(proxies=PROXIES, num_inits=setting.num_inits),
    )
    start = time.perf_counter()
    table = pd.DataFrame(scorer.proxies(networks), columns=PROXIES)
    milliseconds = 1000 * (time.perf_counter() - start) / len(networks)
    table.insert(0, "arch", networks)
    table.insert(0, "ms", milliseconds)
    for name, value in reversed(setting._asdict().items()):
        table.insert(0, name, value)
    print(f"{setting}: {milliseconds:.1f} ms a network", flush=True)
    return table


def main(argv: Sequence[str]) -> None:
    """Scores the cells and writes the table after every setting."""
    del argv
    runtime.prepare()
    networks = list(dict.fromkeys(live_forms(drawn_cells(_CELLS.value))))
    path = Path(_CSV.value)
    tables = [pd.read_csv(path)] if path.exists() else []
    done = set(map(tuple, tables[0][list(Setting._fields)].to_numpy())) if tables else set()
    for setting in settings():
        if tuple(setting) not in done:
            tables.append(score(setting, _PATH.value, networks))
            pd.concat(tables).to_csv(path, index=False, float_format=_DIGITS)


if __name__ == "__main__":
    app.run(main)
