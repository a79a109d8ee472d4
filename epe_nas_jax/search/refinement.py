"""Scores the best cells of a search again with a better function: successive halving.

In three steps, with the scores of any search:

    indices = refinement.best_share(scores, 0.1)
    found = better_score_fn(genotypes[indices])
    scores = refinement.refined_scores(scores, indices, found)

`refine` does all three. Scores of two functions cannot be compared, so the results are ranks: the
cells that were scored again come first, in their new order, and the others follow in their old
order. A rank is a score like any other, so that refinement can be repeated with an even better
function and a smaller share; the cells of the last function then come first.
"""

import numpy as np
from scipy import stats

from epe_nas_jax.errors import InputError
from epe_nas_jax.search.algorithms import ScoreFn, cached
from epe_nas_jax.search.ranking import Combine, num_in_share, top_k
from epe_nas_jax.search.restrict import one_each


def best_share(scores: np.ndarray, share: float) -> np.ndarray:
    """Chooses the cells to score again: the best of those that have a score.

    Args:
      scores: `[A]`, larger is better, NaN for a cell without a score.
      share: the share of the cells with a score to choose, above 0 and up to 1, rounded up.

    Returns:
      Indices of the chosen cells, int `[B]`, best first; ties keep their order.

    Raises:
      InputError: the share is out of range.

    Examples:
      >>> from epe_nas_jax.search.refinement import best_share
      >>> best_share(np.array([3.0, 9.0, 7.0, np.nan]), share=0.5)
      array([1, 2])
    """
    if not 0 < share <= 1:
        raise InputError(f"share: found {share}, expected a number above 0 and up to 1")
    scores = np.asarray(scores, np.float64)
    return top_k(scores, num_in_share(share, int(np.sum(~np.isnan(scores)))))


def with_equal_cells(indices: np.ndarray, genotypes: np.ndarray) -> np.ndarray:
    """Adds to some cells all cells that equal one of them: equal cells have equal scores.

    Args:
      indices: indices of cells, int `[B]`.
      genotypes: all cells, `[A, E]`.

    Returns:
      These indices, and then those of the added cells.
    """
    _, kinds = np.unique(genotypes, axis=0, return_inverse=True)
    is_asked = np.isin(kinds, kinds[indices])
    is_asked[indices] = False
    return np.concatenate([indices, np.flatnonzero(is_asked)])


def refined_scores(scores: np.ndarray, indices: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Ranks all cells: first those that were scored again, then the others in their old order.

    Args:
      scores: `[A]`, larger is better, NaN for a cell without a score.
      indices: which cells were scored again, int `[B]`, each once.
      found: the new scores of these cells, `[B]`, larger is better. A cell with NaN loses its
        score.

    Returns:
      Ranks `[A]`, as shares of the cells with a rank, the smallest for the worst, 1 for the best;
      equal cells all get the mean of their ranks. NaN for a cell that had no score, or lost it.

    Raises:
      InputError: not one new score for each index, or an index twice.

    Examples:
      >>> from epe_nas_jax.search.refinement import refined_scores
      >>> refined_scores(
      ...     np.array([3.0, 9.0, 7.0, 8.0, np.nan]), np.array([1, 3]), np.array([0.1, 0.2])
      ... )
      array([0.25, 0.75, 0.5 , 1.  ,  nan])
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

    Repeated, each time with a better function and a smaller share of all cells, it is successive
    halving (Jamieson & Talwalkar 2016).

    Args:
      scores: scores of all cells, `[A]`, larger is better, NaN for a cell without a score.
      genotypes: the cells, `[A, E]`. Equal cells are scored once, and all get the score.
      score_fn: from genotypes `[B, E]` to their new scores `[B]`, larger is better; with `combine`,
        to their proxies `[B, P]`.
      share: the share of the cells with a score to score again, above 0 and up to 1, rounded up.
      combine: from the proxies of the cells scored again to their scores `[B]`; ranks are among
        these cells.

    Returns:
      Ranks `[A]` as from `refined_scores`.

    Raises:
      InputError: the share is out of range, or `score_fn` does not return a number for each cell.

    Examples:
      >>> from epe_nas_jax.search.refinement import refine
      >>> cells = np.array([[1, 1], [3, 1], [1, 3], [3, 3]])
      >>> cheap = np.array([1.0, 2.0, 3.0, 4.0])
      >>> def better(cells):
      ...     return -np.sum(cells == 3, axis=1)
      >>> refine(cheap, cells, better, share=0.5)  # the last two cells are scored again
      array([0.25, 0.5 , 1.  , 0.75])
    """
    genotypes = np.asarray(genotypes)
    indices = with_equal_cells(best_share(scores, share), genotypes)
    found = cached(score_fn, combine)(genotypes[indices])
    return refined_scores(scores, indices, found)
