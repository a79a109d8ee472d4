"""How much memory a device has left, and how to free unused memory."""

import contextlib
import ctypes
import gc
from pathlib import Path

import jax
import psutil

# Assumed for a device that does not report its memory.
_UNKNOWN = 8 * 2**30


def free_bytes(device: jax.Device) -> int:
    """Bytes that are free on a device, or in the machine for a CPU; a guess if not reported."""
    if device.platform == "cpu":
        return min([int(psutil.virtual_memory().available), *_free_of_container()])
    stats = device.memory_stats() or {}
    return int(stats.get("bytes_limit", _UNKNOWN)) - int(stats.get("bytes_in_use", 0))


def _free_of_container(group: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that a Linux container has left, a list of one; empty if it has no limit."""
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        stats = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # The cache of files that were read can be dropped.
        return [limit - used + int(stats["inactive_file"])]
    except (OSError, ValueError, KeyError):
        return []


def release() -> None:
    """Returns unused memory to the operating system.

    Python frees objects in reference cycles only when its collector runs, and the C library of
    Linux keeps small freed blocks, together up to gigabytes.
    """
    gc.collect()
    # Other C libraries lack `malloc_trim`, and on Windows `CDLL(None)` fails.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
