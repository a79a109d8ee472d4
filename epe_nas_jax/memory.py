"""How much memory a device has left, and how to leave more of it."""

import contextlib
import ctypes
import gc
from pathlib import Path

import jax
import psutil

# For a device that does not report its memory.
_UNKNOWN = 8 * 2**30


def free_bytes(device: jax.Device) -> int:
    """Bytes that are free on a device, or in the machine for a CPU; guessed if nobody says."""
    if device.platform == "cpu":
        return min([int(psutil.virtual_memory().available), *_free_of_container()])
    stats = device.memory_stats() or {}
    return int(stats.get("bytes_limit", _UNKNOWN)) - int(stats.get("bytes_in_use", 0))


def _free_of_container(group: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that a Linux container has left, if it is limited; else nothing."""
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        stats = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Of what is used, files that were read can be dropped.
        return [limit - used + int(stats["inactive_file"])]
    except (OSError, ValueError, KeyError):
        return []


def release() -> None:
    """Gives memory that nothing uses back to the system.

    Objects that hold themselves in cycles keep theirs until Python looks for them, and the C
    library of Linux keeps what was freed in small parts, which can be gigabytes.
    """
    gc.collect()
    # Other C libraries do not have it, and Windows does not find itself by None.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
