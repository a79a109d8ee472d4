"""Tables of what ranks in search spaces: oracles by SciPy, and the choice of the common sum."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from epe_nas_jax import COMMON_RANKING
from experiments.spaces import COUNTS, SIGNALS, best_of, settings_table

DATA = os.environ.get("EPE_NAS_JAX_DATA", "")
COLUMNS = [*SIGNALS, *COUNTS]


@pytest.fixture
def trained():
    return pd.DataFrame({"top1": np.random.default_rng(0).normal(size=40)})


def scores_of(seed):
    values = np.random.default_rng(seed).normal(size=(40, len(COLUMNS)))
    return pd.DataFrame(values, columns=COLUMNS)


def test_two_settings_are_correlated_with_accuracy_and_with_each_other(trained):
    ours, others = scores_of(1), scores_of(2)
    rows = {row[0]: row[1:] for row in settings_table(ours, others, trained, "top1").rows}
    pairs = [(ours.nwot, trained.top1), (others.nwot, trained.top1), (ours.nwot, others.nwot)]
    assert rows["nwot"] == [f"{stats.spearmanr(*pair).statistic:.3f}" for pair in pairs]
    assert " + ".join(COMMON_RANKING) in rows


def test_the_best_sum_is_that_which_the_accuracies_were_made_of(trained):
    scores = scores_of(3)
    ranks = scores[["epe", "nwot"]].rank()
    trained["top1"] = np.log(ranks / len(ranks)).sum(axis=1)
    table = best_of(scores, trained, "top1")
    assert table.rows[0] == ["epe + nwot", "1.000"]
    assert len(table.rows) == 3


@pytest.mark.skipif(not DATA, reason="EPE_NAS_JAX_DATA does not name a folder of published tables")
def test_the_common_ranking_is_what_the_rule_chooses():
    arguments = [
        f"--nasbench201={Path(DATA) / 'nasbench201.csv.gz'}",
        f"--nasbench101={Path(DATA) / 'nasbench101.csv.gz'}",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "experiments.spaces_choice", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    first = next(line for line in run.stdout.splitlines() if "0." in line)
    assert first.startswith(f"| {' + '.join(COMMON_RANKING)} |")
