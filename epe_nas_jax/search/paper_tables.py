"""The numbers of the paper's tables: how well proxies rank and choose cells.

Rows are plain dictionaries of numbers, one per line of a table; NaN is an unknown number.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from epe_nas_jax.data.score_files import SCORE, ScoredCells
from epe_nas_jax.search import ranking, simulation

# Lengths of a search in the paper's table.
SIZES = (10, 100, 500, 1000)

# The parts of the cells, by accuracy, on which correlations are computed.
PARTS = {"all": 1.0, "top 20 %": 0.2, "top 10 %": 0.1}

PUBLISHED_SPACE = "nasbench201"
# EPE-NAS's README (github.com/VascoLopes/EPE-NAS): mean test accuracy of 3 runs, seconds a search.
PUBLISHED: dict[int, dict[str, float]] = {
    10: {"seconds": 2.77, "cifar10": 92.63, "cifar100": 70.10, "imagenet16_120": 41.92},
    100: {"seconds": 20.47, "cifar10": 91.59, "cifar100": 67.19, "imagenet16_120": 38.80},
    500: {"seconds": 105.84, "cifar10": 92.27, "cifar100": 69.33, "imagenet16_120": 42.05},
    1000: {"seconds": 206.23, "cifar10": 91.31, "cifar100": 69.58, "imagenet16_120": 41.84},
}


def search_rows(
    cells: ScoredCells,
    *,
    num_searches: int,
    seed: int,
    space: str = PUBLISHED_SPACE,
    ms_per_cell: float | None = None,
) -> list[dict[str, Any]]:
    """Compares simulated random searches with published ones, random choice and the best possible.

    Args:
      cells: scored cells of a data set, from which the searches draw.
      num_searches: how many searches of each length.
      seed: seed of the draws.
      space: name of the cells' space; published searches exist for `PUBLISHED_SPACE` only.
      ms_per_cell: milliseconds that scoring a cell takes, if known.

    Returns:
      Rows with `dataset`, `method`, `samples` (None for a method without a search) and, for every
      accuracy, its mean and deviation over the searches; `seconds` of one search where known.
      Lengths beyond the number of scored cells are left out.
    """
    scores = cells.scores[SCORE].to_numpy()
    accuracies = {str(what): cells.accuracies[what].to_numpy() for what in cells.accuracies}
    sizes = sizes_within(len(scores))
    draws = simulation.draw_searches(
        len(scores), max(sizes, default=0), num_searches=num_searches, seed=seed
    )

    def row(method: str, samples: int | None, **columns: Any) -> dict[str, Any]:
        return {"dataset": cells.dataset, "method": method, "samples": samples, **columns}

    def spreads(values: dict[str, np.ndarray]) -> dict[str, float]:
        return {
            f"{what}_{name}": number
            for what, runs in values.items()
            for name, number in simulation.spread(runs)._asdict().items()
        }

    rows = [row("a cell at random", None, **spreads(accuracies))]
    for size in SIZES:
        published = PUBLISHED[size]
        if space == PUBLISHED_SPACE and cells.dataset in published:
            rows.append(
                row(
                    "EPE-NAS, published",
                    size,
                    test_mean=published[cells.dataset],
                    seconds=published["seconds"],
                )
            )
        if size not in sizes:
            continue
        searches = draws[:, :size]
        chosen = {
            what: simulation.chosen_accuracies(scores, values, searches)
            for what, values in accuracies.items()
        }
        best = {what: values[searches].max(axis=1) for what, values in accuracies.items()}
        seconds = {} if ms_per_cell is None else {"seconds": size * ms_per_cell / 1000}
        rows += [
            row("EPE-NAS, ours", size, **spreads(chosen), **seconds),
            row("best of the cells drawn", size, **spreads(best)),
        ]
    best_scored = {f"{what}_mean": float(values.max()) for what, values in accuracies.items()}
    best_known = {f"{what}_mean": value for what, value in cells.best_known.items()}
    return [
        *rows,
        row("best of all scored", None, **best_scored),
        row("best of the benchmark", None, **best_known),
    ]


def correlation_row(
    cells: ScoredCells, proxy: str, *, num_searches: int, seed: int
) -> dict[str, Any]:
    """Computes how a proxy's scores correlate with test accuracy.

    Args:
      cells: scored cells of a data set.
      proxy: name of the proxy.
      num_searches: how many simulated searches the regret is averaged over.
      seed: seed of these searches' draws and of the bootstrap.

    Returns:
      `dataset`, `proxy` and `num_cells` (those with a score); `spearman` and `kendall` by the name
      of the part, each a dictionary of `value`, `low` and `high`, or None where it is undefined;
      and `regret` by the length of the search.
    """
    scores, accuracies = cells.scores[proxy].to_numpy(), cells.accuracies["test"].to_numpy()
    sizes = sizes_within(len(accuracies))
    draws = simulation.draw_searches(
        len(accuracies), max(sizes, default=0), num_searches=num_searches, seed=seed
    )
    correlations: dict[str, dict[str, Any]] = {"spearman": {}, "kendall": {}}
    for part, fraction in PARTS.items():
        chosen = ranking.most_accurate(scores, accuracies, fraction)
        for name, correlate in (("spearman", ranking.spearman), ("kendall", ranking.kendall)):
            correlation = correlate(scores[chosen], accuracies[chosen], seed=seed)
            correlations[name][part] = correlation and correlation._asdict()
    return {
        "dataset": cells.dataset,
        "proxy": proxy,
        "num_cells": int(np.sum(~np.isnan(scores))),
        **correlations,
        "regret": {size: simulation.regret(scores, accuracies, draws[:, :size]) for size in sizes},
    }


def best_of_n(
    cells: ScoredCells, *, num_searches: int, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Computes the chosen cell's test accuracy, mean and deviation, by the length of the search.

    Args:
      cells: scored cells of a data set.
      num_searches: how many searches of each length.
      seed: seed of the draws.

    Returns:
      Lengths `[L]`, evenly spaced on a logarithmic axis up to 1,000 or half the cells; and means
      and deviations `[L, 2]` of `score`, the cell that the score chooses, and `best`, the best of
      those drawn.
    """
    scores, accuracies = cells.scores[SCORE].to_numpy(), cells.accuracies["test"].to_numpy()
    # From 2: the cell of a search of one cell often has no score.
    longest = min(SIZES[-1], max(2, len(scores) // 2), len(scores))
    sizes = np.unique(np.geomspace(min(2, longest), longest, 25).round().astype(int))
    draws = simulation.draw_searches(len(scores), longest, num_searches=num_searches, seed=seed)
    curves: dict[str, list[simulation.Spread]] = {SCORE: [], "best": []}
    for size in sizes:
        searches = draws[:, :size]
        chosen = simulation.chosen_accuracies(scores, accuracies, searches)
        curves[SCORE].append(simulation.spread(chosen))
        curves["best"].append(simulation.spread(accuracies[searches].max(axis=1)))
    return sizes, {name: np.array(values) for name, values in curves.items()}


def sizes_within(num_cells: int) -> Sequence[int]:
    """Those of the table's lengths of a search that do not exceed a number of scored cells."""
    return [size for size in SIZES if size <= num_cells]
