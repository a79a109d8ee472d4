"""Rankings: the best cells, combinations of several proxies, rank correlations with accuracies."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from epe_nas_jax.seeds import generator

# From the values of several columns `[A, P]` to one score for each cell, `[A]`.
Combine = Callable[[np.ndarray], np.ndarray]


class RankCorrelation(NamedTuple):
    """A rank correlation, or another statistic of a ranking, with its bootstrap interval.

    Attributes:
      value: the statistic of the sample.
      low: lower end of the 95 % interval.
      high: upper end of the 95 % interval.

    Examples:
      >>> from epe_nas_jax.search.ranking import kendall
      >>> value, low, high = kendall(np.arange(20.0), np.sqrt(np.arange(20.0)))
      >>> round(value, 2), round(low, 2), round(high, 2)
      (1.0, 1.0, 1.0)
    """

    value: float
    low: float
    high: float


def best_index(scores: np.ndarray) -> int | None:
    """The first index of the largest score of `[A]`, or None if all are NaN.

    Examples:
      >>> from epe_nas_jax.search.ranking import best_index
      >>> best_index(np.array([1.0, np.nan, 3.0]))
      2
    """
    return None if np.isnan(scores).all() else int(np.nanargmax(scores))


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k largest scores of `[A]`, best first, without NaN; ties keep their order.

    Examples:
      >>> from epe_nas_jax.search.ranking import top_k
      >>> top_k(np.array([1.0, np.nan, 3.0, 2.0]), 2)
      array([2, 3])
    """
    order = np.argsort(-scores, kind="stable")
    return order[~np.isnan(scores[order])][:k]


def most_accurate(scores: np.ndarray, accuracies: np.ndarray, fraction: float) -> np.ndarray:
    """Chooses the most accurate of the cells that have both a score and an accuracy.

    Args:
      scores: `[A]`, NaN for a cell without a score.
      accuracies: `[A]`, NaN where unknown.
      fraction: the share of these cells to choose, above 0 and up to 1, rounded up.

    Returns:
      Indices of the chosen cells, most accurate first; ties keep their order.
    """
    known = np.where(np.isnan(scores), np.nan, accuracies)
    return top_k(known, num_in_share(fraction, int(np.sum(~np.isnan(known)))))


def num_in_share(share: float, num_cells: int) -> int:
    """A share, above 0 and up to 1, of a number of cells, rounded up."""
    # Rounded first: 0.07 * 100 is 7.000000000000001 in binary.
    return max(math.ceil(round(share * num_cells, 6)), min(1, num_cells))


def rank_sum(values: np.ndarray) -> np.ndarray:
    """Combines several proxies into one score: the sum of a cell's ranks among the given cells.

    A rank is a share of the cells: 1 / A for the worst, 1 for the best; equal values all get the
    mean of their ranks. Only the order of a proxy's values counts; nothing is fitted to accuracies.

    Args:
      values: proxies, `[A, P]`, larger is better. A cell that lacks a proxy (NaN) has no rank.

    Returns:
      Scores `[A]`, larger is better; NaN for a cell without a rank.

    Examples:
      >>> from epe_nas_jax.search.ranking import rank_sum
      >>> rank_sum(np.array([[10.0, 0.1], [20.0, 0.3], [30.0, 0.3], [40.0, 0.2]]))
      array([0.5  , 1.375, 1.625, 1.5  ])
    """
    return np.sum(_rank_shares(values), axis=1)


def log_rank_sum(values: np.ndarray) -> np.ndarray:
    """Combines several proxies into one score: the sum of the logarithms of a cell's ranks.

    Ranks are those of `rank_sum`; by the logarithm a bad rank weighs more than a good one. This is
    the non-linear ranking aggregation of AZ-NAS (Lee & Ham 2024).

    Args:
      values: proxies, `[A, P]`, larger is better. A cell that lacks a proxy (NaN) has no rank.

    Returns:
      Scores `[A]`, larger is better; NaN for a cell without a rank.

    Examples:
      >>> from epe_nas_jax.search.ranking import log_rank_sum
      >>> scores = log_rank_sum(np.array([[1.0, 0.4], [2.0, 0.3], [3.0, 0.2], [4.0, 0.1]]))
      >>> int(scores.argmax())  # the second best in one and third in the other, not best and worst
      1
    """
    return np.sum(np.log(_rank_shares(values)), axis=1)


# Functions that combine several columns into one score, by name.
COMBINATIONS: dict[str, Combine] = {"log_rank_sum": log_rank_sum, "rank_sum": rank_sum}


def column_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of each column among the cells that have all of them, 1 for the largest value.

    They are for people. `rank_sum` and `log_rank_sum` count from the worst cell, and equal values
    have the mean of their ranks there.

    Args:
      values: proxies, `[A, P]`, larger is better.

    Returns:
      Ranks `[A, P]`; equal values share the smallest. NaN for a cell without one of the proxies.

    Examples:
      >>> from epe_nas_jax.search.ranking import column_ranks
      >>> column_ranks(np.array([[3.0, 10.0], [5.0, 10.0], [4.0, np.nan]]))
      array([[ 2.,  1.],
             [ 1.,  1.],
             [nan, nan]])
    """
    values = np.asarray(values, np.float64)
    ranks = np.full(values.shape, np.nan)
    known = ~np.isnan(values).any(axis=1)
    ranks[known] = stats.rankdata(-values[known], method="min", axis=0)
    return ranks


def _rank_shares(values: np.ndarray) -> np.ndarray:
    """Ranks of each column of `[A, P]`, above 0 and up to 1, among the rows without NaN."""
    values = np.asarray(values, np.float64)
    ranks = np.full(values.shape, np.nan)
    known = ~np.isnan(values).any(axis=1)
    ranks[known] = stats.rankdata(values[known], axis=0) / max(1, known.sum())
    return ranks


def pareto_front(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Indices of the cells that no other cell beats, cheapest first.

    A cell beats another if it scores no less and costs no more, and is better in at least one of
    the two. Of cells with equal score and cost, only the first is taken.

    Args:
      scores: `[A]`, larger is better; cells with NaN are left out.
      costs: `[A]`, smaller is better, such as parameters or FLOPs; cells with NaN are left out.

    Examples:
      >>> from epe_nas_jax.search.ranking import pareto_front
      >>> pareto_front(scores=np.array([3.0, 1.0, 2.0]), costs=np.array([30.0, 20.0, 10.0]))
      array([2, 0])
    """
    order = np.lexsort((-scores, costs))
    order = order[~np.isnan(scores[order]) & ~np.isnan(costs[order])]
    best_so_far = np.maximum.accumulate(scores[order])
    # The front is where the best score so far rises: at the first of its equal values.
    return order[np.unique(best_so_far, return_index=True)[1]]


def hypervolume(
    scores: np.ndarray, costs: np.ndarray, *, least_score: float, most_cost: float
) -> float:
    """The area of all (score, cost) that some cell beats, down to a score and up to a cost.

    Args:
      scores: `[A]`, larger is better; cells with NaN are left out.
      costs: `[A]`, smaller is better; cells with NaN are left out.
      least_score: lower limit of the area.
      most_cost: upper limit of the area.

    Examples:
      >>> from epe_nas_jax.search.ranking import hypervolume
      >>> scores, costs = np.array([1.0, 2.0]), np.array([1.0, 2.0])
      >>> hypervolume(scores, costs, least_score=0, most_cost=3)
      3.0
    """
    front = pareto_front(scores, costs)
    front = front[(scores[front] > least_score) & (costs[front] < most_cost)]
    ends = np.append(costs[front[1:]], most_cost)
    return float(np.sum((scores[front] - least_score) * (ends - costs[front])))


def spearman(
    scores: np.ndarray, accuracies: np.ndarray, *, seed: int = 0, num_resamples: int = 1000
) -> RankCorrelation | None:
    """Spearman's rho of scores and accuracies, with its bootstrap interval.

    Args:
      scores: `[A]`; cells with NaN are left out.
      accuracies: `[A]`; cells with NaN are left out.
      seed: seed of the bootstrap.
      num_resamples: number of its resamples.

    Returns:
      The correlation; None with fewer than 3 cells, or where all scores or accuracies are equal.

    Examples:
      >>> from epe_nas_jax.search.ranking import spearman
      >>> scores, accuracies = np.array([1.0, 2.0, 3.0, 4.0]), np.array([50.0, 80.0, 70.0, 90.0])
      >>> round(spearman(scores, accuracies).value, 2)
      0.8
    """
    return _correlate(stats.spearmanr, scores, accuracies, seed, num_resamples)


def kendall(
    scores: np.ndarray, accuracies: np.ndarray, *, seed: int = 0, num_resamples: int = 1000
) -> RankCorrelation | None:
    """Kendall's tau-b of scores and accuracies, with its bootstrap interval.

    Args:
      scores: `[A]`; cells with NaN are left out.
      accuracies: `[A]`; cells with NaN are left out.
      seed: seed of the bootstrap.
      num_resamples: number of its resamples.

    Returns:
      The correlation; None with fewer than 3 cells, or where all scores or accuracies are equal.

    Examples:
      >>> from epe_nas_jax.search.ranking import kendall
      >>> scores, accuracies = np.array([1.0, 2.0, 3.0, 4.0]), np.array([50.0, 80.0, 70.0, 90.0])
      >>> round(kendall(scores, accuracies).value, 2)
      0.67
    """
    return _correlate(stats.kendalltau, scores, accuracies, seed, num_resamples)


def with_interval(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    scores: np.ndarray,
    accuracies: np.ndarray,
    *,
    seed: int = 0,
    num_resamples: int = 1000,
) -> RankCorrelation:
    """Computes a statistic of scores and accuracies with a 95 % percentile bootstrap interval.

    Args:
      statistic: from scores and accuracies `[A]` to a number.
      scores: `[A]`.
      accuracies: `[A]`.
      seed: seed of the bootstrap.
      num_resamples: number of its resamples.

    Examples:
      >>> from epe_nas_jax.search.ranking import with_interval
      >>> def chosen_accuracy(scores, accuracies):
      ...     return float(accuracies[scores.argmax()])
      >>> scores, accuracies = np.array([1.0, 2.0, 3.0, 4.0]), np.array([50.0, 80.0, 70.0, 90.0])
      >>> with_interval(chosen_accuracy, scores, accuracies).value
      90.0
    """
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
    """Computes a rank correlation of SciPy over the cells with both numbers, with its interval.

    None where it is undefined: fewer than 3 such cells, or all scores or accuracies equal.
    """
    both = ~(np.isnan(scores) | np.isnan(accuracies))
    x, y = scores[both].astype(np.float64), accuracies[both].astype(np.float64)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None

    def statistic(x: np.ndarray, y: np.ndarray) -> float:
        # A resample may be constant; then there are no ranks to correlate.
        return 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else float(correlation(x, y).statistic)

    return with_interval(statistic, x, y, seed=seed, num_resamples=num_resamples)
