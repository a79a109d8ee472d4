"""How much memory a device has left."""

import jax
import psutil

# For a device that does not report its memory.
_UNKNOWN = 8 * 2**30


def free_bytes(device: jax.Device) -> int:
    """Bytes that are free on a device, or in the machine for a CPU; guessed if nobody says."""
    if device.platform == "cpu":
        return int(psutil.virtual_memory().available)
    stats = device.memory_stats() or {}
    return int(stats.get("bytes_limit", _UNKNOWN)) - int(stats.get("bytes_in_use", 0))
