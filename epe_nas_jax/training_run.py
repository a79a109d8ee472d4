"""From a config to a trained cell in a finished work directory."""

import dataclasses
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from tqdm import tqdm

from epe_nas_jax import benchmark
from epe_nas_jax.data import Dataset, has_test_split
from epe_nas_jax.errors import InputError
from epe_nas_jax.genotype import format_arch, has_path, parse_arch
from epe_nas_jax.report import training_table
from epe_nas_jax.run import dataset_of, network_of
from epe_nas_jax.stopping import stop_requests
from epe_nas_jax.storage import check_no_links, local_path, write
from epe_nas_jax.training import (
    NO_IMAGE,
    Recipe,
    Sums,
    Training,
    TrainState,
    epoch_rows,
    evaluate,
    init_state,
    learning_rate,
    train_step,
)
from epe_nas_jax.training_page import training_page
from epe_nas_jax.workdir import (
    CHECKPOINTS,
    CONFIG_FILE,
    METRICS_FILE,
    REPORT_FILE,
    SUMMARY_FILE,
    check_same_run,
    check_workdir,
    device_name,
    locked,
    provenance,
    to_json,
)


class Split(NamedTuple):
    """What to train on, and what to measure accuracy on.

    Attributes:
      train: the data set to train on.
      held_out: the data set to evaluate on, or None.
      name: of the latter: `"test"` or `"validation"`.
    """

    train: Dataset
    held_out: Dataset | None
    name: str


def train_and_report(config: ConfigDict, workdir: str | os.PathLike[str]) -> str:
    """Trains as the config says and leaves its files: `config.json`, `metrics.csv`,
    `checkpoints`, and at the end `summary.json` and `report.html`.

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
    arch = _arch_of(config)
    plain_config = {**json.loads(config.to_json()), "arch": arch}
    check_workdir(directory, plain_config)
    if config.train.num_seeds < 1:
        raise InputError(f"train.num_seeds: found {config.train.num_seeds}, expected at least 1")
    table_accuracy = None
    if config.benchmark.path:
        accuracies = benchmark.read_accuracies(config.benchmark.path, config.benchmark.column)
        table_accuracy = accuracies.get(arch)
    split = _split(config)
    training = _training_of(config, arch, split.train)
    origin = provenance(
        plain_config, split.train.images, split.train.labels, ("optax", "orbax-checkpoint")
    )
    with locked(directory), stop_requests() as check_stop:
        check_same_run(directory, origin)
        # Orbax would follow them, and deletes what is old.
        check_no_links(directory / CHECKPOINTS)
        write(directory / CONFIG_FILE, to_json(origin))
        metrics = Metrics(directory / METRICS_FILE)
        for seed in range(config.seed, config.seed + config.train.num_seeds):
            checkpoints = directory / CHECKPOINTS / f"seed_{seed}"
            _train(seed, training, split, metrics, checkpoints, check_stop)
        summary = _summarise(arch, training, split, metrics.rows, table_accuracy)
        write(directory / SUMMARY_FILE, to_json(summary))
        write(directory / REPORT_FILE, training_page(summary, origin, metrics.rows).encode())
    return training_table(summary)


class Metrics:
    """The metrics of every epoch as a CSV file that is whole at any time."""

    def __init__(self, path: Path):
        """Reads what an earlier run left."""
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self.rows = [dict(row) for _, row in pd.read_csv(path).astype(object).iterrows()]

    def keep(self, seed: int, num_epochs: int) -> None:
        """Forgets epochs of a seed that no checkpoint holds."""
        self.rows = [row for row in self.rows if row["seed"] != seed or row["epoch"] <= num_epochs]

    def add(self, row: dict[str, Any]) -> None:
        """Adds an epoch and writes the file."""
        self.rows.append(row)
        buffer = io.StringIO()
        pd.DataFrame(self.rows).to_csv(buffer, index=False, float_format="%.7g")
        write(self._path, buffer.getvalue().encode())


def _train(
    seed: int,
    training: Training,
    split: Split,
    metrics: Metrics,
    directory: Path,
    check_stop: Callable[[], None],
) -> None:
    """Trains one seed from its last checkpoint to the end, with a checkpoint after every epoch."""
    whole, share = _placements(training.recipe.batch_size)
    init_key, order_key, augment_key = jax.random.split(jax.random.key(seed), 3)
    state = jax.device_put(init_state(init_key, training=training), whole)
    augment_key = jax.device_put(augment_key, whole)
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    with (
        ocp.CheckpointManager(directory.absolute(), options=options) as manager,
        tqdm(total=training.num_steps, unit="step", desc=f"seed {seed}") as bar,
    ):
        num_done = manager.latest_step() or 0
        if num_done:
            state = manager.restore(num_done, args=ocp.args.StandardRestore(state))
        metrics.keep(seed, num_done)
        bar.update(num_done * training.steps_per_epoch)
        for epoch in range(num_done, training.recipe.epochs):
            start = time.perf_counter()
            collected: list[Sums] = []
            for rows in epoch_rows(order_key, epoch, training):
                batch = jax.device_put((split.train.images[rows], split.train.labels[rows]), share)
                state, sums = train_step(state, augment_key, *batch, training=training)
                collected.append(sums)
                # The device always has its next step, and no more.
                jax.block_until_ready(collected[-2:][0])  # type: ignore[no-untyped-call]
                bar.update()
                check_stop()
            row = {
                "seed": seed,
                "epoch": epoch + 1,
                "learning_rate": float(learning_rate(training.recipe, epoch)),
                **_means("train", collected),
                "train_seconds": time.perf_counter() - start,
            }
            if split.held_out:
                row |= _means(split.name, _evaluate(state, training, split.held_out, share))
            bar.set_postfix({name: f"{v:.2f}" for name, v in row.items() if "accuracy" in name})
            # Before the checkpoint: an epoch that has one has its metrics.
            metrics.add(row)
            manager.save(epoch + 1, args=ocp.args.StandardSave(state))


def _evaluate(
    state: TrainState, training: Training, dataset: Dataset, share: NamedSharding
) -> list[Sums]:
    return [
        evaluate(state, *jax.device_put(batch, share), training=training)
        for batch in _filled_batches(dataset, training.recipe.batch_size)
    ]


def _filled_batches(dataset: Dataset, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A data set in mini-batches of one size, of which the last is filled up."""
    for start in range(0, len(dataset.images), batch_size):
        rows = np.arange(start, start + batch_size)
        is_image = rows < len(dataset.images)
        rows = np.where(is_image, rows, 0)
        yield dataset.images[rows], np.where(is_image, dataset.labels[rows], NO_IMAGE)


def _means(name: str, collected: list[Sums]) -> dict[str, float]:
    loss, num_correct, num_images = np.sum(np.array(collected, np.float64), axis=0)
    return {
        f"{name}_loss": float(loss / num_images),
        f"{name}_accuracy": float(100 * num_correct / num_images),
    }


def _placements(batch_size: int) -> tuple[NamedSharding, NamedSharding]:
    """Whole on all devices, and shared out by images; as many devices as divide a mini-batch."""
    devices = jax.local_devices()
    num_devices = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    mesh = Mesh(np.array(devices[:num_devices]), ("images",))
    whole = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]
    return whole, NamedSharding(mesh, PartitionSpec("images"))  # type: ignore[no-untyped-call]


def _arch_of(config: ConfigDict) -> str:
    """The arch string to train: the config's, or the best of a finished search.

    Raises:
      InputError: neither or both are given, the search has no best cell, or the cell has no path.
    """
    if bool(config.arch) == bool(config.from_run):
        found = "both" if config.arch else "neither"
        raise InputError(f"arch, from_run: found {found}, expected one of them")
    arch = config.arch or _best_of_run(Path(config.from_run))
    genotype = parse_arch(arch)
    if not has_path(genotype):
        raise InputError(
            f"arch {arch}: no path of real operations leads from input to output, "
            "so that its logits say nothing of the image and training cannot help"
        )
    return format_arch(genotype)


def _best_of_run(directory: Path) -> str:
    path = directory / SUMMARY_FILE
    try:
        arch = json.loads(path.read_text())["best_arch"]
    except FileNotFoundError:
        raise InputError(
            f"from_run {directory}: no {SUMMARY_FILE}, expected a finished search"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: holds no best_arch, expected a finished search's") from None
    if arch is None:
        raise InputError(f"from_run {directory}: no cell of the search has a score")
    return str(arch)


def _split(config: ConfigDict) -> Split:
    """What the config's data set trains on and is measured on.

    Raises:
      InputError: as `load_dataset`.
    """
    dataset = dataset_of(config)
    if config.train.validation:
        return _halves(dataset)
    data = config.data
    if not has_test_split(data.name, data.path, data.images_key):
        return Split(dataset, None, "test")
    return Split(dataset, dataset_of(config, "test"), "test")


def _halves(dataset: Dataset) -> Split:
    """Half of the images to train on and the other half for validation, always the same halves."""
    order = np.random.default_rng(0).permutation(len(dataset.images))
    train, held_out = (
        dataclasses.replace(dataset, images=dataset.images[rows], labels=dataset.labels[rows])
        for rows in np.array_split(order, 2)
    )
    return Split(train, held_out, "validation")


def _training_of(config: ConfigDict, arch: str, dataset: Dataset) -> Training:
    fields = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "augment")
    return Training(
        network=network_of(config, dataset.num_classes, jnp.float32),
        genotype=tuple(parse_arch(arch).tolist()),
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
        "train_seconds": sum(row["train_seconds"] for row in rows),
        "images_per_second": images_per_epoch
        / float(np.median([row["train_seconds"] for row in rows])),
        "device": device_name(),
    }
