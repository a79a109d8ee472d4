"""Plans which cells run where and when: steps that fit into memory, with equal work per device."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.memory import free_bytes
from epe_nas_jax.scoring.packing import Round
from epe_nas_jax.spaces.base import Capacities, CellNetwork

# Fewest and most cells of a CPU's step. Shared weights are drawn anew for every step, which takes
# as long as several small cells.
_CPU_CELLS_PER_STEP = (16, 256)
# Bytes that the cells of a CPU's step use, one after another: a measure of the step's time.
_CPU_BYTES_PER_STEP = 16 * 2**30
# Most cells of a device that runs them at once: by loops, and by groups of fixed size.
_MAX_CELLS_BY_LOOPS, _MAX_CELLS_BY_GROUPS = 64, 1024
# What groups keep for the backward pass relative to loops: in float32, and in bfloat16.
_KEPT_BY_GROUPS, _KEPT_IN_HALVES = 0.4, 0.27
# Most cells that a user may ask for: far more than any device holds at once.
_MOST_CELLS_PER_STEP = 2**16
# Share of the free memory that a program may take.
_MEMORY_SHARE = 0.6


class Shard(NamedTuple):
    """One process's part of every step, where several processes share the work.

    Attributes:
      process: number of the process, from 0.
      num_processes: how many processes there are.
      num_devices: how many devices each of them uses.
      cells_per_step: the most cells that a device takes in a step, S.
    """

    process: int
    num_processes: int
    num_devices: int
    cells_per_step: int

    @property
    def num_slots(self) -> int:
        """The most cells that each process takes in a step."""
        return self.num_devices * self.cells_per_step

    def rows(self, work: np.ndarray) -> np.ndarray:
        """Indices of the cells of a step that this process scores, in increasing order.

        Args:
          work: how long each cell takes, `[A]`; A is at most the number of slots of all processes.
        """
        assigned = assign_slots(work, self.num_processes, self.num_slots)
        own = np.sort(assigned.reshape(self.num_processes, self.num_slots)[self.process])
        return own[own < len(work)]


# The index of a slot without a cell.
EMPTY = -1


class Step(NamedTuple):
    """The cells of one process in a step.

    Attributes:
      slots: for each slot, device by device, the index of its cell in the list, int
        `[devices * S]`; `EMPTY` if it has none.
      capacities: how many of a device's cells may have each operation on each edge; None: any.
      num_cells: how many cells all processes together have in the step.
    """

    slots: np.ndarray
    capacities: Capacities | None
    num_cells: int

    @property
    def is_cell(self) -> np.ndarray:
        """Whether a slot has a cell, bool `[devices * S]`."""
        return self.slots != EMPTY

    @property
    def cells(self) -> np.ndarray:
        """Indices of this process's cells, in increasing order."""
        return np.sort(self.slots[self.is_cell])


def plan_steps(
    wanted: int | str,
    network: CellNetwork,
    batch_shape: tuple[int, ...],
    devices: Sequence[jax.Device],
    precision: str = "float32",
) -> tuple[int, int]:
    """Estimates, before compiling, how many cells a device gets in a step, and of how many devices.

    Args:
      wanted: a number of cells, which is used as it is, or `"auto"`.
      network: the network to run.
      batch_shape: `(N, H, W, 3)`.
      devices: devices of one kind.
      precision: as `ScoringConfig.precision`.

    Returns:
      Cells per device and step, and the number of devices.

    Raises:
      InputError: `wanted` is neither an integer in 1..65536 nor `"auto"`.
    """
    # NumPy's integers are not instances of `int`.
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
    """Bytes that a program may take of a device's memory; CPU devices share them."""
    return int(_MEMORY_SHARE * free_bytes(device))


def fit_memory(
    cells_per_step: int, devices: Sequence[jax.Device], needed: int, usable: int
) -> tuple[int, int]:
    """Reduces the cells per step, or the number of devices, until the program fits into memory.

    CPU devices share one memory and each works on one cell at a time: fewer of them are used. Other
    devices have their own memory and run a step's cells at once: they get fewer cells.

    Args:
      cells_per_step: cells of a device in a step, S.
      devices: devices of one kind.
      needed: bytes that the program takes on each device.
      usable: bytes that it may take, as from `usable_memory`.

    Returns:
      Cells per device and step, and the number of devices.
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
      The index of each slot's cell, device by device, int `[devices * S]`; A marks an empty slot.
    """
    order = np.full(num_devices * cells_per_step, len(work))
    order[: len(work)] = np.argsort(-work, kind="stable")
    # In rounds, every second one backwards, so that no device always gets the largest cell.
    rounds = order.reshape(cells_per_step, num_devices)
    rounds[1::2] = rounds[1::2, ::-1]
    return rounds.T.reshape(-1)


def steps_in_order(
    work: np.ndarray, shard: Shard, num_devices: int, cells_per_step: int
) -> Iterator[Step]:
    """Yields the steps of a list in its order, with about equal work for the devices of a step.

    Args:
      work: how long each cell takes, `[A]`.
      shard: this process's part.
      num_devices: number of devices of this process.
      cells_per_step: slots of a device, S.
    """
    size = shard.num_processes * shard.num_slots
    for start in range(0, len(work), size):
        part = work[start : start + size]
        own = start + shard.rows(part)
        order = assign_slots(work[own], num_devices, cells_per_step)
        yield Step(np.append(own, EMPTY)[order], None, len(part))


def steps_by_groups(rounds: Sequence[Round], shard: Shard, num_devices: int) -> Iterator[Step]:
    """Yields the steps of a packed list, one step per round.

    Args:
      rounds: as from `packing.pack`; equal in all processes.
      shard: this process's part.
      num_devices: number of devices of this process; the first `shard.num_devices` get cells.
    """
    assert shard.num_devices <= num_devices
    for profile, steps in rounds:
        own = steps[shard.process * shard.num_devices :][: shard.num_devices]
        slots = np.full((num_devices, profile.num_cells), EMPTY)
        for row, cells in zip(slots, own, strict=False):
            row[: len(cells)] = cells
        yield Step(slots.reshape(-1), profile.capacities, sum(map(len, steps)))
