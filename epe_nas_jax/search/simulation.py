"""Random searches simulated on cells that are scored already.

T is the number of scored cells, A the number of cells that a search draws.
"""

from typing import NamedTuple

import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.seeds import generator

NO_CELL = -1


class Spread(NamedTuple):
    """Mean and standard deviation over searches.

    Attributes:
      mean: over the searches that chose a cell; NaN if none did.
      deviation: around it.
    """

    mean: float
    deviation: float


def draw_searches(num_cells: int, num_samples: int, *, num_searches: int, seed: int) -> np.ndarray:
    """Draws the cells of many random searches, uniformly and without replacement.

    The first n cells of a search are a search of n cells, so that searches of different lengths
    differ by their length only.

    Args:
      num_cells: how many cells there are to draw from, T.
      num_samples: how many a search draws, A.
      num_searches: R.
      seed: of the draws.

    Returns:
      Indices of cells, int `[R, A]`.

    Raises:
      InputError: A is above T, or the seed is out of range.
    """
    if num_samples > num_cells:
        raise InputError(f"samples: found {num_samples}, expected at most {num_cells}")
    cells = np.broadcast_to(np.arange(num_cells), (num_searches, num_cells))
    return generator(seed).permuted(cells, axis=1)[:, :num_samples]


def choose(scores: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """What each search chooses: its first cell of the largest score, never one without a score.

    Args:
      scores: `[T]`, NaN for a cell without one.
      draws: the cells of each search, int `[R, A]`.

    Returns:
      Indices of cells, int `[R]`; `NO_CELL` where none of a search's cells has a score.
    """
    seen = np.where(np.isnan(scores), -np.inf, scores)[draws]
    best = draws[np.arange(len(draws)), np.argmax(seen, axis=1)]
    return np.where(np.isnan(scores[draws]).all(axis=1), NO_CELL, best)


def chosen_accuracies(scores: np.ndarray, accuracies: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Accuracies `[R]` of what each search chooses; NaN where it chooses nothing.

    Args:
      scores: `[T]`, NaN for a cell without one.
      accuracies: `[T]`.
      draws: the cells of each search, int `[R, A]`.
    """
    cells = choose(scores, draws)
    return np.where(cells == NO_CELL, np.nan, accuracies[cells])


def spread(values: np.ndarray) -> Spread:
    """The spread of `[R]` values over the searches, NaN left out."""
    known = values[~np.isnan(values)]
    return Spread(float(known.mean()), float(known.std())) if len(known) else Spread(np.nan, np.nan)


def regret(scores: np.ndarray, accuracies: np.ndarray, draws: np.ndarray) -> float:
    """How much accuracy a search loses, on average, to the best of the cells that it drew.

    Args:
      scores: `[T]`, NaN for a cell without one.
      accuracies: `[T]`.
      draws: the cells of each search, int `[R, A]`.

    Returns:
      The mean over the searches that choose a cell; NaN if none does.
    """
    best = accuracies[draws].max(axis=1)
    return spread(best - chosen_accuracies(scores, accuracies, draws)).mean
