"""Groups of fixed size: the rows of a branch taken together, and their results put back.

`grouped_switch` runs a branch in a loop whose length only the device knows, and a GPU waits for the
host at every turn of such a loop. Here the host has seen to it that no branch has more rows than
its capacity, so that each runs once, as one dense call, without a loop.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Groups(NamedTuple):
    """Which rows stand where when a branch's rows are taken together.

    Attributes:
      rows: for each group which rows of the step it has, int32 `[capacity]`; places that are left
        hold other rows, whose results nobody asks for.
      place: where a row's result stands among those of all groups, one group after another, and
        the A rows themselves, int32 `[A]`; behind the last for a row that has none.
      has_room: whether a row has a place, or needs none, bool `[A]`.
    """

    rows: tuple[jax.Array, ...]
    place: jax.Array
    has_room: jax.Array


def group_rows(branch: jax.Array, capacities: Mapping[int, int], identity: int) -> Groups:
    """Groups the rows that take certain branches.

    Args:
      branch: which branch each row takes, int32 `[A]`.
      capacities: for each branch that has a group how many rows this holds, at most A.
      identity: the branch that leaves a row as it is. Any other has zeros as its result.
    """
    rows = []
    own = sum(capacities.values()) + jnp.arange(len(branch), dtype=jnp.int32)
    place = jnp.where(branch == identity, own, own[-1] + 1)
    has_room = jnp.ones(branch.shape, bool)
    first = 0
    for number, capacity in capacities.items():
        is_of_group = branch == number
        rank = jnp.cumsum(is_of_group, dtype=jnp.int32) - 1
        rows.append(jnp.argsort(~is_of_group, stable=True)[:capacity].astype(jnp.int32))
        place = jnp.where(is_of_group, first + rank, place)
        has_room &= ~is_of_group | (rank < capacity)
        first += capacity
    return Groups(tuple(rows), place, has_room)


def put_back(groups: Groups, results: Sequence[jax.Array], x: jax.Array) -> jax.Array:
    """The results of all rows in their order.

    Args:
      groups: from `group_rows`.
      results: of each group, `[capacity, ...]`.
      x: the rows themselves, `[A, ...]`.

    Returns:
      `[A, ...]`; NaN for a row that its group had no room for.
    """
    everything = jnp.concatenate([*results, x])
    found = jnp.take(everything, groups.place, axis=0, mode="fill", fill_value=0)
    has_room = groups.has_room.reshape(-1, *[1] * (found.ndim - 1))
    return jnp.where(has_room, found, jnp.nan)
