"""Restricts a search space to the cells that a predicate accepts."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import Cells, SearchSpace

Accept = Callable[[np.ndarray], np.ndarray]
# From cells to the accepted ones, which are found one after another, as they are taken.
_Filter = Callable[[np.ndarray], Iterator[np.ndarray]]

_MAX_DRAWS = 100
_CELLS_PER_DRAW = 1000


def restrict(space: SearchSpace, accept: Accept, *, is_costly: bool = False) -> SearchSpace:
    """Restricts a space to the cells that a predicate accepts; no other cell is ever sampled.

    Args:
      space: the whole space.
      accept: from cells `[A, E]` to bool `[A]`, such as a limit of the number of parameters.
      is_costly: whether `accept` takes long, such as a measurement: then it is not called for the
        whole space, but for one sampled cell after another until there are enough.

    Returns:
      The restricted space. A cell none of whose mutations is accepted mutates to itself.

    Raises:
      InputError: no cell is accepted; or, when sampled, fewer cells than asked for are accepted. A
        space that cannot be listed raises it when cells are sampled, after 100,000 cells.

    Examples:
      >>> from epe_nas_jax.search.restrict import restrict
      >>> def is_small(cells):
      ...     return network.cost(cells, side=8).params < 10_000
      >>> small = restrict(network.space, is_small)
      >>> is_small(small.sample(jax.random.key(0), 5)).all().tolist()
      True
    """

    def accepts(cells: np.ndarray) -> np.ndarray:
        return one_each("accept", accept(cells), len(cells)).astype(bool)

    def accepted(cells: np.ndarray) -> Iterator[np.ndarray]:
        together = 1 if is_costly else len(cells)
        for start in range(0, len(cells), together):
            some = cells[start : start + together]
            yield from some[accepts(some)]

    def neighbours(cell: np.ndarray) -> np.ndarray:
        cells = space.neighbours(cell)
        return cells[accepts(cells)]

    within = dataclasses.replace(
        space,
        sample=functools.partial(_sample_by_rejection, space, accepted),
        sample_with_replacement=functools.partial(_repeat_by_rejection, space, accepted),
        mutate=functools.partial(_mutate_within, space, accepts),
        neighbours=neighbours,
        every=None,
    )
    if space.every is None or is_costly:
        return within
    listed = space.every()
    listed = listed[accepts(listed)]
    if not len(listed):
        raise _too_few_cells(0, 1)
    return dataclasses.replace(
        within,
        sample=functools.partial(_sample_listed, listed),
        sample_with_replacement=functools.partial(_repeat_listed, listed),
        every=lambda: listed,
    )


def one_each(name: str, values: np.ndarray, num_cells: int) -> np.ndarray:
    """Checks that a function returned one value for each cell.

    Args:
      name: name of the function, for the error message.
      values: the function's result.
      num_cells: A.

    Returns:
      The values as a NumPy array, `[A]`.

    Raises:
      InputError: the values have another shape.
    """
    values = np.asarray(values)
    if values.shape != (num_cells,):
        raise InputError(
            f"{name}: found values of shape {values.shape}, "
            f"expected ({num_cells},), one for each cell"
        )
    return values


def _mutate_within(
    space: SearchSpace, accepts: Accept, key: jax.Array, genotypes: Cells
) -> np.ndarray:
    children = np.array(genotypes)
    missing = np.ones(len(children), bool)
    for _ in range(_MAX_DRAWS):
        key, draw_key = jax.random.split(key)
        mutated = np.asarray(space.mutate(draw_key, genotypes))
        found = np.flatnonzero(missing)
        found = found[accepts(mutated[found])]
        children[found] = mutated[found]
        missing[found] = False
        if not missing.any():
            break
    return children


def _sample_by_rejection(
    space: SearchSpace, accepted: _Filter, key: jax.Array, num_cells: int
) -> np.ndarray:
    found: dict[bytes, np.ndarray] = {}
    for cells in _draws(space, key):
        for cell in accepted(cells):
            found.setdefault(cell.tobytes(), cell)
            if len(found) >= num_cells:
                return np.array(list(found.values())[:num_cells])
    raise _too_few_cells(len(found), num_cells)


def _draws(space: SearchSpace, key: jax.Array) -> Iterator[np.ndarray]:
    """Cells of a space in random order, all of them if they can be listed."""
    if space.every is not None:
        num_cells = len(space.every())
        yield _sample_listed(space.every(), key, num_cells)
        return
    for _ in range(_MAX_DRAWS):
        key, draw_key = jax.random.split(key)
        yield np.asarray(space.sample(draw_key, _CELLS_PER_DRAW))


def _repeat_by_rejection(
    space: SearchSpace, accepted: _Filter, key: jax.Array, num_cells: int
) -> np.ndarray:
    found: list[np.ndarray] = []
    for _ in range(_MAX_DRAWS):
        key, draw_key = jax.random.split(key)
        for cell in accepted(np.asarray(space.sample_with_replacement(draw_key, _CELLS_PER_DRAW))):
            found.append(cell)
            if len(found) >= num_cells:
                return np.array(found[:num_cells])
    raise _too_few_cells(len(found), num_cells)


def _sample_listed(listed: np.ndarray, key: jax.Array, num_cells: int) -> np.ndarray:
    if num_cells > len(listed):
        raise _too_few_cells(len(listed), num_cells)
    return listed[np.asarray(jax.random.permutation(key, len(listed)))[:num_cells]]


def _repeat_listed(listed: np.ndarray, key: jax.Array, num_cells: int) -> np.ndarray:
    return listed[np.asarray(jax.random.randint(key, (num_cells,), 0, len(listed)))]


def _too_few_cells(found: int, expected: int) -> InputError:
    return InputError(f"search space: found {found} cells that are accepted, expected {expected}")
