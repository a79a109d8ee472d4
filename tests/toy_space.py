"""A toy space for tests of searches, and scores of its cells and of any others."""

import jax
import numpy as np

from epe_nas_jax.search import algorithms
from epe_nas_jax.search.nsga2 import nsga2
from epe_nas_jax.spaces.base import SearchSpace
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

# A space of another shape and too large to list: rows of 12 numbers 0..9.
LENGTH, BASE = 12, 10


def _mutate_digits(key, rows):
    place_key, shift_key = jax.random.split(key)
    rows = np.array(rows)
    places = np.asarray(jax.random.randint(place_key, (len(rows),), 0, LENGTH))
    shifts = np.asarray(jax.random.randint(shift_key, (len(rows),), 1, BASE))
    rows[np.arange(len(rows)), places] = (rows[np.arange(len(rows)), places] + shifts) % BASE
    return rows


def _neighbours_of_digits(row):
    return np.array(
        [
            [*row[:place], digit, *row[place + 1 :]]
            for place in range(LENGTH)
            for digit in range(BASE)
            if digit != row[place]
        ]
    )


def _sample_digits(key, num):
    return np.asarray(jax.random.randint(key, (num, LENGTH), 0, BASE))


def _parse_digits(text):
    return np.array(list(map(int, text)), np.int32)


DIGITS = SearchSpace(
    name="digits",
    num_edges=LENGTH,
    parse=_parse_digits,
    format=lambda row: "".join(map(str, row)),
    check=np.asarray,
    identity=lambda rows: np.asarray(rows, np.int32),
    sample=_sample_digits,
    sample_with_replacement=_sample_digits,
    mutate=_mutate_digits,
    neighbours=_neighbours_of_digits,
    every=None,
    prune_dead=np.asarray,
    has_path=lambda rows: np.ones(len(rows), bool),
    relative_work=lambda rows: np.ones(len(rows)),
    graphs=lambda row: (),  # noqa: ARG005
    canonical_form=None,
)
SPACES = {"nasbench201": NASBENCH201, "darts": DARTS, "digits": DIGITS}
ALGORITHMS = {
    "random": lambda space: algorithms.random(60, space=space),
    "evolution": lambda space: algorithms.evolution(
        population=12, tournament=4, candidates_per_step=5, space=space
    ),
    "local": lambda space: algorithms.local(candidates_per_step=7, space=space),
    "nsga2": lambda space: nsga2(
        population=12, candidates_per_step=5, costs=lambda cells: cells.max(axis=1), space=space
    ),
}


def noisy_sum(cells, num_nan=3):
    """Scores that grow with the numbers of a genotype; those of some sums are NaN."""
    cells = np.asarray(cells)
    total = cells.sum(axis=1)
    scores = total + 0.5 * np.sin(cells @ np.arange(1.0, cells.shape[1] + 1))
    return np.where(total % 7 < num_nan, np.nan, scores)
