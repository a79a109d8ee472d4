"""Limits JAX's linear algebra on CPUs to one thread per call."""

import importlib

from threadpoolctl import threadpool_limits


def one_blas_thread() -> threadpool_limits:
    """Limits BLAS and LAPACK to one thread per call, in a `with` block or from now on.

    Where two devices call LAPACK at the same time, each call with several threads, they wait for
    each other: many times as long, or for ever (OpenBLAS with jaxlib 0.10). The limit holds for
    the whole process, in all of its threads.
    """
    # JAX takes its LAPACK from SciPy, and only a library that is loaded can be limited.
    importlib.import_module("scipy.linalg")
    return threadpool_limits(1, user_api="blas")
