"""Groups of fixed size: gathers the rows of each branch, and puts their results back.

`grouped_switch` runs a branch in a loop whose length only the device knows, and a GPU waits for the
host in every iteration of such a loop. Here the host has planned that no branch has more rows than
its capacity, so that each runs once, as one dense call, without a loop.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Groups(NamedTuple):
    """The rows of every group, and where the result of every row is found.

    Attributes:
      rows: for each group the indices of its rows, int32 `[capacity]`; places that are left over
        hold other rows, whose results are not used.
      place: index of a row's result in the results of all groups followed by the A rows themselves,
        int32 `[A]`; beyond the end for a row whose result is zeros.
      has_room: whether a row has a place in its group, or needs none, bool `[A]`.
    """

    rows: tuple[jax.Array, ...]
    place: jax.Array
    has_room: jax.Array


def group_rows(branch: jax.Array, capacities: Mapping[int, int], identity: int) -> Groups:
    """Groups the rows that take certain branches.

    Args:
      branch: index of each row's branch, int32 `[A]`.
      capacities: size of the group of each branch that has one, at most A.
      identity: the branch that returns a row unchanged. Branches without a group return zeros.
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
    """Puts the results of all groups back into the order of the rows.

    Args:
      groups: from `group_rows`.
      results: the results of each group, `[capacity, ...]`.
      x: the rows themselves, `[A, ...]`.

    Returns:
      The results, `[A, ...]`; NaN for a row for which its group had no room.
    """
    everything = jnp.concatenate([*results, x])
    found = jnp.take(everything, groups.place, axis=0, mode="fill", fill_value=0)
    has_room = groups.has_room.reshape(-1, *[1] * (found.ndim - 1))
    return jnp.where(has_room, found, jnp.nan)
