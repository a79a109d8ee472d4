"""Rankings: the best cells, several proxies as one score, rank correlations with accuracies."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from epe_nas_jax.seeds import generator

Combine = Callable[[np.ndarray], np.ndarray]


class RankCorrelation(NamedTuple):
    """A rank correlation, or another statistic of a ranking, with its bootstrap interval.

    Attributes:
      value: on the sample.
      low: lower end of the 95 % interval.
      high: upper end of it.
    """

    value: float
    low: float
    high: float


def best_index(scores: np.ndarray) -> int | None:
    """The first index of the largest score of `[A]`, or None if none is a number."""
    return None if np.isnan(scores).all() else int(np.nanargmax(scores))


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k largest scores of `[A]`, best first, without NaN; ties keep their order."""
    order = np.argsort(-scores, kind="stable")
    return order[~np.isnan(scores[order])][:k]


def most_accurate(scores: np.ndarray, accuracies: np.ndarray, fraction: float) -> np.ndarray:
    """The most accurate of the cells that have both a score and an accuracy.

    Args:
      scores: `[A]`, NaN for a cell without one.
      accuracies: `[A]`, NaN where unknown.
      fraction: how many of these cells, above 0 and up to 1, rounded up.

    Returns:
      Their indices, most accurate first; ties keep their order.
    """
    known = np.where(np.isnan(scores), np.nan, accuracies)
    return top_k(known, num_in_share(fraction, int(np.sum(~np.isnan(known)))))


def num_in_share(share: float, num_cells: int) -> int:
    """How many of some cells a share of them is, above 0 and up to 1, rounded up."""
    # Rounded first: 0.07 * 100 is 7.000000000000001 in binary.
    return max(math.ceil(round(share * num_cells, 6)), min(1, num_cells))


def rank_sum(values: np.ndarray) -> np.ndarray:
    """Several proxies as one score: the sum of a cell's ranks among the given cells.

    A rank is a share of the cells: 1 / A for the worst, 1 for the best; equal values share the mean
    of theirs. Only the order of a proxy's values counts, and nothing is fitted to accuracies.

    Args:
      values: proxies, `[A, P]`, larger is better. A cell without one of them (NaN) has no rank.

    Returns:
      Scores `[A]`, larger is better; NaN for a cell without a rank.
    """
    return np.sum(_rank_shares(values), axis=1)


def log_rank_sum(values: np.ndarray) -> np.ndarray:
    """Like `rank_sum`, of the ranks' logarithms: a bad rank weighs more than a good one.

    So AZ-NAS adds its proxies up (Lee & Ham 2024, non-linear ranking aggregation).
    """
    return np.sum(np.log(_rank_shares(values)), axis=1)


# How several columns are one score, by name.
COMBINATIONS: dict[str, Combine] = {"log_rank_sum": log_rank_sum, "rank_sum": rank_sum}


def _rank_shares(values: np.ndarray) -> np.ndarray:
    """Ranks of each column of `[A, P]`, above 0 and up to 1, among the rows without NaN."""
    values = np.asarray(values, np.float64)
    ranks = np.full(values.shape, np.nan)
    known = ~np.isnan(values).any(axis=1)
    ranks[known] = stats.rankdata(values[known], axis=0) / max(1, known.sum())
    return ranks


def pareto_front(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Indices of the cells that no other beats, cheapest first.

    A cell is beaten by one that scores no worse and costs no more, and is better in one of the two.
    Of cells that are alike in both the first is taken.

    Args:
      scores: `[A]`, larger is better; cells with NaN are left out.
      costs: `[A]`, smaller is better, such as parameters or FLOPs; cells with NaN are left out.
    """
    order = np.lexsort((-scores, costs))
    order = order[~(np.isnan(scores) | np.isnan(costs))[order]]
    best_so_far = np.maximum.accumulate(scores[order])
    # The front is where the best score so far rises: at the first of its equal values.
    return order[np.unique(best_so_far, return_index=True)[1]]


def spearman(
    scores: np.ndarray, accuracies: np.ndarray, *, seed: int = 0, num_resamples: int = 1000
) -> RankCorrelation | None:
    """Spearman's rho of scores and accuracies `[A]`; see `_correlate`."""
    return _correlate(stats.spearmanr, scores, accuracies, seed, num_resamples)


def kendall(
    scores: np.ndarray, accuracies: np.ndarray, *, seed: int = 0, num_resamples: int = 1000
) -> RankCorrelation | None:
    """Kendall's tau-b of scores and accuracies `[A]`; see `_correlate`."""
    return _correlate(stats.kendalltau, scores, accuracies, seed, num_resamples)


def with_interval(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    scores: np.ndarray,
    accuracies: np.ndarray,
    *,
    seed: int = 0,
    num_resamples: int = 1000,
) -> RankCorrelation:
    """Any statistic of scores and accuracies `[A]`, with a percentile bootstrap of 95 %."""
    interval = stats.bootstrap(
        (scores, accuracies),
        statistic,
        paired=True,
        vectorized=False,
        n_resamples=num_resamples,
        method="percentile",
        rng=generator(seed),
    ).confidence_interval
    value = statistic(scores, accuracies)
    return RankCorrelation(value, float(interval.low), float(interval.high))


def _correlate(
    correlation: Callable[..., Any],
    scores: np.ndarray,
    accuracies: np.ndarray,
    seed: int,
    num_resamples: int,
) -> RankCorrelation | None:
    """SciPy's statistic over the cells with both numbers, with its interval.

    None where it is undefined: fewer than 3 such cells, or all scores or accuracies equal.
    """
    both = ~(np.isnan(scores) | np.isnan(accuracies))
    x, y = scores[both].astype(np.float64), accuracies[both].astype(np.float64)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None

    def statistic(x: np.ndarray, y: np.ndarray) -> float:
        # A resample may be constant, which has no ranks to correlate.
        return 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else float(correlation(x, y).statistic)

    return with_interval(statistic, x, y, seed=seed, num_resamples=num_resamples)
