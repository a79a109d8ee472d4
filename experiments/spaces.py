"""Shared by experiments on several search spaces: signals, sizes, cells of a table, tables."""

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy import stats

from epe_nas_jax import BEST_RANKING, COMMON_RANKING
from epe_nas_jax.data import text_tables
from epe_nas_jax.reports.text import Table
from epe_nas_jax.scoring.columns import COLUMNS, RunCells
from epe_nas_jax.spaces.table import space_entry
from experiments.choice import combined

SIGNALS = ("epe", "jacob_cov", "nwot", "grad_entropy", "grad_decay")

# Classes, channels of the first stage and cells per stage, as in the benchmarks.
SIZES = {
    "nasbench201": (10, 16, 5),
    "nasbench301": (10, 32, 2),
    "nasbench101": (10, 128, 3),
    "transnas_micro": (100, 64, 2),
}
_BEST_SHOWN = 3

# All columns that follow from the genotype, without `params` and `mflops`.
COUNTS = tuple(name for name, column in COLUMNS.items() if not column.is_limit)


def read_scores(path: str, archs: Sequence[str], space_name: str) -> pd.DataFrame:
    """Scores of some cells, one row each, with the counts of their genotypes beside them."""
    scores = pd.read_csv(path).set_index("arch").loc[list(archs)]
    # Not live_mflops: FLOPs depend on the side of the images, which is unknown here.
    missing = [name for name in COUNTS if name not in scores and name != "live_mflops"]
    entry = space_entry(space_name)
    network = entry.make_network(*SIZES[space_name], jnp.dtype(jnp.float32))
    genotypes = np.stack([entry.space.parse(arch) for arch in archs])
    cells = RunCells(genotypes, network, side=32)
    return scores.assign(**{name: COLUMNS[name].values(cells) for name in missing})


def texts_of(table: pd.DataFrame, space_name: str) -> list[str]:
    """The texts of a table's cells, row by row, as the space writes them."""
    space = space_entry(space_name).space
    names = ("arch",) if "arch" in table else space.table_columns
    texts = text_tables.texts_of_cells([list(table[name]) for name in names])
    return [space.format(space.parse(text)) for text in texts]


def settings_table(
    ours: pd.DataFrame, others: pd.DataFrame, trained: pd.DataFrame, column: str
) -> Table:
    """How two settings rank the same rows, and how far they agree."""
    accuracies = trained[column].to_numpy(np.float64)
    rows = []
    for names in (*((name,) for name in (*SIGNALS, "live_params")), BEST_RANKING, COMMON_RANKING):
        pair = combined(ours, names), combined(others, names)
        values = (*(spearman(scores, accuracies) for scores in pair), spearman(*pair))
        rows.append([" + ".join(names), *(f"{value:.3f}" for value in values)])
    heads = ["signal", "scores", "beside", "with each other"]
    return Table(f"{column}, {len(accuracies)} rows: Spearman", heads, rows)


def best_of(ours: pd.DataFrame, trained: pd.DataFrame, column: str) -> Table:
    """The sums of up to three columns that rank these rows best, too optimistic for others."""
    is_known = trained[column].notna().to_numpy()
    ours, accuracies = ours[is_known], trained[column].to_numpy(np.float64)[is_known]
    sums = [
        names
        for number in (1, 2, 3)
        for names in itertools.combinations((*SIGNALS, *COUNTS), number)
    ]
    found = sorted((spearman(combined(ours, names), accuracies), names) for names in sums)
    rows = [[" + ".join(names), f"{value:.3f}"] for value, names in found[: -_BEST_SHOWN - 1 : -1]]
    title = f"{column}: the best of {len(sums)} sums, found on these very rows"
    return Table(title, ["sum", "Spearman"], rows)


def spearman(scores: np.ndarray, accuracies: np.ndarray) -> float:
    """Spearman's rho; 0 if all scores or all accuracies are equal."""
    if np.ptp(np.nan_to_num(scores, neginf=-1e300)) == 0:
        return 0.0
    return float(stats.spearmanr(scores, accuracies).statistic)
