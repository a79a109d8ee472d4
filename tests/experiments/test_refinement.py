"""The experiment on two tables of scores, as a command."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from epe_nas_jax import BEST_RANKING, format_arch
from epe_nas_jax.search import simulation
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead, sample

ROOT = Path(__file__).parents[2]
NUM_CELLS, NUM_DRAWN, NUM_SEARCHES = 60, 20, 30


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """The rows that the experiment prints, and the cells and accuracies that it reads."""
    folder = tmp_path_factory.mktemp("refinement")
    cells = np.asarray(sample(jax.random.key(0), NUM_CELLS))
    archs = [format_arch(cell) for cell in cells]
    rng = np.random.default_rng(0)
    accuracies = rng.permutation(NUM_CELLS) + 0.5
    # At the full setting every column has the order of the accuracies, at the cheap one none has.
    for name, values in (("full", accuracies), ("fast", rng.normal(size=NUM_CELLS))):
        columns = dict.fromkeys(BEST_RANKING, values)
        table = pd.DataFrame({"arch": archs, "score": values, **columns})
        table.to_csv(folder / f"{name}.csv", index=False)
    pd.DataFrame({"arch": archs, "top1": accuracies}).to_csv(folder / "benchmark.csv", index=False)
    flags = [
        *(f"--{name}={folder}/{name}.csv" for name in ("fast", "full", "benchmark")),
        *("--accuracy=top1", "--fast_ms=10", "--full_ms=1000", "--shares=0.1,1"),
        *(f"--searches={NUM_SEARCHES}", f"--sizes={NUM_DRAWN}"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.refinement", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    rows = {line[0]: line[1:] for line in lines if len(line) > 1 and "±" in line[1]}
    return rows, cells, accuracies


def test_each_method_chooses_and_pays_as_it_should(printed):
    rows, cells, accuracies = printed
    assert list(rows) == [
        "the cheap setting only",
        "the full setting only",
        "cheap, the best 10% again",
        "cheap, the best 100% again",
    ]
    draws = simulation.draw_searches(NUM_CELLS, NUM_DRAWN, num_searches=NUM_SEARCHES, seed=0)
    networks = [tuple(cell) for cell in prune_dead(cells).tolist()]
    num_networks = np.mean([len({networks[i] for i in drawn}) for drawn in draws])
    best = accuracies[draws].max(axis=1)
    found = {name: float(row[0].split(" ± ")[0]) for name, row in rows.items()}
    # At the full setting the best of the cells drawn is chosen, if all of them are scored there.
    for name in ("the full setting only", "cheap, the best 100% again"):
        assert rows[name][0] == f"{best.mean():.2f} ± {best.std():.2f}"
    assert found["the cheap setting only"] < found["cheap, the best 10% again"] < best.mean()
    counts = [f"{num_networks:.1f}", "0.0"]
    assert rows["the cheap setting only"][1:] == [f"{num_networks / 100:.2f}", *counts]
    assert rows["the full setting only"][1:] == [f"{num_networks:.2f}", *counts[::-1]]
    _, seconds, num_fast, num_full = rows["cheap, the best 10% again"]
    assert num_fast == counts[0]
    # A tenth of 20 cells.
    assert 1 <= float(num_full) <= 2
    assert float(seconds) == pytest.approx(num_networks / 100 + float(num_full), abs=0.06)
