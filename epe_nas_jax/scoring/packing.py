"""Packs cells into steps by groups of fixed size, so that every cell has a place in its groups.

An accelerator runs each operation of an edge once for all cells of a step that have it there, in an
array whose size is part of the compiled program (`layers.static_groups`). The *profile* of a step
says how many of its cells may have each operation on each edge. Places of a group that no cell
takes are computed for nothing: packing keeps them few.

Every process of a run packs for itself. It decides by integers only, so that the result is the same
on any machine.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from epe_nas_jax.seeds import generator, random_key
from epe_nas_jax.spaces.base import Capacities, Cells, SearchSpace

# Number and length of the uniformly drawn lists from which the mix of operations is estimated.
_TYPICAL_LISTS, _TYPICAL_CELLS = 8, 1000
# Size of a small step, as a share of a large one.
_FEW = 1 / 8
# Capacities of a large step's groups relative to the mix, for the slowest operation and for others.
# Too few places for the slowest leave none of them empty; cells that do not fit take small steps.
_TIGHT, _ROOMY = 0.95, 1.1
# Capacities of a small step's groups, as shares of its cells: for the slowest operation in steps
# for any cells, in steps for cells that have it often, and for other operations.
_SELDOM, _OFTEN, _OTHERS = 0.25, 0.5, 0.3
# A small step is taken before a large one only if it is fuller by so many percent.
_GAIN = 5
# How many orders of a list are tried, and up to which length.
_ORDERS, _SHORT_LIST = 4, 2000
# Cells of the list to choose from when a round is filled: this factor times those that the round
# takes, and at least so many.
_WINDOW, _LEAST_WINDOW = 2, 2048
# Rounding error of a share times a number whose exact product is an integer.
_ROUNDING = 1e-9
# How full a group is, in integers from 0 to this.
_FULL = 4096


class Profile(NamedTuple):
    """The shape of a compiled step.

    Attributes:
      num_cells: the most cells that the step takes, S.
      capacities: how many of them may have each operation on each edge.
    """

    num_cells: int
    capacities: Capacities


class Round(NamedTuple):
    """The steps that all devices run at the same time, all of one profile.

    Attributes:
      profile: the profile of the steps.
      steps: for each device that has cells, the indices of its cells in the list.
    """

    profile: Profile
    steps: list[np.ndarray]


class Packer(NamedTuple):
    """The kind of lists for which steps are planned.

    Attributes:
      mix: the share of a list's networks with each operation on each edge, `[E, operations]`.
      num_together: the most networks of a list; None: any number.
      group_work: as `CellNetwork.group_work`.
    """

    mix: np.ndarray
    num_together: int | None
    group_work: tuple[int, ...]

    def profiles(self, cells_per_step: int, num_devices: int = 1) -> tuple[Profile, ...]:
        """The three profiles of steps: so few that few programs are compiled.

        They depend on no particular list, so that the next run finds its programs compiled. The
        first is made for the mix. The second takes few cells of any kind: the end of a list, or a
        short list. The third takes few cells too, with room for the slowest operation on most of
        their edges, as in an evolved population.

        Args:
          cells_per_step: how many cells fit into memory.
          num_devices: how many steps run at the same time.
        """
        work = np.asarray(self.group_work)
        size = cells_per_step
        if self.num_together:
            num_steps = num_devices * -(-self.num_together // (num_devices * cells_per_step))
            size = -(-self.num_together // num_steps)
        few = max(1, round(size * _FEW))
        is_slowest = work == work.max()
        shares = (
            (size, self.mix * np.where(is_slowest, _TIGHT, _ROOMY)),
            (few, np.where(is_slowest, _SELDOM, _OTHERS)),
            (few, np.where(is_slowest, _OFTEN, _OTHERS)),
        )
        return tuple(
            Profile(number, _capacities(number, np.broadcast_to(room, self.mix.shape), work))
            for number, room in shares
        )


def packer_of(
    lists: Sequence[np.ndarray], group_work: tuple[int, ...], num_together: int | None
) -> Packer:
    """Makes the packer for lists that are like some given ones.

    Args:
      lists: typical lists of networks, int `[A, E]` each.
      group_work: as `CellNetwork.group_work`.
      num_together: the most networks of a list; None: any number.
    """
    operations = range(len(group_work))
    shares = [[np.mean(cells == number, axis=0) for number in operations] for cells in lists]
    return Packer(np.mean(shares, axis=0).T, num_together, group_work)


def uniform_packer(
    space: SearchSpace,
    networks_of: Callable[[Cells], np.ndarray],
    group_work: tuple[int, ...],
    num_together: int | None,
) -> Packer:
    """Makes the packer for lists of cells that are drawn uniformly.

    Args:
      space: the space to draw from.
      networks_of: from cells `[A, E]` to the genotypes of the different networks that they need.
      group_work: as `CellNetwork.group_work`.
      num_together: as in `packer_of`.
    """
    keys = [random_key(number) for number in range(_TYPICAL_LISTS)]
    lists = [space.sample_with_replacement(key, _TYPICAL_CELLS) for key in keys]
    return packer_of([networks_of(cells) for cells in lists], group_work, num_together)


def pack(
    cells: np.ndarray,
    profiles: Sequence[Profile],
    group_work: Sequence[int],
    num_devices: int = 1,
) -> list[Round]:
    """Packs cells into steps of the given profiles, so that few places stay empty.

    Each round takes the profile that the remaining cells fill best, measured by the work of the
    groups. Cells are picked one by one, so that all groups stay about equally full. Several orders
    of the list are tried, and the best result is kept.

    Args:
      cells: the list, int `[A, E]`.
      profiles: as from `Packer.profiles`; a step of each can take any single cell.
      group_work: as `CellNetwork.group_work`.
      num_devices: how many steps run at the same time.
    """
    work = np.asarray(group_work)
    num_orders = _ORDERS if len(cells) <= _SHORT_LIST else 1
    orders = [generator(seed).permutation(len(cells)) for seed in range(num_orders)]
    packed = [_pack_in_order(cells, order, profiles, work, num_devices) for order in orders]
    return min(packed, key=lambda rounds: sum(_computed(done.profile, work) for done in rounds))


def in_vain(cells: np.ndarray, rounds: Sequence[Round], operation: int) -> float:
    """How many places of one operation's groups no cell takes, as a share of those taken.

    Args:
      cells: the packed cells, int `[A, E]`.
      rounds: the rounds of one device.
      operation: index of the operation.
    """
    capacities = [row[operation] for done in rounds for row in done.profile.capacities]
    return float(sum(capacities) / np.sum(cells == operation) - 1)


def has_room(cells: np.ndarray, capacities: Capacities) -> bool:
    """Whether the groups have room for all cells `[S, E]` of a step."""
    room = np.asarray(capacities)
    counts = np.stack([np.sum(cells == number, axis=0) for number in range(room.shape[1])], axis=1)
    return bool(np.all(counts <= room))


def _capacities(num_cells: int, shares: np.ndarray, work: np.ndarray) -> Capacities:
    # An operation without a group has room for all cells.
    room = np.where(
        work > 0, np.clip(np.ceil(shares * num_cells - _ROUNDING), 1, num_cells), num_cells
    )
    return tuple(tuple(int(capacity) for capacity in row) for row in room)


def _computed(profile: Profile, work: np.ndarray) -> int:
    """How long a step takes; a cell without operations takes 1."""
    return int(np.sum(np.asarray(profile.capacities) * work)) + profile.num_cells


def _pack_in_order(
    cells: np.ndarray,
    order: np.ndarray,
    profiles: Sequence[Profile],
    work: np.ndarray,
    num_devices: int,
) -> list[Round]:
    grouped = np.flatnonzero(work)
    # Whether a cell has a place in a group, `[A, E * groups]`.
    taken = (cells[order][:, :, None] == grouped).reshape(len(cells), cells.shape[1] * len(grouped))
    weights = np.tile(work[grouped], cells.shape[1])
    rounds = []
    while len(order):
        best, most = [np.arange(0)], -1.0
        for profile in profiles:
            room = np.asarray(profile.capacities)[:, grouped].reshape(-1)
            steps = _fill_devices(taken, profile.num_cells, room, weights, num_devices)
            picked = np.concatenate(steps)
            needed = int(np.sum(taken[picked] * weights)) + len(picked)
            useful = needed / (num_devices * _computed(profile, work))
            useful *= 1 if profile is profiles[0] else 100 / (100 + _GAIN)
            if useful > most:
                best, most, chosen = steps, useful, profile
        rounds.append(Round(chosen, [order[picked] for picked in best]))
        picked = np.concatenate(best)
        order, taken = np.delete(order, picked), np.delete(taken, picked, axis=0)
    return rounds


def _fill_devices(
    taken: np.ndarray, num_cells: int, room: np.ndarray, weights: np.ndarray, num_devices: int
) -> list[np.ndarray]:
    """Indices of the cells that fill a step of each device; devices without cells are left out."""
    window = min(len(taken), max(_WINDOW * num_cells * num_devices, _LEAST_WINDOW))
    left = np.arange(window)
    steps = []
    for _ in range(num_devices):
        picked = left[_fill(taken[left], num_cells, room, weights)]
        steps.append(picked)
        left = np.setdiff1d(left, picked, assume_unique=True)
        if not len(left):
            break
    return steps


def _fill(taken: np.ndarray, num_cells: int, room: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Indices of the cells of `[A, groups]` that fill a step: different ones, up to `num_cells`."""
    is_left = np.ones(len(taken), bool)
    left = room.copy()
    picked: list[int] = []
    while len(picked) < num_cells:
        fits = is_left & np.all(taken <= left, axis=1)
        if not fits.any():
            break
        filled = (room - left + taken) * _FULL // room
        meant = (len(picked) + 1) * _FULL // num_cells
        unevenness = np.sum((filled - meant) ** 2 * weights, axis=1)
        best = int(np.argmin(np.where(fits, unevenness, np.iinfo(np.int64).max)))
        picked.append(best)
        is_left[best] = False
        left = left - taken[best]
    return np.array(picked, int)
