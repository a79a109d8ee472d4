"""The train command: from a config to a trained cell in a finished work directory."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
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
from epe_nas_jax.reports.mistakes import Mistakes
from epe_nas_jax.reports.text import training_table
from epe_nas_jax.reports.training_page import training_page
from epe_nas_jax.runs.run import open_run
from epe_nas_jax.runs.storage import check_no_links, local_path
from epe_nas_jax.runs.workdir import (
    CHECKPOINTS,
    CONFUSION_FILE,
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
from epe_nas_jax.training.loop import (
    Metrics,
    Split,
    check_images_of,
    halves,
    kept_epoch,
    predict,
    train,
)
from epe_nas_jax.training.mistakes import judge
from epe_nas_jax.training.step import Recipe, Training, TrainState, balanced_weights

_PACKAGES = ("optax", "orbax-checkpoint")
# How many images with mistakes the report shows.
_NUM_WORST = 12


def train_and_report(config: ConfigDict, workdir: str | os.PathLike[str]) -> str:
    """Trains as the config says and leaves its results in the work directory.

    These are `config.json`, `metrics.csv`, `checkpoints` and, at the end, `summary.json`,
    `report.html` and, with held-out images, `confusion.csv`: how many images of a class, the row,
    the first seed's network takes for a class, the column.

    A training that was interrupted continues from its last complete epoch, and ends as if it had
    not been interrupted; a finished training only returns its results again.

    Args:
      config: as in `configs/base.py`.
      workdir: the work directory, which is created if it does not exist, and may hold an earlier
        training by the same config.

    Returns:
      The result as a table to print.

    Raises:
      InputError: something in the config, the data or the work directory cannot be used.
      StopRequested: SIGTERM or SIGINT came; the last complete epoch is on disk.
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
        # Orbax would follow links, and deletes old checkpoints.
        check_no_links(directory / CHECKPOINTS)
        metrics = Metrics(directory / METRICS_FILE)
        mistakes = None
        for seed in seeds:
            checkpoints = checkpoints_of(directory, seed)
            state = train(seed, training, split, metrics, checkpoints, run.check_stop)
            if seed == seeds[0]:
                mistakes = _mistakes_of(state, training, split)
        table_accuracy = accuracies.get(arch) if accuracies else None
        summary = _summarise(arch, training, split, metrics, seeds, table_accuracy)
        if mistakes:
            run.write(CONFUSION_FILE, _confusion_csv(mistakes))
            summary["class_accuracy"] = _class_accuracies(mistakes)
        graphs = space.graphs(space.parse(arch))
        page = training_page(summary, run.origin, metrics.rows, graphs=graphs, mistakes=mistakes)
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
    """The images of the config's data set to train on, and those to measure accuracy on.

    Raises:
      InputError: as `load_dataset`.
    """
    dataset = dataset_of(config)
    if config.train.validation:
        return halves(dataset)
    if config.train.patience:
        raise InputError(
            f"train.patience: found {config.train.patience} without train.validation, expected it "
            "with True: images of the test must not choose an epoch"
        )
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
    fields = {field.name for field in dataclasses.fields(Recipe)}
    weights = balanced_weights(dataset.labels, dataset.num_classes)
    return Training(
        network=network_of(config, dataset.num_classes, jnp.float32),
        genotype=tuple(genotype.tolist()),
        recipe=Recipe(**{name: config.train[name] for name in fields}),
        num_images=len(dataset.images),
        mean=tuple(dataset.mean.tolist()),
        std=tuple(dataset.std.tolist()),
        class_weights=weights if config.train.balance_classes else (),
    )


def _mistakes_of(state: TrainState, training: Training, split: Split) -> Mistakes | None:
    """The mistakes of a network on the held-out images; None if there are none."""
    held_out = split.held_out
    if held_out is None:
        return None
    found = predict(state, training, held_out)
    confusion, worst = judge(found, held_out.labels, num_worst=_NUM_WORST)
    taken_for = found[worst].argmax(axis=1)
    return Mistakes(
        class_names=held_out.class_names,
        confusion=confusion,
        images=held_out.images[worst],
        classes=held_out.labels[worst],
        taken_for=taken_for,
        probabilities=found[worst, taken_for],
    )


def _confusion_csv(mistakes: Mistakes) -> bytes:
    names = list(mistakes.class_names)
    table = pd.DataFrame(mistakes.confusion, pd.Index(names, name="class"), names)
    return table.to_csv().encode(errors="backslashreplace")


def _class_accuracies(mistakes: Mistakes) -> list[float | None]:
    """The accuracy of each class in percent; None for a class without an image."""
    totals = mistakes.confusion.sum(axis=1)
    return [
        100 * int(right) / int(total) if total else None
        for right, total in zip(mistakes.confusion.diagonal(), totals, strict=True)
    ]


def _summarise(
    arch: str,
    training: Training,
    split: Split,
    metrics: Metrics,
    seeds: range,
    table_accuracy: float | None,
) -> dict[str, Any]:
    rows, patience = metrics.rows, training.recipe.patience
    kept = [kept_epoch(metrics.accuracies(seed, split), patience) for seed in seeds]
    last = [
        next(row for row in rows if (row["seed"], row["epoch"]) == (seed, epoch))
        for seed, epoch in zip(seeds, kept, strict=True)
    ]
    images_per_epoch = training.steps_per_epoch * training.recipe.batch_size
    summary: dict[str, Any] = {
        "arch": arch,
        "epochs": training.recipe.epochs,
        "seeds": list(seeds),
        # The epochs of the kept networks: the last ones or, with patience, the best ones.
        "kept_epochs": kept,
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
        # Facts of the data set that are needed to use the network.
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
