"""What share of accuracy and latency searches find."""

import numpy as np
import pandas as pd
import pytest

from epe_nas_jax import format_arch
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
from experiments import multi_objective
from experiments.multi_objective import SEARCHES, shares

CELLS = NASBENCH201.every()[::3]
ARCHS = pd.Index([format_arch(cell) for cell in CELLS])


@pytest.fixture
def columns():
    """Scores, latencies and accuracies of some cells; one lacks its latency, and is never seen."""
    rng = np.random.default_rng(0)
    accuracies = pd.Series(80 + 15 * rng.random(len(ARCHS)), ARCHS, name="accuracy")
    latencies = pd.Series(1 + rng.random(len(ARCHS)), ARCHS, name="latency")
    latencies.iloc[0] = np.nan
    return accuracies, latencies, accuracies


def test_a_wrong_guide_finds_less(columns):
    accuracies, latencies, _ = columns
    good = shares(accuracies, latencies, accuracies, 60, num_seeds=2)
    bad = shares(-accuracies, latencies, accuracies, 60, num_seeds=2)
    for name in SEARCHES:
        assert 1 >= good[name].mean() > bad[name].mean() + 0.05


def test_the_table_has_a_line_a_budget(columns, monkeypatch):
    monkeypatch.setattr(multi_objective, "BUDGETS", (20, 40))
    table = multi_objective.table_of(*columns, num_seeds=1)
    assert table.header == ["cells", *SEARCHES]
    assert [row[0] for row in table.rows] == ["20", "40"]
