"""Steps by groups of fixed size: which cells go together, so that no operation has more than fit.

An accelerator runs each operation of an edge once for all cells of a step that have it there, in an
array whose size is part of the compiled program (`layers.static_groups`). So a step takes any cells
of which no more than so many have an operation on an edge: its *profile*. What a group holds beyond
its cells is computed in vain.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from epe_nas_jax.seeds import generator
from epe_nas_jax.spaces.base import Capacities

# Of a step's cells the share that a step for few cells has.
_FEW = 1 / 8
# What steps for few cells have room for, whatever the mix: of any operation, and where the one that
# takes longest is frequent, of that one and of the others.
_LEAST_SHARE = 0.15
_OFTEN, _ELSEWHERE = 0.6, 0.3
# More room for operations that take little time.
_SLACK = 1.05
# What a step for few cells must gain to be taken before a large one.
_GAIN = 1.05
# How many orders are tried, where that takes no time.
_ORDERS, _SHORT_LIST = 4, 2000
# How many cells of the list, in units of those of a step, are looked through to fill a step.
_WINDOW = 16


class Profile(NamedTuple):
    """The shape of a compiled step.

    Attributes:
      num_cells: how many cells it takes at most, S.
      capacities: how many of them may have each operation on each edge.
    """

    num_cells: int
    capacities: Capacities


class Mix(NamedTuple):
    """What steps are made for.

    Attributes:
      shares: of the cells those that have each operation on each edge, `[E, operations]`.
      num_cells: how many cells are meant to be scored together; None: any number.
      group_work: as `CellNetwork.group_work`.
    """

    shares: np.ndarray
    num_cells: int | None
    group_work: tuple[float, ...]


def mix_of(networks: np.ndarray, group_work: tuple[float, ...]) -> Mix:
    """The mix of a list of networks, as they are built, int `[A, E]`."""
    shares = [np.mean(networks == operation, axis=0) for operation in range(len(group_work))]
    return Mix(np.stack(shares, axis=1), len(networks), group_work)


def profiles_of(mix: Mix, cells_per_step: int, num_devices: int = 1) -> tuple[Profile, ...]:
    """The profiles of a list's steps: three, so that few programs are compiled.

    The first is made for the mix. The second takes few cells of any kind: what is left of a list,
    or a small list. The third takes few cells too, with room for the slowest operation on most of
    their edges, as an evolved population has it.

    Args:
      mix: of the list's cells.
      cells_per_step: how many cells fit the memory.
      num_devices: how many steps run at the same time.
    """
    shares, work = mix.shares, np.asarray(mix.group_work)
    num_cells = mix.num_cells or cells_per_step * num_devices
    num_steps = num_devices * -(-num_cells // (num_devices * cells_per_step))
    size = -(-num_cells // num_steps)
    few = max(1, round(size * _FEW))
    is_slowest = work == work.max()
    roomy = shares * np.where(is_slowest, 1, _SLACK)
    often = np.broadcast_to(np.where(is_slowest, _OFTEN, _ELSEWHERE), shares.shape)
    return tuple(
        Profile(number, _capacities(number, room, work))
        for number, room in ((size, roomy), (few, np.maximum(roomy, _LEAST_SHARE)), (few, often))
    )


def pack(
    cells: np.ndarray, profiles: Sequence[Profile], group_work: Sequence[float]
) -> list[tuple[Profile, np.ndarray]]:
    """Packs cells into steps of the given profiles, so that little is computed in vain.

    Step after step takes the profile in which the cells that are left fill the largest part of what
    it computes. They are picked one by one, so that at any time all groups are about equally full.
    Of some orders in which the cells may be looked at, the best one is kept.

    Args:
      cells: the list, int `[A, E]`.
      profiles: as from `profiles_of`; each has room for every cell.
      group_work: as `CellNetwork.group_work`.

    Returns:
      Of every step the profile and the numbers of its cells in the list.
    """
    work = np.asarray(group_work)
    num_orders = _ORDERS if len(cells) <= _SHORT_LIST else 1
    orders = [generator(seed).permutation(len(cells)) for seed in range(num_orders)]
    packed = [_pack_in_order(cells, order, profiles, work) for order in orders]
    return min(packed, key=lambda steps: sum(_computed(profile, work) for profile, _ in steps))


def _pack_in_order(
    cells: np.ndarray, order: np.ndarray, profiles: Sequence[Profile], work: np.ndarray
) -> list[tuple[Profile, np.ndarray]]:
    grouped = np.flatnonzero(work)
    # Of every cell which groups it is in, `[A, E * groups]`.
    taken = (cells[order, :, None] == grouped).reshape(len(cells), -1)
    weights = np.tile(work[grouped], cells.shape[1])
    steps = []
    while len(order):
        fills = []
        for profile in profiles:
            room = np.asarray(profile.capacities)[:, grouped].reshape(-1)
            picked = _fill(taken[: _WINDOW * profile.num_cells], profile.num_cells, room, weights)
            needed = np.sum(taken[picked] @ weights) + len(picked)
            useful = needed / _computed(profile, work)
            fills.append((useful / (1 if profile is profiles[0] else _GAIN), profile, picked))
        _, profile, picked = max(fills, key=lambda fill: fill[0])
        steps.append((profile, order[picked]))
        order, taken = np.delete(order, picked), np.delete(taken, picked, axis=0)
    return steps


def _computed(profile: Profile, work: np.ndarray) -> float:
    """How long a step takes, in the unit of the operations' work: a cell without any takes 1."""
    return float(np.sum(np.asarray(profile.capacities) @ work) + profile.num_cells)


def in_vain(
    cells: np.ndarray, steps: Sequence[tuple[Profile, np.ndarray]], operation: int
) -> float:
    """What groups of one operation compute beyond what cells `[A, E]` need, as a share of this."""
    run = sum(capacity[operation] for profile, _ in steps for capacity in profile.capacities)
    return float(run / np.sum(cells == operation) - 1)


def _capacities(num_cells: int, shares: np.ndarray, work: np.ndarray) -> Capacities:
    # What needs no group has room for all.
    room = np.where(work > 0, np.clip(np.ceil(shares * num_cells), 1, num_cells), num_cells)
    return tuple(tuple(int(capacity) for capacity in row) for row in room)


def _fill(taken: np.ndarray, num_cells: int, room: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Numbers of the cells of `[A, groups]` that fill a step, at most so many, none twice."""
    is_left = np.ones(len(taken), bool)
    left = room.copy()
    picked: list[int] = []
    while len(picked) < num_cells:
        fits = is_left & np.all(taken <= left, axis=1)
        if not fits.any():
            break
        filled = (room - left + taken) / room
        unevenness = (filled - (len(picked) + 1) / num_cells) ** 2 @ weights
        best = int(np.argmin(np.where(fits, unevenness, np.inf)))
        picked.append(best)
        is_left[best] = False
        left = left - taken[best]
    return np.array(picked, int)
