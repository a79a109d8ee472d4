"""Which cells run where and when: steps that fit the memory, dealt to devices of equal load.

Shape legend: A cells, D devices, S places of a device in a step.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from epe_nas_jax.errors import InputError
from epe_nas_jax.space import SpaceNetwork

_CPU_CELLS_PER_STEP = 16
_MAX_CELLS_PER_STEP = 64
_MEMORY_SHARE = 0.6


def plan_steps(
    wanted: int | str,
    network: SpaceNetwork,
    batch_shape: tuple[int, ...],
    devices: Sequence[jax.Device],
) -> tuple[int, list[jax.Device]]:
    """Cells a device gets in a step, and the devices to use: what their memory holds.

    Args:
      wanted: a number of cells, or `"auto"`.
      network: the network to run.
      batch_shape: `(N, H, H, 3)`.
      devices: devices of one kind.

    Raises:
      InputError: neither a positive integer nor `"auto"`.
    """
    is_number = isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 1
    if not is_number and wanted != "auto":
        raise InputError(f"cells_per_step: found {wanted!r}, expected a positive integer or 'auto'")
    bytes_per_cell = network.kept_values(batch_shape) * jnp.dtype(network.param_dtype).itemsize
    if devices[0].platform == "cpu":
        # Devices are cores of one memory, and each works on one cell at a time.
        free = psutil.virtual_memory().available
        num_devices = max(1, int(_MEMORY_SHARE * free / bytes_per_cell))
        return int(wanted) if is_number else _CPU_CELLS_PER_STEP, list(devices[:num_devices])
    limit = (devices[0].memory_stats() or {}).get("bytes_limit", 8 * 2**30)
    fitting = max(1, min(_MAX_CELLS_PER_STEP, int(_MEMORY_SHARE * limit / bytes_per_cell)))
    return int(wanted) if is_number else fitting, list(devices)


def deal(work: np.ndarray, num_devices: int, cells_per_step: int) -> np.ndarray:
    """Deals the networks of a step to devices so that all have about the same work.

    Args:
      work: how long each network takes, `[A]`, at most as many as there are places.
      num_devices: number of devices, D.
      cells_per_step: places of a device, S.

    Returns:
      Which network has which place, device by device, `[D * S]`; A marks an empty place.
    """
    order = np.full(num_devices * cells_per_step, len(work))
    order[: len(work)] = np.argsort(-work, kind="stable")
    # Round after round, every second one backwards, as teams are chosen.
    rounds = order.reshape(cells_per_step, num_devices)
    rounds[1::2] = rounds[1::2, ::-1]
    return rounds.T.reshape(-1)
