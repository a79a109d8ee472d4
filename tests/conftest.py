import gzip
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

# Tests wait for the compiler, not for what it makes: it hardly optimises, in the commands that they
# start neither, and takes the shorter way to machine code. Those that compute long say otherwise
# (`OPTIMISED`).
QUICK = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")


def xla_knows(flag):
    """Whether this XLA has a flag: it ends the process of one that it does not know."""
    environment = {**os.environ, "XLA_FLAGS": flag}
    code = "import jax; jax.devices()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=False
    )
    return done.returncode == 0


# Workers have those of the process that started them.
if QUICK[0] not in os.environ.get("XLA_FLAGS", ""):
    flags = [os.environ.get("XLA_FLAGS", ""), *filter(xla_knows, QUICK)]
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_make_parametrize_id(config, val, argname):  # noqa: ARG001
    """Names bytes by their argument: an archive holds the time at which it was made."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def minibatch():
    """Eight random images of 8x8 pixels in three classes, float64."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 8, 8, 3)), np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """The work directory of a finished training; not to be written to."""
    from trained_runs import train_digits

    return train_digits(tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture
def write(tmp_path):
    """Writes a table, gzipped if its name says so, and returns its path."""

    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        return str(path)

    return write


@pytest.fixture(scope="session", autouse=True)
def cache_of_programs(tmp_path_factory):
    """Tests and their commands compile a program once, and use no other cache."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    directory /= "programs"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture(scope="module", autouse=True)
def room_for_programs():
    """Lets a module's compiled programs go: a process may not map memory without end."""
    yield
    jax.clear_caches()


def pytest_collection_modifyitems(items):
    """Files with slow tests first, so that no worker is left alone with them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
