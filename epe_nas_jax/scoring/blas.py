"""JAX's linear algebra on CPUs: one thread a call."""

import importlib

from threadpoolctl import threadpool_limits


def one_blas_thread() -> threadpool_limits:
    """Gives BLAS and LAPACK one thread a call, as a context or from now on.

    Where two devices call LAPACK at a time, and each call takes threads of its own, they wait for
    each other: many times as long, or for ever (OpenBLAS with jaxlib 0.10). The number is one for
    the whole process, whatever its threads.
    """
    # JAX takes its LAPACK from there, and only a library that is loaded can be limited.
    importlib.import_module("scipy.linalg")
    return threadpool_limits(1, user_api="blas")
