"""Steps by groups of fixed size: which cells go together, so that no operation has more than fit.

An accelerator runs each operation of an edge once for all cells of a step that have it there, in an
array whose size is part of the compiled program (`layers.static_groups`). So a step takes any cells
of which no more than so many have an operation on an edge: its *profile*. What a group holds beyond
its cells is computed in vain.

Every process of a run packs for itself: what decides is counted in integers, and so the same on any
machine.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from epe_nas_jax.seeds import generator, random_key
from epe_nas_jax.spaces.base import Capacities, Cells, SearchSpace

# How many lists are drawn to know the mix of operations of a uniform one, and how long they are.
_TYPICAL_LISTS, _TYPICAL_CELLS = 8, 1000
# Of a step's cells the share that a step for few cells has.
_FEW = 1 / 8
# Of what the mix says, the room for the operation that takes longest, and for others: fewer places
# stay empty in vain where there are too few, and the cells that are left go into small steps.
_TIGHT, _ROOMY = 0.95, 1.1
# Of the few cells, the room for the one that takes longest in steps for any cells and in steps for
# cells that have it often, and for others.
_SELDOM, _OFTEN, _OTHERS = 0.25, 0.5, 0.3
# What a step for few cells must gain to be taken before a large one, in percent.
_GAIN = 5
# How many orders are tried, where that takes no time.
_ORDERS, _SHORT_LIST = 4, 2000
# How many cells of the list are looked through to fill a round: as many as it takes, times this, or
# so many.
_WINDOW, _LEAST_WINDOW = 2, 2048
# Of a share times a number, which is meant to be whole.
_ROUNDING = 1e-9
# A full group, as an integer.
_FULL = 4096


class Profile(NamedTuple):
    """The shape of a compiled step.

    Attributes:
      num_cells: how many cells it takes at most, S.
      capacities: how many of them may have each operation on each edge.
    """

    num_cells: int
    capacities: Capacities


class Round(NamedTuple):
    """What all devices do at one time: a step each, of one profile.

    Attributes:
      profile: of the steps.
      steps: of each device that has cells their numbers in the list.
    """

    profile: Profile
    steps: list[np.ndarray]


class Packer(NamedTuple):
    """What lists the steps are made for.

    Attributes:
      mix: the share of their networks with each operation on each edge, `[E, operations]`.
      num_together: how many networks a list has at most; None: any number.
      group_work: as `CellNetwork.group_work`.
    """

    mix: np.ndarray
    num_together: int | None
    group_work: tuple[int, ...]

    def profiles(self, cells_per_step: int, num_devices: int = 1) -> tuple[Profile, ...]:
        """The profiles of steps: three, so that few programs are compiled.

        They depend on no list, so that the next run finds the programs compiled. The first is made
        for the mix. The second takes few cells of any kind: what is left of a list, or a small
        list. The third takes few cells too, with room for the slowest operation on most of their
        edges, as an evolved population has it.

        Args:
          cells_per_step: how many cells fit the memory.
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
    """The packer for lists like these, networks `[A, E]` each.

    Args:
      lists: such as will be scored.
      group_work: as `CellNetwork.group_work`.
      num_together: how many networks a list has at most; None: any number.
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
    """The packer for lists of cells that are drawn uniformly.

    Args:
      space: where to draw.
      networks_of: from cells `[A, E]` to the different networks among them, as they are built.
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
    """Packs cells into steps of the given profiles, so that little is computed in vain.

    Round after round takes the profile in which the cells that are left fill the largest part of
    what it computes. They are picked one by one, so that at any time all groups are about equally
    full. Of some orders in which the cells may be looked at, the best one is kept.

    Args:
      cells: the list, int `[A, E]`.
      profiles: as from `Packer.profiles`; each has room for every cell.
      group_work: as `CellNetwork.group_work`.
      num_devices: how many steps run at the same time.
    """
    work = np.asarray(group_work)
    num_orders = _ORDERS if len(cells) <= _SHORT_LIST else 1
    orders = [generator(seed).permutation(len(cells)) for seed in range(num_orders)]
    packed = [_pack_in_order(cells, order, profiles, work, num_devices) for order in orders]
    return min(packed, key=lambda rounds: sum(_computed(done.profile, work) for done in rounds))


def in_vain(cells: np.ndarray, rounds: Sequence[Round], operation: int) -> float:
    """What groups of one operation compute beyond what cells `[A, E]` need, as a share of this.

    The rounds are of one device.
    """
    capacities = [row[operation] for done in rounds for row in done.profile.capacities]
    return float(sum(capacities) / np.sum(cells == operation) - 1)


def has_room(cells: np.ndarray, capacities: Capacities) -> bool:
    """Whether of cells `[S, E]` no more have an operation on an edge than there is room for."""
    room = np.asarray(capacities)
    counts = np.stack([np.sum(cells == number, axis=0) for number in range(room.shape[1])], axis=1)
    return bool(np.all(counts <= room))


def _capacities(num_cells: int, shares: np.ndarray, work: np.ndarray) -> Capacities:
    # What needs no group has room for all.
    room = np.where(
        work > 0, np.clip(np.ceil(shares * num_cells - _ROUNDING), 1, num_cells), num_cells
    )
    return tuple(tuple(int(capacity) for capacity in row) for row in room)


def _computed(profile: Profile, work: np.ndarray) -> int:
    """How long a step takes, in the unit of the operations' work: a cell without any takes 1."""
    return int(np.sum(np.asarray(profile.capacities) * work)) + profile.num_cells


def _pack_in_order(
    cells: np.ndarray,
    order: np.ndarray,
    profiles: Sequence[Profile],
    work: np.ndarray,
    num_devices: int,
) -> list[Round]:
    grouped = np.flatnonzero(work)
    # Of every cell which groups it is in, `[A, E * groups]`.
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
    """Numbers of the cells that fill a step of each device, of those that have any."""
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
    """Numbers of the cells of `[A, groups]` that fill a step, at most so many, none twice."""
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
