"""The compare command: cells beside PyTorch, from a config to a finished work directory."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from epe_nas_jax.commands.cli import run_command
from epe_nas_jax.commands.config import (
    cells_per_step_of,
    dataset_of,
    minibatch_of,
    network_of,
    plain_config,
    space_of,
)
from epe_nas_jax.errors import InputError
from epe_nas_jax.pytorch.comparison import CellComparison, compare_cells, summarise, to_rows
from epe_nas_jax.pytorch.sides import (
    OurSide,
    check_network,
    compile_for_seed,
    compile_for_weights,
    torch_device,
    torch_process,
    variables_of,
)
from epe_nas_jax.reports.comparison_page import comparison_page
from epe_nas_jax.reports.comparison_plots import score_scatter
from epe_nas_jax.reports.plots import to_png
from epe_nas_jax.reports.text import comparison_table
from epe_nas_jax.runs.run import Run, open_run
from epe_nas_jax.runs.workdir import COMPARE_FILE, PLOT_FILE, REPORT_FILE, device_name, to_json
from epe_nas_jax.seeds import random_key


def compare_and_report(config: ConfigDict, workdir: str | os.PathLike[str]) -> str:
    """Compares as the config says and leaves its results in the work directory.

    These are `config.json`, `compare.json`, `compare.png` and `report.html`.

    Both sides compute in float32, or in float64 where JAX has it enabled, on JAX's device.

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
    with open_run(plain_config(config), workdir) as run:
        _check_scoring(config)
        cells_key, batch_key = jax.random.split(random_key(config.seed))
        cells = _cells_of(config, cells_key)
        dataset = dataset_of(config)
        dtype = jax.dtypes.canonicalize_dtype(jnp.float64)
        network = check_network(network_of(config, dataset.num_classes, dtype))
        images, labels = map(jnp.asarray, minibatch_of(config, dataset, batch_key))
        images = images.astype(dtype)

        device, checkout = torch_device(), config.compare.pytorch_path
        # A GPU would round products to TF32; PyTorch's side does not either.
        precision = None if device == "cpu" else "highest"
        with torch_process(device, checkout) as torch, jax.default_matmul_precision(precision):
            variables = None
            if config.compare.checkpoint:
                state_dict = torch.read_weights(config.compare.checkpoint)
                variables = variables_of(state_dict, cells[0], network)
            run.begin((images, labels), ("torch",) if checkout else ("torch", "xautodl"))
            if variables is None:
                per_step = cells_per_step_of(config)
                ours = compile_for_seed(config.seed, cells, images, labels, network, per_step)
            else:
                ours = compile_for_weights(variables, cells, images, labels, network)
            comparisons = compare_cells(
                cells,
                images,
                labels,
                variables=ours.variables,
                network=network,
                score_fn=ours.score_fn,
                cells_per_turn=ours.cells_per_turn,
                run_torch=torch.runner(network, np.asarray(images), run.check_stop),
            )
            num_threads = torch.num_threads
        return _write_results(run, config, comparisons, ours, images, num_threads)


def _write_results(
    run: Run,
    config: ConfigDict,
    comparisons: list[CellComparison],
    ours: OurSide,
    images: jax.Array,
    num_threads: int,
) -> str:
    """Writes the comparison and its page, and returns it as a table to print."""
    summary: dict[str, Any] = {
        **summarise(comparisons),
        "compile_seconds": ours.compile_seconds,
        "batch_size": len(images),
        "dtype": jnp.dtype(images.dtype).name,
        "device": device_name(),
        "pytorch_network": config.compare.pytorch_path or "xautodl",
        "pytorch_threads": num_threads,
    }
    rows = to_rows(comparisons)
    plot = score_scatter(
        np.array([comparison.score for comparison in comparisons]),
        np.array([comparison.pytorch_score for comparison in comparisons]),
    )
    run.write(COMPARE_FILE, to_json({"summary": summary, "cells": rows}))
    run.write(PLOT_FILE, to_png(plot))
    page = comparison_page(summary, run.origin, rows, plot)
    # A path that is no UTF-8 is in it, too.
    run.write(REPORT_FILE, page.encode(errors="backslashreplace"))
    return comparison_table(summary, rows)


def _cells_of(config: ConfigDict, key: jax.Array) -> np.ndarray:
    """The cells to compare: the config's own, or a sample."""
    space = space_of(config)
    if config.compare.arch:
        return space.parse(config.compare.arch)[None]
    return np.asarray(space.sample(key, config.compare.num_cells))


def _check_scoring(config: ConfigDict) -> None:
    """Checks that PyTorch's side can score in the way that the config asks for.

    Raises:
      InputError: cells have weights or mini-batches of their own, or another score than `epe`; or
        there is a checkpoint without its cell.
    """
    for section, key, expected in (
        ("data", "fresh_minibatch", False),
        ("score", "init", "shared"),
        ("score", "num_inits", 1),
        ("score", "objective", ("epe",)),
    ):
        found = config[section][key]
        if found != expected:
            raise InputError(
                f"{section}.{key}: found {found!r}, expected {expected!r} beside PyTorch"
            )
    if config.compare.checkpoint and not config.compare.arch:
        raise InputError("compare.arch: found nothing, expected the cell of compare.checkpoint")


def main() -> None:
    """Runs the command."""
    run_command(compare_and_report)
