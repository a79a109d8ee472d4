"""Search algorithms over a score function they are handed.

Shape legend: A cells, E = 6 edges.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from epe_nas_jax.genotype import sample
from epe_nas_jax.ranking import best_index

ScoreFn = Callable[[np.ndarray], np.ndarray]


class SearchResult(NamedTuple):
    """What a search saw, in the order it saw it.

    Attributes:
      genotypes: int32 `[A, E]`.
      scores: `[A]`, NaN for a cell without a score.
      best: index of the chosen cell, or None if no cell has a score.
    """

    genotypes: np.ndarray
    scores: np.ndarray
    best: int | None


def random_search(
    key: jax.Array, score_fn: ScoreFn, *, num_samples: int, replace: bool = False
) -> SearchResult:
    """Draws cells uniformly, scores them all and chooses the best (EPE-NAS, algorithm 1).

    Args:
      key: random key, consumed.
      score_fn: scores `[A]` of genotypes `[A, E]`; larger is better.
      num_samples: how many cells, A.
      replace: whether a cell may be drawn twice.

    Raises:
      InputError: more cells than the space has, without replacement.
    """
    genotypes = np.asarray(sample(key, num_samples, replace=replace))
    scores = score_fn(genotypes)
    return SearchResult(genotypes, scores, best_index(scores))
