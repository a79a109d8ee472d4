"""The train command: from a config to a trained cell in a finished work directory."""

import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from epe_nas_jax.commands.cli import run_command
from epe_nas_jax.commands.config import (
    accuracies_of,
    dataset_of,
    network_of,
    plain_config,
)
from epe_nas_jax.data.datasets import Dataset, check_size, has_test_split
from epe_nas_jax.data.files import regular_file, user_path
from epe_nas_jax.errors import InputError
from epe_nas_jax.reports.text import training_table
from epe_nas_jax.reports.training_page import training_page
from epe_nas_jax.runs.run import open_run
from epe_nas_jax.runs.storage import check_no_links, local_path
from epe_nas_jax.runs.workdir import (
    CHECKPOINTS,
    METRICS_FILE,
    REPORT_FILE,
    SUMMARY_FILE,
    checkpoints_of,
    device_name,
    to_json,
)
from epe_nas_jax.seeds import check_seed
from epe_nas_jax.spaces.base import SearchSpace
from epe_nas_jax.spaces.table import trainable_entry
from epe_nas_jax.training.loop import Metrics, Split, check_images_of, halves, train
from epe_nas_jax.training.step import Recipe, Training

_PACKAGES = ("optax", "orbax-checkpoint")


def train_and_report(config: ConfigDict, workdir: str | os.PathLike[str]) -> str:
    """Trains as the config says and leaves its results in the work directory.

    These are `config.json`, `metrics.csv`, `checkpoints` and, at the end, `summary.json` and
    `report.html`.

    A training that was interrupted goes on from its last whole epoch, and ends as if it had not
    been interrupted; one that is finished is only reported.

    Args:
      config: as in `configs/base.py`.
      workdir: the work directory; it is made if need be, and may hold an earlier training by the
        very same config.

    Returns:
      The result as a table to print.

    Raises:
      InputError: something in the config, the data or the work directory cannot be used.
      StopRequested: SIGTERM or SIGINT came; the last whole epoch is on disk.
    """
    directory = local_path(workdir)
    space = trainable_entry(config.space.name).space
    arch = _arch_of(config, space)
    with open_run({**plain_config(config), "arch": arch}, directory) as run:
        seeds = _seeds(config)
        accuracies = accuracies_of(config, space)
        split = _split(config)
        check_images_of(split.train)
        training = _training_of(config, space.parse(arch), split.train)
        run.begin((split.train.images, split.train.labels), _PACKAGES)
        # Orbax would follow them, and deletes what is old.
        check_no_links(directory / CHECKPOINTS)
        metrics = Metrics(directory / METRICS_FILE)
        for seed in seeds:
            checkpoints = checkpoints_of(directory, seed)
            train(seed, training, split, metrics, checkpoints, run.check_stop)
        table_accuracy = accuracies.get(arch) if accuracies else None
        summary = _summarise(arch, training, split, metrics.rows, table_accuracy)
        graphs = space.graphs(space.parse(arch))
        page = training_page(summary, run.origin, metrics.rows, graphs=graphs)
        run.write(SUMMARY_FILE, to_json(summary))
        run.write(REPORT_FILE, page.encode(errors="backslashreplace"))
    return training_table(summary)


def _arch_of(config: ConfigDict, space: SearchSpace) -> str:
    """The arch string to train: the config's, or the best of a finished search.

    Raises:
      InputError: neither or both are given, the search has no best cell, or the cell has no path.
    """
    if bool(config.arch) == bool(config.from_run):
        found = "both" if config.arch else "neither"
        raise InputError(f"arch, from_run: found {found}, expected one of them")
    arch = config.arch or _best_of_run(user_path(config.from_run))
    genotype = space.parse(arch)
    if not space.has_path(genotype[None])[0]:
        raise InputError(
            f"arch {arch}: no path of real operations leads from input to output, "
            "so that its logits say nothing of the image and training cannot help"
        )
    return space.format(genotype)


def _best_of_run(directory: Path) -> str:
    path = directory / SUMMARY_FILE
    if not path.exists():
        raise InputError(f"from_run {directory}: no {SUMMARY_FILE}, expected a finished search")
    try:
        arch = json.loads(regular_file(path, "a summary").read_text())["best_arch"]
        if not isinstance(arch, str | None):
            raise TypeError
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: holds no best_arch, expected a finished search's") from None
    if arch is None:
        raise InputError(f"from_run {directory}: no cell of the search has a score")
    return arch


def _seeds(config: ConfigDict) -> range:
    """The seeds to train with.

    Raises:
      InputError: there are none, or one of them is out of range.
    """
    first, num_seeds = check_seed(config.seed), config.train.num_seeds
    if num_seeds < 1:
        raise InputError(f"train.num_seeds: found {num_seeds}, expected at least 1")
    check_seed(first + num_seeds - 1, "the last of train.num_seeds seeds")
    return range(first, first + num_seeds)


def _split(config: ConfigDict) -> Split:
    """What the config's data set trains on and is measured on.

    Raises:
      InputError: as `load_dataset`.
    """
    dataset = dataset_of(config)
    if config.train.validation:
        return halves(dataset)
    data = config.data
    if not has_test_split(data.name, data.path, data.images_key, data.labels_key):
        return Split(dataset, None, "test")
    held_out = dataset_of(config, "test")
    check_size(held_out.images, dataset.images, f"{config.data.path}, test split")
    return Split(dataset, held_out, "test")


def _training_of(config: ConfigDict, genotype: np.ndarray, dataset: Dataset) -> Training:
    """What is trained and how.

    Raises:
      InputError: a number is out of range.
    """
    fields = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "augment")
    return Training(
        network=network_of(config, dataset.num_classes, jnp.float32),
        genotype=tuple(genotype.tolist()),
        recipe=Recipe(**{name: config.train[name] for name in fields}),
        num_images=len(dataset.images),
        mean=tuple(dataset.mean.tolist()),
        std=tuple(dataset.std.tolist()),
    )


def _summarise(
    arch: str,
    training: Training,
    split: Split,
    rows: list[dict[str, Any]],
    table_accuracy: float | None,
) -> dict[str, Any]:
    last = [row for row in rows if row["epoch"] == training.recipe.epochs]
    images_per_epoch = training.steps_per_epoch * training.recipe.batch_size
    summary: dict[str, Any] = {
        "arch": arch,
        "epochs": training.recipe.epochs,
        "seeds": [row["seed"] for row in last],
        "num_train_images": len(split.train.images),
        "held_out": split.name if split.held_out else None,
        "num_held_out_images": len(split.held_out.images) if split.held_out else 0,
        "train_accuracy": [row["train_accuracy"] for row in last],
    }
    if split.held_out:
        accuracy = [row[f"{split.name}_accuracy"] for row in last]
        summary |= {
            "accuracy": accuracy,
            "mean_accuracy": float(np.mean(accuracy)),
            "std_accuracy": float(np.std(accuracy, ddof=1)) if len(accuracy) > 1 else None,
        }
    return summary | {
        "table_accuracy": table_accuracy,
        # What using the network needs to know of the data set.
        "class_names": split.train.class_names,
        "side": split.train.images.shape[1],
        "mean": training.mean,
        "std": training.std,
        "train_seconds": sum(row["train_seconds"] for row in rows),
        "images_per_second": images_per_epoch
        / float(np.median([row["train_seconds"] for row in rows])),
        "device": device_name(),
    }


def main() -> None:
    """Runs the command."""
    run_command(train_and_report)
