"""Which cells run where and when: steps that fit the memory, shared out evenly over devices."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.memory import free_bytes
from epe_nas_jax.scoring.packing import Round
from epe_nas_jax.spaces.base import Capacities, CellNetwork

# Fewest and most, and the bytes that all cells of a step may go through, one after another: they
# stand for time. Shared weights are drawn anew for every step, which takes as long as several small
# cells.
_CPU_CELLS_PER_STEP = (16, 256)
_CPU_BYTES_PER_STEP = 16 * 2**30
# Of a device that runs a step's cells at once: by loops, and by groups of fixed size.
_MAX_CELLS_BY_LOOPS, _MAX_CELLS_BY_GROUPS = 64, 1024
# Of what loops keep for the backward pass, the share that groups keep: in full, and by half.
_KEPT_BY_GROUPS, _KEPT_IN_HALVES = 0.4, 0.27
# What may be asked for: far more than any device holds at once.
_MOST_CELLS_PER_STEP = 2**16
_MEMORY_SHARE = 0.6


class Shard(NamedTuple):
    """One process's part of every step, where several processes share the work.

    Attributes:
      process: which process, from 0.
      num_processes: how many there are.
      num_devices: how many devices each of them uses.
      cells_per_step: how many cells of a step each device takes at most, S.
    """

    process: int
    num_processes: int
    num_devices: int
    cells_per_step: int

    @property
    def num_slots(self) -> int:
        """How many cells of a step each process takes at most."""
        return self.num_devices * self.cells_per_step

    def rows(self, work: np.ndarray) -> np.ndarray:
        """Which cells of a step are this process's, in their order.

        Args:
          work: how long each takes, `[A]`, at most as many as all processes have slots.
        """
        assigned = assign_slots(work, self.num_processes, self.num_slots)
        own = np.sort(assigned.reshape(self.num_processes, self.num_slots)[self.process])
        return own[own < len(work)]


EMPTY = -1


class Step(NamedTuple):
    """What one process does in a step.

    Attributes:
      slots: which cell of the list each slot has, device by device, int `[devices * S]`; `EMPTY` if
        none.
      capacities: how many of a device's cells may have each operation on each edge; None: any.
      num_cells: how many cells all processes have in it.
    """

    slots: np.ndarray
    capacities: Capacities | None
    num_cells: int

    @property
    def is_cell(self) -> np.ndarray:
        """Which slots have a cell, bool `[devices * S]`."""
        return self.slots != EMPTY

    @property
    def cells(self) -> np.ndarray:
        """The numbers of this process's cells, in their order."""
        return np.sort(self.slots[self.is_cell])


def plan_steps(
    wanted: int | str,
    network: CellNetwork,
    batch_shape: tuple[int, ...],
    devices: Sequence[jax.Device],
    precision: str = "float32",
) -> tuple[int, int]:
    """Cells a device gets in a step, and how many devices to use: by estimate, before compiling.

    Args:
      wanted: a number of cells, which is kept, or `"auto"`.
      network: the network to run.
      batch_shape: `(N, H, W, 3)`.
      devices: devices of one kind.
      precision: as `ScoringConfig.precision`.

    Raises:
      InputError: neither an integer in 1..65536 nor `"auto"`.
    """
    # NumPy's integers are no ints.
    is_number = isinstance(wanted, int | np.integer) and not isinstance(wanted, bool)
    if not (is_number and 1 <= int(wanted) <= _MOST_CELLS_PER_STEP) and wanted != "auto":
        raise InputError(
            f"cells_per_step: found {wanted!r}, expected 1..{_MOST_CELLS_PER_STEP} or 'auto'"
        )
    is_cpu = devices[0].platform == "cpu"
    if is_number and not is_cpu:
        return int(wanted), len(devices)
    itemsize = jnp.dtype(network.param_dtype).itemsize
    bytes_per_cell = int(network.activation_count(batch_shape) * itemsize)
    if is_cpu:
        automatic = np.clip(_CPU_BYTES_PER_STEP // max(1, bytes_per_cell), *_CPU_CELLS_PER_STEP)
        cells_per_step, cells_together = int(wanted if is_number else automatic), 1
    else:
        cells_per_step = cells_together = _MAX_CELLS_BY_LOOPS
        if network.group_work is not None:
            cells_per_step = cells_together = _MAX_CELLS_BY_GROUPS
            kept = _KEPT_BY_GROUPS if precision == "float32" else _KEPT_IN_HALVES
            bytes_per_cell = int(bytes_per_cell * kept)
    needed = bytes_per_cell * cells_together
    return fit_memory(cells_per_step, devices, needed, usable_memory(devices[0]))


def checked_devices(devices: Sequence[jax.Device] | None) -> list[jax.Device]:
    """The devices to use: those given, by default all that this process has."""
    found = jax.local_devices() if devices is None else list(devices)
    if not found:
        raise InputError("devices: found none, expected at least one, or None for all")
    return found


def usable_memory(device: jax.Device) -> int:
    """Bytes that a program may take of a device's memory; of all CPU devices together."""
    return int(_MEMORY_SHARE * free_bytes(device))


def fit_memory(
    cells_per_step: int, devices: Sequence[jax.Device], needed: int, usable: int
) -> tuple[int, int]:
    """Cells a device gets in a step and how many devices to use, so that memory suffices.

    CPU devices are cores of one memory and work on one cell at a time each: fewer of them are used.
    Other devices have a memory each and run a step's cells at once: they get fewer cells.

    Args:
      cells_per_step: cells of a device in a step, S.
      devices: devices of one kind.
      needed: bytes that the program takes on each device.
      usable: bytes that it may take, as from `usable_memory`.
    """
    if devices[0].platform == "cpu":
        return cells_per_step, max(1, min(len(devices), usable // max(1, needed)))
    if needed <= usable:
        return cells_per_step, len(devices)
    return max(1, cells_per_step * usable // needed), len(devices)


def assign_slots(work: np.ndarray, num_devices: int, cells_per_step: int) -> np.ndarray:
    """Assigns the cells of a step to slots so that all devices have about the same work.

    Args:
      work: how long each cell takes, `[A]`, at most as many as there are slots.
      num_devices: number of devices.
      cells_per_step: slots of a device, S.

    Returns:
      Which cell has which slot, device by device, int `[num_devices * S]`; A marks an empty slot.
    """
    order = np.full(num_devices * cells_per_step, len(work))
    order[: len(work)] = np.argsort(-work, kind="stable")
    # Round after round, every second one backwards, as teams are chosen.
    rounds = order.reshape(cells_per_step, num_devices)
    rounds[1::2] = rounds[1::2, ::-1]
    return rounds.T.reshape(-1)


def steps_in_order(
    work: np.ndarray, shard: Shard, num_devices: int, cells_per_step: int
) -> Iterator[Step]:
    """Steps of a list as it comes, so that the devices of a step have about the same work.

    Args:
      work: how long each cell takes, `[A]`.
      shard: the process that asks.
      num_devices: of this process.
      cells_per_step: slots of a device, S.
    """
    size = shard.num_processes * shard.num_slots
    for start in range(0, len(work), size):
        part = work[start : start + size]
        own = start + shard.rows(part)
        order = assign_slots(work[own], num_devices, cells_per_step)
        yield Step(np.append(own, EMPTY)[order], None, len(part))


def steps_by_groups(rounds: Sequence[Round], shard: Shard, num_devices: int) -> Iterator[Step]:
    """Steps of a packed list, a round each.

    Args:
      rounds: as from `packing.pack`, of one list in all processes.
      shard: the process that asks.
      num_devices: of this process; the first `shard.num_devices` of them get cells.
    """
    assert shard.num_devices <= num_devices
    for profile, steps in rounds:
        own = steps[shard.process * shard.num_devices :][: shard.num_devices]
        slots = np.full((num_devices, profile.num_cells), EMPTY)
        for row, cells in zip(slots, own, strict=False):
            row[: len(cells)] = cells
        yield Step(slots.reshape(-1), profile.capacities, sum(map(len, steps)))
