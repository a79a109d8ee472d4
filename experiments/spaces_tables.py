r"""How signals rank the cells of several search spaces (docs/spaces-ranked.md).

Joins scores (`experiments/spaces_scores.py`) with the accuracies in a table, one row of the table
after another. A cell without a score is worse than all others. Intervals are 95 %, by bootstrap
over the rows. Published scores in the same table are ranked beside ours. With `--beside`, scores of
the same cells at another setting, there is only one table: how both settings rank these cells.

Command:  python -m experiments.spaces_tables --space=nasbench101 \
              --scores=results/nasbench101_zc_fast.csv.gz --table=nasbench101_zc_500.csv.gz \
              --column=val_accuracy --published=synflow,params
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from absl import app, flags
from scipy import stats

from epe_nas_jax import BEST_RANKING, COMMON_RANKING, InputError
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.search import ranking, simulation
from experiments.choice import combined, unscored_last
from experiments.spaces import (
    COUNTS,
    SIGNALS,
    SIZES,
    best_of,
    read_scores,
    settings_table,
    spearman,
    texts_of,
)

METHODS = (
    *((name,) for name in (*SIGNALS, "live_params", "live_mflops")),
    *((name,) for name in COUNTS if not name.startswith("live_")),
    BEST_RANKING,
    COMMON_RANKING,
)
# A choice of rows of the table, for which scores are asked.
Rows = slice | np.ndarray
Method = Callable[[Rows], np.ndarray]

_SIZES = (10, 100, 1000)
_SEARCHES, _RESAMPLES = 500, 200

_SPACE = flags.DEFINE_enum("space", None, list(SIZES), "The search space.", required=True)
_SCORES = flags.DEFINE_string("scores", None, "Scores of cells.", required=True)
_TABLE = flags.DEFINE_string("table", None, "The same cells, trained.", required=True)
_COLUMN = flags.DEFINE_multi_string("column", None, "The table's accuracies.", required=True)
_BESIDE = flags.DEFINE_string("beside", None, "Scores of the same cells at another setting.")
_PUBLISHED = flags.DEFINE_list("published", [], "The table's columns of published scores.")


def main(argv: Sequence[str]) -> None:
    """Prints a table for every column as Markdown."""
    del argv
    scored = set(pd.read_csv(_SCORES.value)["arch"])
    if _BESIDE.value:
        scored &= set(pd.read_csv(_BESIDE.value)["arch"])
    trained = pd.read_csv(_TABLE.value)
    trained = trained.set_index(pd.Index(texts_of(trained, _SPACE.value)))
    trained = trained[trained.index.isin(scored)]
    if trained.empty:
        raise InputError(f"{_SCORES.value}: found no cell of {_TABLE.value}, expected some")
    ours = read_scores(_SCORES.value, list(trained.index), _SPACE.value)
    if _BESIDE.value:
        others = read_scores(_BESIDE.value, list(trained.index), _SPACE.value)
        for column in _COLUMN.value:
            print(as_markdown(settings_table(ours, others, trained, column)), end="\n\n")
        return
    printed = [
        table
        for column in _COLUMN.value
        for table in (table_of(ours, trained, column), best_of(ours, trained, column))
    ]
    printed.append(spread_of(ours[~ours.index.duplicated()]))
    print("\n\n".join(map(as_markdown, printed)))


def spread_of(ours: pd.DataFrame) -> Table:
    """Quartiles of the signals, and how they correlate with the number of wide convolutions."""
    rows = []
    for name in SIGNALS:
        known = ours[[name, "all_wide_convs"]].dropna()
        low, middle, high = known[name].quantile([0.25, 0.5, 0.75])
        wide = stats.spearmanr(*known.to_numpy().T).statistic
        rows.append([name, *(f"{value:.2f}" for value in (low, middle, high, wide))])
    heads = ["signal", "a quarter below", "median", "a quarter above", "Spearman, all_wide_convs"]
    return Table(f"values of {len(ours)} different cells", heads, rows)


def table_of(ours: pd.DataFrame, trained: pd.DataFrame, column: str) -> Table:
    """How each method orders the rows that have been trained."""
    is_known = trained[column].notna().to_numpy()
    ours, trained = ours[is_known], trained[is_known]
    accuracies = trained[column].to_numpy(np.float64)
    sizes = [size for size in _SIZES if size < len(accuracies)]
    draws = simulation.draw_searches(len(accuracies), max(sizes), num_searches=_SEARCHES, seed=0)
    methods: dict[str, Method] = {
        " + ".join(names): functools.partial(_by_ranks, ours, names) for names in METHODS
    }
    for name in _PUBLISHED.value:
        published = unscored_last(trained[name].to_numpy(np.float64))
        methods[f"{name}, published"] = published.__getitem__
    rows = [row_of(name, method, accuracies, draws, sizes) for name, method in methods.items()]
    heads = ["Spearman", "95 %", "Kendall", "top 20 %", *(f"N = {size}" for size in sizes)]
    title = f"{column}: {len(accuracies)} rows, best {accuracies.max():.2f}"
    return Table(title, ["signal", *heads], rows)


def _by_ranks(ours: pd.DataFrame, names: Sequence[str], rows: Rows) -> np.ndarray:
    return combined(ours.iloc[rows], names)


def row_of(
    name: str,
    method: Method,
    accuracies: np.ndarray,
    draws: np.ndarray,
    sizes: Sequence[int],
) -> list[str]:
    """Rank correlations of a method, and the accuracies that searches of some sizes find by it."""
    scores = method(slice(None))
    top = ranking.most_accurate(scores, accuracies, 0.2)
    rho = ranking.with_interval(spearman, scores, accuracies, num_resamples=_RESAMPLES)
    row = [
        name,
        f"{rho.value:.3f}",
        f"{rho.low:.2f} to {rho.high:.2f}",
        f"{stats.kendalltau(scores, accuracies).statistic:.3f}",
        f"{spearman(scores[top], accuracies[top]):.3f}",
    ]
    for size in sizes:
        chosen = [accuracies[drawn[np.argmax(method(drawn))]] for drawn in draws[:, :size]]
        mean, deviation = simulation.spread(np.array(chosen))
        row.append(f"{mean:.2f} ± {deviation:.2f}")
    return row


if __name__ == "__main__":
    app.run(main)
