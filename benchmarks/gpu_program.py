r"""Counts what a step's program consists of on a GPU, without one, by compiling ahead of time.

XLA compiles for a device from its description: memory, loops, kernels and library calls are those
of the real program. Bytes and arithmetic are counted from its text (`benchmarks.compiled_text`),
and the time is an estimate, the sum over kernels of

    max(bytes / memory bandwidth, multiplications and additions / their rate, 3 us).

Nothing is run, and kernels are not tuned. Needs the extra `cuda`.

Command:  python -m benchmarks.gpu_program --json=results/gpu_program.json
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.compiled_text import account
from epe_nas_jax import NasBench201Network, ScoringConfig
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.scoring.packing import uniform_packer
from epe_nas_jax.scoring.step import score_step
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead
from epe_nas_jax.spaces.nasbench201.operations import GROUP_WORK
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

_FIVE = ("jacob_cov", "nwot", "grad_entropy", "grad_decay")
_LAUNCH = 3e-6


class Generation(NamedTuple):
    """What GPUs of a generation have in common.

    Attributes:
      capability: major version of their compute capability.
      units: float32 units of a multiprocessor.
      shared_memory: shared memory of a multiprocessor, bytes.
      flop: multiplications and additions per second, by precision.
    """

    capability: int
    units: int
    shared_memory: int
    flop: dict[str, float]


class Gpu(NamedTuple):
    """A GPU, from its data sheet.

    Attributes:
      name: the maker's name for it.
      generation: its generation.
      cores: number of multiprocessors.
      gigahertz: clock rate.
      bandwidth: of its memory, bytes per second.
      memory: bytes.
      cache: size of the second-level cache, bytes.
    """

    name: str
    generation: Generation
    cores: int
    gigahertz: float
    bandwidth: float
    memory: int
    cache: int


_RATES = ("float32", "tensorfloat32", "bfloat16")
_AMPERE = Generation(8, 64, 167936, dict(zip(_RATES, (19.5e12, 156e12, 312e12), strict=True)))
_HOPPER = Generation(9, 128, 233472, dict(zip(_RATES, (67e12, 495e12, 989e12), strict=True)))
GPUS = {
    "a100": Gpu("A100-SXM4-80GB", _AMPERE, 108, 1.41, 2.04e12, 80 * 10**9, 40 * 2**20),
    "h100": Gpu("H100 80GB HBM3", _HOPPER, 132, 1.98, 3.35e12, 80 * 10**9, 50 * 2**20),
    "h200": Gpu("H200", _HOPPER, 132, 1.98, 4.8e12, 141 * 10**9, 50 * 2**20),
}


class Setting(NamedTuple):
    """What is scored in a step.

    Attributes:
      images: number of images, N.
      side: their side, H.
      proxies: names of the proxies.
      cells: number of cells in a step.
    """

    images: int
    side: int
    proxies: tuple[str, ...]
    cells: int


SETTINGS = {
    "faithful": Setting(256, 32, ("epe",), 64),
    "five": Setting(256, 32, _FIVE, 64),
    "fast": Setting(32, 8, _FIVE, 1024),
}

_GPUS = flags.DEFINE_multi_enum("gpu", ["h100"], list(GPUS), "The GPU to compile for.")
_SETTINGS = flags.DEFINE_multi_enum("setting", list(SETTINGS), list(SETTINGS), "What to score.")
_CELLS = flags.DEFINE_integer("cells", None, "Cells of a step; by default the setting's.")
_LOOPS = flags.DEFINE_boolean("loops", False, "Operations by loops, not by groups of fixed size.")
_PRECISION = flags.DEFINE_enum("precision", "tensorfloat32", list(_RATES), "Precision of products.")
_TEXT = flags.DEFINE_string("text", None, "Where to keep the text of the last program.")
_JSON = flags.DEFINE_string("json", None, "Where to write the figures.")


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    figures = [figures_of(gpu, setting) for gpu in _GPUS.value for setting in _SETTINGS.value]
    header = [
        *("GPU", "setting", "cells", "GB a step", "MB a cell", "loops", "unknown", "conditionals"),
        *("kernels", "library calls", "GB a cell", "GFLOP a cell", "ms a cell, estimated"),
    ]
    rows = [[str(value) for value in list(row.values())[: len(header)]] for row in figures]
    print(as_markdown(Table("", header, rows)))
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(figures, indent=2) + "\n")


def figures_of(gpu_name: str, setting_name: str) -> dict[str, Any]:
    """The counts for the program of a setting on a GPU."""
    gpu, setting = GPUS[gpu_name], SETTINGS[setting_name]
    cells = _CELLS.value or setting.cells
    start = time.perf_counter()
    compiled = compiled_for(gpu, setting, cells)
    seconds = time.perf_counter() - start
    text, memory = compiled.as_text(), compiled.memory_analysis()
    assert text is not None
    assert memory is not None
    if _TEXT.value:
        Path(_TEXT.value).write_text(text)
    found = account(text)
    rates = {"bandwidth": gpu.bandwidth, "flop_per_second": gpu.generation.flop[_PRECISION.value]}
    return {
        "gpu": gpu.name,
        "setting": setting_name,
        "cells": cells,
        "gb_per_step": round(memory.temp_size_in_bytes / 1e9, 2),
        "mb_per_cell": round(memory.temp_size_in_bytes / 1e6 / cells, 1),
        "loops": found.num_loops,
        "loops_of_unknown_length": found.num_unknown,
        "conditionals": found.num_conditionals,
        "kernels_per_step": found.num_runs,
        "library_calls": sum(found.library_calls.values()),
        "gb_moved_per_cell": round(found.bytes / 1e9 / cells, 3),
        "gflop_per_cell": round(found.flop / 1e9 / cells, 2),
        "estimated_ms_per_cell": round(1e3 * found.seconds(**rates, launch=_LAUNCH) / cells, 4),
        "by": "loops" if _LOOPS.value else "groups",
        "precision": _PRECISION.value,
        "calls_by_name": found.library_calls,
        "compile_seconds": round(seconds, 1),
        "jax": jax.__version__,
    }


def compiled_for(gpu: Gpu, setting: Setting, cells: int) -> jax.stages.Compiled:
    """The program of a step for one GPU, compiled."""
    topology = topologies.get_topology_desc(
        "1x1x1", platform="cuda", target_config=as_target_config(gpu), topology="1x1x1"
    )
    mesh = Mesh(np.array(topology.devices), ("cells",))
    sharded, replicated = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("cells",), ()))
    network = NasBench201Network(10)
    packer = uniform_packer(
        NASBENCH201,
        lambda cells: np.unique(prune_dead(np.asarray(cells)), axis=0),
        GROUP_WORK,
        None,
    )
    capacities = packer.profiles(cells)[0].capacities
    key = jax.eval_shape(lambda: jax.random.key(0))
    words = NASBENCH201.identity(np.zeros((cells, 6), np.int32)).shape
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for shape, dtype, sharding in (
            (words, jnp.int32, sharded),
            ((cells,), bool, sharded),
            ((cells, 6), jnp.int32, sharded),
            ((), key.dtype, replicated),
            ((setting.images, setting.side, setting.side, 3), jnp.float32, replicated),
            ((setting.images,), jnp.int32, replicated),
            ((3,), jnp.float32, replicated),
        )
    ]
    traced = score_step.trace(
        *arguments,
        network=network,
        config=ScoringConfig(proxies=setting.proxies, precision=_PRECISION.value),
        mesh=mesh,
        vectorise=True,
        capacities=None if _LOOPS.value else capacities,
    )
    return traced.lower(lowering_platforms=("cuda",)).compile()


def as_target_config(gpu: Gpu) -> str:
    """A GPU's description in the form that XLA reads."""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {gpu.generation.shared_memory - 1024}
  shared_memory_per_core: {gpu.generation.shared_memory}
  threads_per_core_limit: 2048
  core_count: {gpu.cores}
  fpus_per_core: {gpu.generation.units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {round(gpu.bandwidth)}
  l2_cache_size: {gpu.cache}
  clock_rate_ghz: {gpu.gigahertz}
  device_memory_size: {gpu.memory}
  cuda_compute_capability {{ major: {gpu.generation.capability} }}
  runtime_version: "12.8.0"
  driver_version: "13.0.0"
  compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "NVIDIA {gpu.name}"
"""


if __name__ == "__main__":
    # Kernels are tuned by running them, which needs a GPU.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    jax.config.update("jax_platforms", "cpu")
    app.run(main)
