"""From a config to a finished work directory of a comparison with PyTorch."""

import functools
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from epe_nas_jax import pytorch
from epe_nas_jax.batching import CellScorer
from epe_nas_jax.comparison import (
    RunTorch,
    ScoreFn,
    compare_cells,
    summarise,
    to_rows,
    weights_of_seed,
)
from epe_nas_jax.convert import Sizes, from_state_dict, sizes_of
from epe_nas_jax.data import draw_fixed_minibatch
from epe_nas_jax.errors import InputError
from epe_nas_jax.genotype import NUM_EDGES, parse_arch, sample
from epe_nas_jax.network import Network
from epe_nas_jax.plots import score_scatter, to_png
from epe_nas_jax.report import comparison_table
from epe_nas_jax.run import cells_per_step_of, dataset_of, network_of
from epe_nas_jax.score import cell_score
from epe_nas_jax.stopping import stop_requests
from epe_nas_jax.storage import location_of, write
from epe_nas_jax.workdir import (
    COMPARE_FILE,
    CONFIG_FILE,
    PLOT_FILE,
    check_workdir,
    device_name,
    provenance,
    to_json,
)

# PyTorch's names of JAX's backends.
_TORCH_DEVICES = {"cpu": "cpu", "gpu": "cuda"}
_IGNORE_SIGINT = (signal.SIGINT, signal.SIG_IGN)


class _OurSide(NamedTuple):
    """Our side, compiled and warm: the score function, and the weights of every candidate in it."""

    variables: Any
    score_fn: ScoreFn
    cells_per_turn: int
    compile_seconds: float


def compare_and_report(config: ConfigDict, workdir: str | os.PathLike[str]) -> str:
    """Compares as the config says and leaves `config.json`, `compare.json` and `compare.png`.

    Both sides compute in float32, or in float64 where JAX has it enabled, on JAX's device. PyTorch
    has a process of its own, as its users run it: in ours it would profit from memory that JAX has
    already taken from the system.

    Args:
      config: as in `configs/base.py`.
      workdir: the work directory; it is made if need be, and may hold an earlier run of the very
        same config, whose files of the same names are replaced.

    Returns:
      The comparison as a table to print.

    Raises:
      InputError: something in the config, the data, the checkpoint or the work directory cannot be
        used, or PyTorch's side is not installed.
      StopRequested: SIGTERM or SIGINT came.
    """
    directory = location_of(workdir)
    plain_config = json.loads(config.to_json())
    check_workdir(directory, plain_config)
    _check_protocol(config)
    cells_key, batch_key = jax.random.split(jax.random.key(config.seed))
    if config.compare.arch:
        cells = parse_arch(config.compare.arch)[None]
    else:
        cells = np.asarray(sample(cells_key, config.compare.num_cells))
    dataset = dataset_of(config)
    dtype = jax.dtypes.canonicalize_dtype(jnp.float64)
    network = network_of(config, dataset.num_classes, dtype)
    images, labels = draw_fixed_minibatch(
        batch_key,
        dataset,
        config.data.batch_size,
        augment=config.data.augment,
        class_balanced=config.data.class_balanced,
    )
    images = images.astype(dtype)

    device, checkout = _torch_device(), config.compare.pytorch_path
    spawn = multiprocessing.get_context("spawn")
    # A GPU would round products to TF32; PyTorch's side does not either.
    precision = None if device == "cpu" else "highest"
    with (
        stop_requests() as check_stop,
        # Ctrl-C reaches both processes; this one answers.
        ProcessPoolExecutor(1, spawn, signal.signal, _IGNORE_SIGINT) as torch_process,
        jax.default_matmul_precision(precision),
    ):
        num_threads = torch_process.submit(pytorch.check_pytorch, device, checkout).result()
        if config.compare.checkpoint:
            reading = torch_process.submit(pytorch.read_state_dict, config.compare.checkpoint)
            variables = _variables_of(reading.result(), cells[0], network, dtype)
            ours = _compile_for_weights(variables, cells, images, labels, network)
        else:
            ours = _compile_for_seed(
                config.seed, cells, images, labels, network, cells_per_step_of(config)
            )
        comparisons = compare_cells(
            cells,
            images,
            labels,
            variables=ours.variables,
            network=network,
            score_fn=ours.score_fn,
            cells_per_turn=ours.cells_per_turn,
            run_torch=_in_process(
                torch_process, np.asarray(images), network, device, checkout, check_stop
            ),
        )

    summary = {
        **summarise(comparisons),
        "compile_seconds": ours.compile_seconds,
        "batch_size": len(images),
        "dtype": jnp.dtype(dtype).name,
        "device": device_name(),
        "pytorch_network": checkout or "xautodl",
        "pytorch_threads": num_threads,
    }
    rows = to_rows(comparisons)
    packages = ("torch",) if checkout else ("torch", "xautodl")
    plot = score_scatter(
        np.array([comparison.score for comparison in comparisons]),
        np.array([comparison.pytorch_score for comparison in comparisons]),
    )
    content = provenance(plain_config, images, labels, packages)
    write(directory / CONFIG_FILE, to_json(content))
    write(directory / COMPARE_FILE, to_json({"summary": summary, "cells": rows}))
    write(directory / PLOT_FILE, to_png(plot))
    return comparison_table(summary, rows)


def _check_protocol(config: ConfigDict) -> None:
    """Both sides need the same weights and mini-batch, and PyTorch's has one formula."""
    for section, key, expected in (
        ("data", "fresh_minibatch", False),
        ("score", "init", "shared"),
        ("score", "num_inits", 1),
        ("score", "variant", "released"),
    ):
        found = config[section][key]
        if found != expected:
            raise InputError(
                f"{section}.{key}: found {found!r}, expected {expected!r} beside PyTorch"
            )
    if config.compare.checkpoint and not config.compare.arch:
        raise InputError("compare.arch: found nothing, expected the cell of compare.checkpoint")


def _torch_device() -> str:
    backend = jax.default_backend()
    if backend not in _TORCH_DEVICES:
        raise InputError(f"device: found {backend}, expected one that PyTorch shares, cpu or gpu")
    return _TORCH_DEVICES[backend]


def _in_process(
    torch_process: ProcessPoolExecutor,
    images: np.ndarray,
    network: Network,
    device: str,
    checkout: str,
    check_stop: Callable[[], None],
) -> RunTorch:
    """PyTorch's side in its process, asked only as long as nothing asks this one to stop."""
    sizes = Sizes(network.channels, network.cells_per_stage, network.num_classes)
    run_cell = functools.partial(
        pytorch.run_cell, images=images, sizes=sizes, device=device, checkout=checkout
    )

    def run_torch(genotype: np.ndarray, state_dict: Any, *, at_its_best: bool) -> Any:
        check_stop()
        running = torch_process.submit(
            run_cell, genotype, state_dict=state_dict, at_its_best=at_its_best
        )
        return running.result()

    return run_torch


def _variables_of(
    state_dict: dict[str, np.ndarray], cell: np.ndarray, network: Network, dtype: Any
) -> Any:
    """A checkpoint's weights, with every candidate, for a traced genotype."""
    sizes = sizes_of(state_dict)
    for name, found in sizes._asdict().items():
        expected = getattr(network, name)
        if found != expected:
            raise InputError(f"compare.checkpoint, {name}: found {found}, expected {expected}")
    variables = from_state_dict(state_dict, cell, every_operation=True)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), variables)


def _compile_for_seed(
    seed: int,
    cells: np.ndarray,
    images: jax.Array,
    labels: jax.Array,
    network: Network,
    cells_per_step: int | str,
) -> _OurSide:
    """The program of every search, with the weights of a seed."""
    # PyTorch has all cores of a CPU, but one GPU.
    devices = jax.local_devices()
    devices = devices if devices[0].platform == "cpu" else devices[:1]
    start = time.perf_counter()
    scorer = CellScorer(
        images,
        labels,
        seed=seed,
        network=network,
        cells_per_step=cells_per_step,
        devices=devices,
    )
    scorer.compile()
    seconds = time.perf_counter() - start
    scorer(cells[: len(scorer.devices)])
    variables = weights_of_seed(seed, network, images)
    return _OurSide(variables, scorer, scorer.cells_per_step * len(scorer.devices), seconds)


def _compile_for_weights(
    variables: Any, cells: np.ndarray, images: jax.Array, labels: jax.Array, network: Network
) -> _OurSide:
    """A program for given weights, a cell at a time."""

    def score(cell: jax.Array) -> jax.Array:
        return cell_score(variables, cell, images, labels, network=network)

    start = time.perf_counter()
    compiled = jax.jit(score).lower(jnp.zeros(NUM_EDGES, jnp.int32)).compile()
    seconds = time.perf_counter() - start

    def score_fn(cells: np.ndarray) -> np.ndarray:
        return np.array([compiled(jnp.asarray(cell)) for cell in cells])

    score_fn(cells[:1])
    return _OurSide(variables, score_fn, 1, seconds)
