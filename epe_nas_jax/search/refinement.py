"""Scoring the best cells of a search again with a better function: successive halving.

As ask and tell, over the scores of any search:

    indices = refinement.best_share(scores, 0.1)
    found = better_score_fn(genotypes[indices])
    scores = refinement.refined_scores(scores, indices, found)

`refine` is these three together. Scores of two functions cannot be compared, so what comes out are
ranks: the cells that were scored again come first, in their new order, the others follow in their
old one. A rank is a score like any other, so that this may be done again with a yet better function
and a smaller share; the cells of the last function then come first, those of the one before next.
"""

import numpy as np
from scipy import stats

from epe_nas_jax.errors import InputError
from epe_nas_jax.search.algorithms import ScoreFn, cached
from epe_nas_jax.search.ranking import Combine, num_in_share, top_k
from epe_nas_jax.search.restrict import one_each


def best_share(scores: np.ndarray, share: float) -> np.ndarray:
    """Asks which cells to score again: the best of those that have a score.

    Args:
      scores: `[A]`, larger is better, NaN for a cell without a score.
      share: how many of the cells with a score, above 0 and up to 1, rounded up.

    Returns:
      Their indices, int `[B]`, best first; ties keep their order.

    Raises:
      InputError: the share is out of range.
    """
    if not 0 < share <= 1:
        raise InputError(f"share: found {share}, expected a number above 0 and up to 1")
    scores = np.asarray(scores, np.float64)
    return top_k(scores, num_in_share(share, int(np.sum(~np.isnan(scores)))))


def with_equal_cells(indices: np.ndarray, genotypes: np.ndarray) -> np.ndarray:
    """Adds the cells that equal one of those asked for: equal cells have one score.

    Args:
      indices: of cells, int `[B]`.
      genotypes: all cells, `[A, E]`.

    Returns:
      These indices and then those of the cells that were added.
    """
    _, kinds = np.unique(genotypes, axis=0, return_inverse=True)
    is_asked = np.isin(kinds, kinds[indices])
    is_asked[indices] = False
    return np.concatenate([indices, np.flatnonzero(is_asked)])


def refined_scores(scores: np.ndarray, indices: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Tells what was found: the cells scored again come first, then the others as before.

    >>> refined_scores(np.array([3.0, 9.0, 7.0, np.nan]), np.array([1, 2]), np.array([0.1, 0.2]))
    array([0.33333333, 0.66666667, 1.        ,        nan])

    Args:
      scores: `[A]`, larger is better, NaN for a cell without a score.
      indices: which cells were scored again, int `[B]`, each once.
      found: their new scores, `[B]`, larger is better. A cell with NaN has no score any more.

    Returns:
      Ranks `[A]` as a share of the cells with a rank: the smallest for the worst, 1 for the best;
      equal cells share the mean of theirs. NaN for a cell that had no score or has none now.

    Raises:
      InputError: not one new score for each index, or an index twice.
    """
    scores = np.asarray(scores, np.float64)
    indices = np.asarray(indices, np.intp)
    found = one_each("new scores", np.asarray(found, np.float64), len(indices))
    if len(np.unique(indices)) < len(indices):
        raise InputError("indices: found a cell twice, expected each once")
    is_other = ~np.isnan(scores)
    is_ahead = is_other[indices] & ~np.isnan(found)
    is_other[indices] = False
    ranks = np.full(scores.shape, np.nan)
    ranks[is_other] = stats.rankdata(scores[is_other])
    num_others = int(np.sum(is_other))
    ranks[indices[is_ahead]] = num_others + stats.rankdata(found[is_ahead])
    return ranks / max(1, num_others + int(np.sum(is_ahead)))


def refine(
    scores: np.ndarray,
    genotypes: np.ndarray,
    score_fn: ScoreFn,
    share: float,
    combine: Combine | None = None,
) -> np.ndarray:
    """Scores the best cells of a search again, with a better function, and puts them first.

    Done again and again it is successive halving (Jamieson & Talwalkar 2016): each time with a
    better function, and a smaller share of all cells.

    >>> result = algorithms.run(algorithm, key, cheap, 1000)
    >>> scores = refine(result.scores, result.genotypes, better, 0.1)  # 100 cells
    >>> scores = refine(scores, result.genotypes, best, 0.01)  # 10 of them
    >>> result.genotypes[ranking.best_index(scores)]

    Args:
      scores: of all cells, `[A]`, larger is better, NaN for a cell without a score.
      genotypes: the cells, `[A, E]`. One that is there twice is scored once, and both places have
        its score.
      score_fn: new scores `[B]` of genotypes `[B, E]`; larger is better. With `combine`, their
        proxies `[B, P]`.
      share: how many of the cells with a score to score again, above 0 and up to 1, rounded up.
      combine: from the proxies of the cells scored again to their scores `[B]`; ranks are among
        these cells.

    Returns:
      Ranks `[A]` as from `refined_scores`.

    Raises:
      InputError: the share is out of range, or `score_fn` does not return a number for each cell.
    """
    genotypes = np.asarray(genotypes)
    indices = with_equal_cells(best_share(scores, share), genotypes)
    found = cached(score_fn, combine)(genotypes[indices])
    return refined_scores(scores, indices, found)
