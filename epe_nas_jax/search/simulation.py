"""Simulates random searches on cells that are already scored.

T is the number of scored cells, A the number of cells that a search draws.
"""

from typing import NamedTuple

import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.seeds import generator

# The index that a search chooses if none of its cells has a score.
NO_CELL = -1


class Spread(NamedTuple):
    """Mean and standard deviation over the searches that chose a cell; NaN if none did.

    Attributes:
      mean: the mean.
      deviation: the standard deviation.
    """

    mean: float
    deviation: float


def draw_searches(num_cells: int, num_samples: int, *, num_searches: int, seed: int) -> np.ndarray:
    """Draws the cells of many random searches, uniformly and without replacement.

    The first n cells of a search are themselves a search of n cells, so that searches of different
    lengths differ in their length only.

    Args:
      num_cells: how many cells there are to draw from, T.
      num_samples: how many cells a search draws, A.
      num_searches: R.
      seed: seed of the draws.

    Returns:
      Indices of cells, int `[R, A]`.

    Raises:
      InputError: A is above T, or the seed is out of range.

    Examples:
      >>> from epe_nas_jax.search.simulation import draw_searches
      >>> draws = draw_searches(num_cells=100, num_samples=10, num_searches=500, seed=0)
      >>> draws.shape
      (500, 10)
    """
    if num_samples > num_cells:
        raise InputError(f"samples: found {num_samples}, expected at most {num_cells}")
    cells = np.broadcast_to(np.arange(num_cells), (num_searches, num_cells))
    return generator(seed).permuted(cells, axis=1)[:, :num_samples]


def choose(scores: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Chooses the cell of each search: the first with the largest score, never one without a score.

    Args:
      scores: `[T]`, NaN for a cell without a score.
      draws: the cells of each search, int `[R, A]`.

    Returns:
      Indices of cells, int `[R]`; `NO_CELL` where none of a search's cells has a score.

    Examples:
      >>> from epe_nas_jax.search.simulation import choose
      >>> choose(np.array([0.1, np.nan, 0.3]), draws=np.array([[0, 1], [1, 2], [0, 2]]))
      array([0, 2, 2])
    """
    seen = np.where(np.isnan(scores), -np.inf, scores)[draws]
    best = draws[np.arange(len(draws)), np.argmax(seen, axis=1)]
    return np.where(np.isnan(scores[draws]).all(axis=1), NO_CELL, best)


def chosen_accuracies(scores: np.ndarray, accuracies: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The accuracy of the cell that each search chooses, `[R]`; NaN where it chooses none.

    Args:
      scores: `[T]`, NaN for a cell without a score.
      accuracies: `[T]`.
      draws: the cells of each search, int `[R, A]`.

    Examples:
      >>> from epe_nas_jax.search.simulation import chosen_accuracies
      >>> scores, accuracies = np.array([0.1, np.nan, 0.3]), np.array([90.0, 93.0, 91.0])
      >>> chosen_accuracies(scores, accuracies, draws=np.array([[0, 1], [1, 2]]))
      array([90., 91.])
    """
    cells = choose(scores, draws)
    return np.where(cells == NO_CELL, np.nan, accuracies[cells])


def spread(values: np.ndarray) -> Spread:
    """Mean and standard deviation of `[R]` values of searches, without NaN."""
    known = values[~np.isnan(values)]
    return Spread(float(known.mean()), float(known.std())) if len(known) else Spread(np.nan, np.nan)


def regret(scores: np.ndarray, accuracies: np.ndarray, draws: np.ndarray) -> float:
    """The mean difference between the best accuracy that a search drew and the one it chose.

    Args:
      scores: `[T]`, NaN for a cell without a score.
      accuracies: `[T]`.
      draws: the cells of each search, int `[R, A]`.

    Returns:
      The mean over the searches that choose a cell; NaN if none does.

    Examples:
      >>> from epe_nas_jax.search.simulation import regret
      >>> scores, accuracies = np.array([1.0, 2.0, 3.0]), np.array([90.0, 92.0, 91.0])
      >>> regret(scores, accuracies, draws=np.array([[0, 1], [1, 2]]))
      0.5
    """
    best = accuracies[draws].max(axis=1)
    return spread(best - chosen_accuracies(scores, accuracies, draws)).mean
