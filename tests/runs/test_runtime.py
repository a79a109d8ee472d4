"""How commands set JAX up."""

import os
import subprocess
import sys

SCRIPT = """
import jax
from threadpoolctl import threadpool_info

from epe_nas_jax.runs import runtime

runtime.prepare()
print({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})
print(jax.local_device_count())
"""


def test_every_core_is_a_device_with_one_thread_for_linear_algebra():
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == ["{1}", str(len(os.sched_getaffinity(0)))]
