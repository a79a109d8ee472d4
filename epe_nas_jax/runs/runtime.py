"""How a command sets JAX up, before anything asks JAX for its devices."""

import importlib
import os

import jax
import platformdirs
from threadpoolctl import threadpool_limits


def prepare() -> None:
    """Makes every CPU core a JAX device, and keeps compiled programs for the next run.

    Each core then scores cells of its own. Programs are kept in the user's cache directory.
    `JAX_NUM_CPU_DEVICES`, `JAX_COMPILATION_CACHE_DIR` and `JAX_ENABLE_COMPILATION_CACHE` may say
    otherwise. BLAS and LAPACK always get one thread: more would take cores from other cells.
    """
    if not os.environ.get("JAX_NUM_CPU_DEVICES"):
        num_cores = len(os.sched_getaffinity(0))
        jax.config.update("jax_num_cpu_devices", num_cores)  # type: ignore[no-untyped-call]
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        directory = platformdirs.user_cache_dir("epe_nas_jax")
        jax.config.update("jax_compilation_cache_dir", directory)  # type: ignore[no-untyped-call]
    # JAX takes its LAPACK from there, and only a library that is loaded can be limited.
    importlib.import_module("scipy.linalg")
    threadpool_limits(1, user_api="blas")
