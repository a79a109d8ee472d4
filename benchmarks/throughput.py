r"""Times a cell beside PyTorch: the same cells and mini-batch on the same device, in turns.

Each side has a process of its own, as its users run it: in one process PyTorch would profit from
memory that JAX has already allocated. Ours is timed from genotypes to scores, with drawing the
weights; PyTorch's is one forward and backward pass alone. Both have run before, and compiling is
timed separately. Images are random, because the time does not depend on the pixels. On GPUs,
`--precision=tensorfloat32` lets PyTorch at its best round to TF32, too; with bfloat16 it still
rounds to TF32, and the two sides differ.

Command:  python -m benchmarks.throughput --cells=100 --turns=3 --json=throughput.json
"""

import functools
import json
import multiprocessing
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from epe_nas_jax import CellScorer, NasBench201Network, ScoringConfig, compile_scorer
from epe_nas_jax.arrays import PRECISIONS
from epe_nas_jax.pytorch.network import run_cell
from epe_nas_jax.runs import runtime
from epe_nas_jax.runs.workdir import device_name
from epe_nas_jax.scoring.config import INITS
from epe_nas_jax.spaces.nasbench201.cost import Sizes
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead, sample

_CELLS = flags.DEFINE_integer("cells", 100, "Uniformly drawn cells.", lower_bound=1)
_SIDE = flags.DEFINE_integer("side", 32, "Side in pixels, a multiple of 4.", lower_bound=4)
_BATCH = flags.DEFINE_integer("batch", 256, "Images in the mini-batch.", lower_bound=2)
_TURNS = flags.DEFINE_integer("turns", 3, "How often each side scores a cell.", lower_bound=1)
_INIT = flags.DEFINE_enum("init", "shared", INITS, "Weights of our cells.")
_PRECISION = flags.DEFINE_enum(
    "precision", "float32", PRECISIONS, "Precision of our products on GPUs and TPUs."
)
_STEP = flags.DEFINE_integer("cells_per_step", 0, "Cells of a device in a step; 0: automatic.")
_PYTORCH = flags.DEFINE_bool("pytorch", True, "Run PyTorch's side.")
_COMPILE = flags.DEFINE_bool("torch_compile", False, "Also torch.compile, a minute per cell.")
_PROXIES = flags.DEFINE_list("proxies", ["epe"], "The proxies that we compute.")
_ALSO = flags.DEFINE_multi_string(
    "also", [], "Another set of proxies to time, such as epe,jacob_cov; may be repeated."
)
_JSON = flags.DEFINE_string("json", None, "Where to write the figures.")

CHANNELS, CELLS_PER_STAGE, NUM_CLASSES = 16, 5, 10


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    logging.set_verbosity(logging.WARNING)
    runtime.prepare()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(_BATCH.value, _SIDE.value, _SIDE.value, 3)).astype(np.float32)
    labels = rng.integers(0, NUM_CLASSES, _BATCH.value)
    cells = np.asarray(sample(jax.random.key(0), _CELLS.value))
    compiling = compile_seconds(functools.partial(make_scorer, images, labels, _PROXIES.value))
    scorer = make_scorer(images, labels, _PROXIES.value)
    figures = {**conditions(scorer), **compiling}
    size = scorer.num_slots if _PYTORCH.value else len(cells)
    steps = [cells[first : first + size] for first in range(0, len(cells), size)]
    figures["networks"] = sum(len(scorer.distinct(step)[0]) for step in steps)
    sides: dict[str, Callable[[np.ndarray], float]] = {"ours": functools.partial(seconds, scorer)}
    for proxies in _ALSO.value:
        also = make_scorer(images, labels, proxies.split(","))
        sides[f"ours: {proxies}"] = functools.partial(seconds, also)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as torch_process:
        if _PYTORCH.value:
            figures["versions"]["torch"] = metadata.version("torch")
            sides["PyTorch as released"] = torch_side(torch_process, images)
            best = {"at_its_best": True, "tensorfloat32": _PRECISION.value != "float32"}
            sides["PyTorch at its best"] = torch_side(torch_process, images, **best)
            if _COMPILE.value:
                sides["the same, compiled"] = torch_side(
                    torch_process, images, **best, compiled=True
                )
        figures["ms_per_cell"] = ms_per_cell(sides, steps)
    figures["peak_memory_gb"] = peak_memory() / 1e9
    figures["matmul_gflops"] = matmul_flops() / 1e9
    figures["gflop_per_cell"] = float(np.mean(jacobian_flop(prune_dead(cells)))) / 1e9
    ours = figures["ms_per_cell"]["ours"]["median"]
    figures["gflops"] = figures["gflop_per_cell"] / ours * 1e3
    print(table(figures))
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(figures, indent=2) + "\n")


def make_scorer(images: np.ndarray, labels: np.ndarray, proxies: Sequence[str]) -> CellScorer:
    """Our program, compiled."""
    return compile_scorer(
        images,
        labels,
        seed=0,
        network=NasBench201Network(NUM_CLASSES, CHANNELS, CELLS_PER_STAGE),
        config=ScoringConfig(init=_INIT.value, precision=_PRECISION.value, proxies=tuple(proxies)),
        cells_per_step=_STEP.value or "auto",
    )


def conditions(scorer: CellScorer) -> dict[str, Any]:
    """The conditions under which the figures were measured."""
    return {
        "device": device_name(),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("jax", "jaxlib", "numpy")},
        },
        "cells": _CELLS.value,
        "side": _SIDE.value,
        "batch": _BATCH.value,
        "init": _INIT.value,
        "precision": _PRECISION.value,
        "devices": len(scorer.devices),
        "cells_per_step": scorer.cells_per_step,
        "proxies": _PROXIES.value,
    }


def compile_seconds(compile_program: Callable[[], CellScorer]) -> dict[str, float]:
    """Seconds to compile our program, cold and from the cache of compiled programs."""
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        for name in ("compile_seconds_cold", "compile_seconds_cached"):
            jax.clear_caches()
            start = time.perf_counter()
            compile_program()
            found[name] = time.perf_counter() - start
    jax.config.update("jax_compilation_cache_dir", None)
    return found


def seconds(scorer: CellScorer, step: np.ndarray) -> float:
    """Seconds per cell of our side."""
    start = time.perf_counter()
    scorer(step)
    return (time.perf_counter() - start) / len(step)


def torch_side(
    torch_process: ProcessPoolExecutor, images: np.ndarray, **how: Any
) -> Callable[[np.ndarray], float]:
    """Makes a function that returns the seconds per cell of PyTorch's side."""
    sizes = Sizes(CHANNELS, CELLS_PER_STAGE, NUM_CLASSES)
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"

    def run(step: np.ndarray) -> float:
        one = functools.partial(run_cell, images=images, sizes=sizes, device=device, **how)
        runs = [torch_process.submit(one, cell) for cell in step]
        return float(np.mean([run.result().seconds for run in runs]))

    return run


def ms_per_cell(
    sides: dict[str, Callable[[np.ndarray], float]], steps: list[np.ndarray]
) -> dict[str, dict[str, float]]:
    """Quartiles over the turns of each side's mean over all cells."""
    turns: dict[str, list[float]] = {name: [] for name in sides}
    # A GPU has a program for each shape of a step; a CPU has one.
    is_cpu = jax.default_backend() == "cpu"
    for run in sides.values():
        for step in [steps[0][:4]] if is_cpu else steps:
            run(step)
    for _ in range(_TURNS.value):
        total = dict.fromkeys(sides, 0.0)
        for step in steps:
            for name, run in sides.items():
                total[name] += run(step) * len(step)
        for name, value in total.items():
            turns[name].append(1e3 * value / _CELLS.value)
    return {
        name: dict(zip(("low", "median", "high"), np.percentile(values, [25, 50, 75]), strict=True))
        for name, values in turns.items()
    }


def peak_memory() -> float:
    """The most bytes that our side used."""
    stats = jax.local_devices()[0].memory_stats() or {}
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(stats.get("peak_bytes_in_use", 1024 * kilobytes))


def matmul_flops(size: int = 4096) -> float:
    """Operations a second of a large matrix product, on one device."""
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    found = []
    for _ in range(5):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        found.append(2 * size**3 / (time.perf_counter() - start))
    return float(np.median(found))


def jacobian_flop(genotypes: np.ndarray) -> np.ndarray:
    """Operations of all convolutions, forward and backward to the input: `[A]` of `[A, E]`.

    For a mini-batch, with a multiply-add as two operations; `cost.flops` counts one per image.
    """
    macs = np.full(len(genotypes), 27.0 * CHANNELS * _SIDE.value**2)
    for stage in range(3):
        channels, pixels = CHANNELS * 2**stage, (_SIDE.value // 2**stage) ** 2
        ops = 9 * np.sum(genotypes == 3, axis=1) + np.sum(genotypes == 2, axis=1)
        macs += CELLS_PER_STAGE * ops * channels**2 * pixels
        if stage:
            # Two 3x3 convolutions and a 1x1; the first and the last have half the inputs.
            macs += (9 / 2 + 9 + 1 / 2) * channels**2 * pixels
    return 2 * 2 * _BATCH.value * macs


def table(figures: dict[str, Any]) -> str:
    """The figures as a text to read."""
    ours = figures["ms_per_cell"]["ours"]["median"]
    width = 2 + max(map(len, figures["ms_per_cell"]))
    lines = [
        f"{figures['cells']} cells, {figures['batch']} images with a side of {figures['side']}, "
        f"{figures['device']}",
        "",
        f"{'':<{width}}{'ms a cell':>10}{'quartiles':>18}{'cells/s':>10}{'times ours':>12}",
    ]
    for name, value in figures["ms_per_cell"].items():
        quartiles = f"{value['low']:.1f} to {value['high']:.1f}"
        middle = value["median"]
        lines.append(
            f"{name:<{width}}{middle:>10.1f}{quartiles:>18}{1e3 / middle:>10.2f}"
            f"{middle / ours:>12.2f}"
        )
    lines += [
        "",
        f"networks, ours        {figures['networks']}, "
        f"{ours * figures['cells'] / figures['networks']:.1f} ms each",
        f"compiling ours        {figures['compile_seconds_cold']:.1f} s, "
        f"{figures['compile_seconds_cached']:.1f} s from the cache",
        f"peak memory, ours     {figures['peak_memory_gb']:.1f} GB",
        f"convolutions, ours    {figures['gflops']:.0f} GFLOP/s of "
        f"{figures['matmul_gflops']:.0f} in a matrix product of 4096",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
