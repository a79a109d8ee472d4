"""How a command sets JAX up, before anything asks JAX for its devices."""

import logging
import os

import jax
import platformdirs

from epe_nas_jax.errors import InputError
from epe_nas_jax.scoring.blas import one_blas_thread

_LOG = logging.getLogger(__name__)


def prepare() -> None:
    """Makes every CPU core a JAX device, and keeps compiled programs for the next run.

    Each core then scores other cells. Programs are kept in the user's cache directory. The
    environment variables `JAX_NUM_CPU_DEVICES`, `JAX_COMPILATION_CACHE_DIR` and
    `JAX_ENABLE_COMPILATION_CACHE` have priority. BLAS and LAPACK always get one thread.

    Examples:
      >>> from epe_nas_jax.runs import runtime
      >>> def main() -> None:
      ...     runtime.prepare()  # Before anything asks JAX for its devices.
      ...     print(jax.devices())
    """
    if not os.environ.get("JAX_NUM_CPU_DEVICES"):
        num_cores = len(os.sched_getaffinity(0))
        jax.config.update("jax_num_cpu_devices", num_cores)  # type: ignore[no-untyped-call]
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        try:
            directory = str(platformdirs.user_cache_path("epe_nas_jax", ensure_exists=True))
        except OSError as error:
            _LOG.warning("compiled programs are not kept for the next run: %s", error)
        else:
            jax.config.update("jax_compilation_cache_dir", directory)  # type: ignore[no-untyped-call]
    one_blas_thread()


def check_devices() -> None:
    """Checks that JAX finds the kind of device that is asked for, and may compile and copy.

    Raises:
      InputError: there is no such device, or a JAX setting forbids to compile or copy.
    """
    for name, expected in (("jax_disable_jit", False), ("jax_transfer_guard", "allow")):
        found = getattr(jax.config, name)
        if found not in (expected, None):
            raise InputError(f"{name.upper()}: found {found}, expected {expected} or none")
    try:
        jax.devices()
    # Without a plugin for GPUs, JAX raises an AssertionError.
    except (RuntimeError, AssertionError) as error:
        asked = getattr(jax.config, "jax_platforms", None)
        reason = f" ({error})".splitlines()[0] if str(error) else ""
        raise InputError(
            f"JAX_PLATFORMS={asked or ''}: found no such device or no JAX for it{reason}, "
            "expected one of this machine, such as cpu"
        ) from None
