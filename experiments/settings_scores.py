r"""Scores the same cells at many settings, from tiny to full, and measures the time of each.

Equal networks are scored once. The file has a row for every network and setting;
`experiments/settings_tables.py` makes the table and the plot of docs/fast.md. Settings that the
file holds are not scored again. The scores at the full setting are known: there, a few networks are
enough to measure the time. Run it on a machine that does nothing else.

Command:  python -m experiments.settings_scores --path=cifar10.npz --csv=settings_cifar10.csv
          python -m experiments.settings_scores --path=cifar10.npz --csv=settings_cifar10.csv \
              --cells=300 --full
"""

import time
from collections.abc import Sequence
from pathlib import Path

import jax
import pandas as pd
from absl import app, flags

from epe_nas_jax import NasBench201Network, ScoringConfig, compile_scorer
from epe_nas_jax.data.datasets import draw_fixed_minibatch, load_dataset
from epe_nas_jax.runs import runtime
from experiments.choice import CHOSEN_OF, drawn_cells
from experiments.settings import (
    FULL,
    PROXIES,
    Setting,
    live_forms,
    settings,
)

_DIGITS = "%.6g"

_PATH = flags.DEFINE_string("path", None, "CIFAR-10.", required=True)
_CELLS = flags.DEFINE_integer("cells", CHOSEN_OF, "How many of the drawn cells.", lower_bound=1)
_FULL = flags.DEFINE_bool("full", False, "Score at the full setting, too, to measure its time.")
_CSV = flags.DEFINE_string("csv", None, "Where to write the scores.", required=True)


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
    for setting in (*settings(), *([FULL] if _FULL.value else [])):
        if tuple(setting) not in done:
            tables.append(score(setting, _PATH.value, networks))
            pd.concat(tables).to_csv(path, index=False, float_format=_DIGITS)
            # Frees memory: no program is needed twice.
            jax.clear_caches()


if __name__ == "__main__":
    app.run(main)
