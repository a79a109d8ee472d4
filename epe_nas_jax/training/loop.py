"""The training loop: mini-batches to devices, metrics and a checkpoint after every epoch."""

import dataclasses
import io
import logging
import reprlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from epe_nas_jax.data.datasets import Dataset
from epe_nas_jax.data.files import regular_file
from epe_nas_jax.errors import InputError
from epe_nas_jax.runs.storage import write
from epe_nas_jax.seeds import random_key
from epe_nas_jax.spaces.layers.checks import check_images
from epe_nas_jax.training.step import (
    NO_IMAGE,
    Sums,
    Training,
    TrainState,
    epoch_rows,
    evaluate,
    init_state,
    learning_rate,
    probabilities,
    train_step,
)

_LOG = logging.getLogger(__name__)


class Split(NamedTuple):
    """What to train on, and what to measure accuracy on.

    Attributes:
      train: the data set to train on.
      held_out: the data set to evaluate on, or None.
      name: of the held-out data set: `"test"` or `"validation"`.
    """

    train: Dataset
    held_out: Dataset | None
    name: str


def halves(dataset: Dataset) -> Split:
    """Splits a data set into a half to train on and a half for validation, always the same ones."""
    order = np.random.default_rng(0).permutation(len(dataset.images))
    train, held_out = (
        dataclasses.replace(dataset, images=dataset.images[rows], labels=dataset.labels[rows])
        for rows in np.array_split(order, 2)
    )
    return Split(train, held_out, "validation")


def check_images_of(dataset: Dataset) -> None:
    """Checks that networks accept the images of a data set; raises as `check_images`."""
    check_images(dataset.normalised(np.arange(1)))


class Metrics:
    """The metrics of every epoch, in a CSV file that is complete at any time."""

    def __init__(self, path: Path):
        """Reads the metrics of an earlier part of the run, if there are any.

        Raises:
          InputError: the file holds something else.
        """
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self.rows = _read_metrics(path)

    def keep(self, seed: int, num_epochs: int) -> None:
        """Removes the epochs of a seed that no checkpoint holds.

        Raises:
          InputError: an epoch that a checkpoint holds is missing, or there twice.
        """
        self.rows = [row for row in self.rows if row["seed"] != seed or row["epoch"] <= num_epochs]
        epochs = [row["epoch"] for row in self.rows if row["seed"] == seed]
        if epochs != list(range(1, num_epochs + 1)):
            found = f"found epochs {reprlib.repr(epochs)} of seed {seed}"
            raise InputError(f"{self._path}: {found}, expected 1..{num_epochs} as in checkpoints")

    def check_columns(self, split: Split) -> None:
        """Checks that rows of an earlier run have all metrics of a split.

        Raises:
          InputError: some are missing.
        """
        names = ["learning_rate", "train_loss", "train_accuracy", "train_seconds"]
        if split.held_out:
            names += [f"{split.name}_loss", f"{split.name}_accuracy"]
        missing = [name for name in names if self.rows and name not in self.rows[0]]
        if missing:
            raise InputError(f"{self._path}: found no {missing[0]}, expected it of an earlier run")

    def accuracies(self, seed: int, split: Split) -> list[float]:
        """Accuracies on the held-out images after each epoch of a seed; NaN without such images."""
        name = f"{split.name}_accuracy"
        return [row.get(name, np.nan) for row in self.rows if row["seed"] == seed]

    def add(self, row: dict[str, Any]) -> None:
        """Adds an epoch and writes the file; numbers are rounded as they are in the file."""
        numbers = {name: float(f"{v:.7g}") for name, v in row.items() if isinstance(v, float)}
        self.rows.append({**row, **numbers})
        buffer = io.StringIO()
        pd.DataFrame(self.rows).to_csv(buffer, index=False, float_format="%.7g")
        write(self._path, buffer.getvalue().encode())


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    file = regular_file(path, "metrics of an earlier run")
    try:
        table = pd.read_csv(file)
    except ValueError:
        table = pd.DataFrame()
    counts = [table[name].dtype.kind for name in ("seed", "epoch") if name in table]
    if counts != ["i", "i"] or any(dtype.kind not in "if" for dtype in table.dtypes):
        raise InputError(f"{path}: found something else, expected metrics of an earlier run")
    return [dict(row) for _, row in table.astype(object).iterrows()]


def train(
    seed: int,
    training: Training,
    split: Split,
    metrics: Metrics,
    directory: Path,
    check_stop: Callable[[], None],
) -> TrainState:
    """Trains one seed from its last checkpoint to the end, with a checkpoint after every epoch.

    Args:
      seed: of the weights, the order of the images and their augmentation.
      training: what is trained and how.
      split: the images.
      metrics: gets a row for every epoch.
      directory: where the seed's checkpoints are.
      check_stop: called after every step; raises an exception to stop the training.

    Returns:
      The state after the last epoch or, with patience, after the best one, whose checkpoint is kept
      beside the last one's.

    Raises:
      InputError: the metrics of an earlier run lack a column, or an epoch that its checkpoints
        hold; or the loss became NaN or infinite.
    """
    total = training.recipe.epochs
    replicated, sharded = _placements(training.recipe.batch_size)
    init_key, order_key, augment_key = jax.random.split(random_key(seed), 3)
    state = jax.device_put(init_state(init_key, training=training), replicated)
    augment_key = jax.device_put(augment_key, replicated)
    # Checkpoints name the cell: cells that differ in operations without weights have equal arrays.
    arch = training.network.space.format(np.array(training.genotype))
    patience = training.recipe.patience

    def kept() -> int:
        return kept_epoch(metrics.accuracies(seed, split), patience)

    options = ocp.CheckpointManagerOptions(
        preservation_policy=_LastAnd(kept), enable_async_checkpointing=False
    )
    with (
        ocp.CheckpointManager(directory.absolute(), options=options) as manager,
        tqdm(total=training.num_steps, unit="step", desc=f"seed {seed}", disable=None) as bar,
    ):
        num_done = manager.latest_step() or 0
        if num_done:
            state = manager.restore(num_done, args=ocp.args.StandardRestore(state))
        metrics.check_columns(split)
        metrics.keep(seed, num_done)
        bar.update(num_done * training.steps_per_epoch)
        for epoch in range(num_done, total):
            if patience and epoch - kept() >= patience:
                break
            start = time.perf_counter()
            collected: list[Sums] = []
            for rows in epoch_rows(order_key, epoch, training):
                batch = jax.device_put(
                    (split.train.images[rows], split.train.labels[rows]), sharded
                )
                state, sums = train_step(state, augment_key, *batch, training=training)
                collected.append(sums)
                # Waits for the step before this one: one step is always queued, and no more.
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
                row |= _means(split.name, _evaluate(state, training, split.held_out, sharded))
            if not np.isfinite(row["train_loss"]):
                raise InputError(
                    f"seed {seed}, epoch {epoch + 1}: the training diverged, found a loss of "
                    f"{row['train_loss']}, expected numbers: lower train.learning_rate "
                    f"(found {training.recipe.learning_rate})"
                )
            accuracies = {name: f"{v:.2f}" for name, v in row.items() if "accuracy" in name}
            bar.set_postfix(accuracies)
            facts = ", ".join(f"{name} {value}" for name, value in accuracies.items())
            _LOG.info("seed %d, epoch %d of %d: %s", *(seed, epoch + 1, total), facts)
            # Before the checkpoint, so that every epoch with a checkpoint has its metrics.
            metrics.add(row)
            manager.save(
                epoch + 1, args=ocp.args.StandardSave(state), custom_metadata={"arch": arch}
            )
        if kept() != manager.latest_step():
            state = manager.restore(kept(), args=ocp.args.StandardRestore(state))
    return state


def kept_epoch(accuracies: Sequence[float], patience: int) -> int:
    """The epoch, counted from 1, whose network a training keeps.

    Args:
      accuracies: on the held-out images, after each epoch.
      patience: 0: the last epoch is kept; otherwise the first of the best ones.

    Returns:
      The epoch; 0 before the first one is finished.

    Examples:
      >>> from epe_nas_jax.training.loop import kept_epoch
      >>> kept_epoch([70.0, 90.0, 80.0], patience=2)
      2
    """
    if not patience or not accuracies:
        return len(accuracies)
    return int(np.argmax(accuracies)) + 1


class _LastAnd:
    """Keeps the last checkpoint, from which a training continues, and that of another epoch."""

    def __init__(self, kept: Callable[[], int]):
        self._kept = kept

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Called by Orbax when a checkpoint has been saved."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        return [step in (max(steps), self._kept()) for step in steps]


def predict(state: TrainState, training: Training, dataset: Dataset) -> np.ndarray:
    """The probability of every class for every image of a data set, `[M, K]`."""
    _, sharded = _placements(training.recipe.batch_size)
    found = [
        np.asarray(probabilities(state, jax.device_put(images, sharded), training=training))
        for images, _ in _filled_batches(dataset, training.recipe.batch_size)
    ]
    return np.concatenate(found)[: len(dataset.images)]


def _evaluate(
    state: TrainState, training: Training, dataset: Dataset, sharded: NamedSharding
) -> list[Sums]:
    return [
        evaluate(state, *jax.device_put(batch, sharded), training=training)
        for batch in _filled_batches(dataset, training.recipe.batch_size)
    ]


def _filled_batches(dataset: Dataset, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A data set in mini-batches of one size; the last one is filled up with `NO_IMAGE`."""
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
    """The shardings for replicated arrays and for images, on as many devices as divide N."""
    devices = jax.local_devices()
    num_devices = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    mesh = Mesh(np.array(devices[:num_devices]), ("images",))
    replicated = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]
    return replicated, NamedSharding(mesh, PartitionSpec("images"))  # type: ignore[no-untyped-call]
