"""How much memory is free."""

import jax
import psutil
import pytest

from epe_nas_jax import memory


class Device:
    """One that reports its memory, or does not."""

    platform = "gpu"

    def __init__(self, stats):
        self.memory_stats = lambda: stats


def test_a_device_has_what_is_not_in_use():
    assert memory.free_bytes(Device({"bytes_limit": 1000, "bytes_in_use": 400})) == 600
    assert memory.free_bytes(Device(None)) == 8 * 2**30


def test_a_cpu_has_at_most_what_the_machine_has_free():
    free = memory.free_bytes(jax.devices("cpu")[0])
    assert 0 < free < psutil.virtual_memory().total


def test_a_container_has_what_its_limit_leaves(tmp_path):
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._free_of_container(tmp_path) == []
    (tmp_path / "memory.max").write_text("1000\n")
    # 150 bytes are of files that were read.
    assert memory._free_of_container(tmp_path) == [450]
    assert memory._free_of_container(tmp_path / "nothing") == []


@pytest.mark.parametrize("library", [None, "none"])
def test_memory_is_released_where_the_c_library_can(monkeypatch, library):
    if library:
        monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    memory.release()
