"""What lies on the paths of a cell from input to output: counts that need no network.

A is the number of cells, P the number of paths through a cell without an operation none: 4.
"""

from collections.abc import Iterator

import numpy as np

from epe_nas_jax.spaces.nasbench201.genotype import EDGES, NUM_NODES, OPERATIONS


def _paths_to(node: int) -> Iterator[tuple[int, ...]]:
    """All paths from node 0 to a node, as indices into `EDGES`."""
    if node == 0:
        yield ()
    for edge, (source, target) in enumerate(EDGES):
        if target == node:
            yield from ((*path, edge) for path in _paths_to(source))


PATHS = tuple(_paths_to(NUM_NODES - 1))


def is_live(genotypes: np.ndarray) -> np.ndarray:
    """Which paths have no operation none: bool `[A, P]` of genotypes `[A, E]`."""
    real = np.asarray(genotypes) != OPERATIONS.index("none")
    return np.stack([real[:, list(path)].all(axis=1) for path in PATHS], axis=1)


def count_on_paths(genotypes: np.ndarray, operations: tuple[str, ...]) -> np.ndarray:
    """How many of some operations lie on each path: int `[A, P]` of genotypes `[A, E]`."""
    counted = np.isin(genotypes, [OPERATIONS.index(name) for name in operations])
    return np.stack([counted[:, list(path)].sum(axis=1) for path in PATHS], axis=1)


def fewest(genotypes: np.ndarray, operations: tuple[str, ...]) -> np.ndarray:
    """The fewest of some operations on a live path, `[A]`; NaN for a cell without a path."""
    counts = np.where(is_live(genotypes), count_on_paths(genotypes, operations), np.inf)
    return _known(counts.min(axis=1))


def most(genotypes: np.ndarray, operations: tuple[str, ...]) -> np.ndarray:
    """The most of some operations on a live path, `[A]`; NaN for a cell without a path."""
    counts = np.where(is_live(genotypes), count_on_paths(genotypes, operations), -np.inf)
    return _known(counts.max(axis=1))


def mean(genotypes: np.ndarray, operations: tuple[str, ...]) -> np.ndarray:
    """How many of some operations a live path has in the mean, `[A]`; NaN without a path."""
    live = is_live(genotypes)
    total = np.sum(count_on_paths(genotypes, operations), axis=1, where=live)
    return total / np.where(live.any(axis=1), live.sum(axis=1), np.nan)


def _known(counts: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(counts), counts, np.nan)
