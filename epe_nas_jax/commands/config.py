"""What the commands read from a config. `ConfigDict` ends in this room."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.data.datasets import (
    Dataset,
    check_batch_size,
    draw_fixed_minibatch,
    load_dataset,
)
from epe_nas_jax.errors import InputError
from epe_nas_jax.scoring.columns import Objective, objective_of
from epe_nas_jax.spaces.base import CellNetwork, SearchSpace
from epe_nas_jax.spaces.table import space_entry


def plain_config(config: ConfigDict) -> dict[str, Any]:
    """A config in JSON's types."""
    plain: dict[str, Any] = json.loads(config.to_json())
    return plain


def space_of(config: ConfigDict) -> SearchSpace:
    """The search space that a config names; raises as `space_entry`."""
    return space_entry(config.space.name).space


def network_of(config: ConfigDict, num_classes: int, dtype: jnp.dtype) -> CellNetwork:
    """The network that a config describes.

    Raises:
      InputError: an unknown space, or a size below 1.
    """
    for name, value in config.network.items():
        if value < 1:
            raise InputError(f"network.{name}: found {value}, expected at least 1")
    make_network = space_entry(config.space.name).make_network
    return make_network(num_classes, config.network.channels, config.network.cells_per_stage, dtype)


def dataset_of(config: ConfigDict, split: str = "train") -> Dataset:
    """The data set that a config names; raises as `load_dataset`."""
    return load_dataset(
        config.data.name,
        config.data.path,
        split=split,
        images_key=config.data.images_key,
        labels_key=config.data.labels_key,
        side=config.data.side,
        download=config.data.download,
    )


def minibatch_of(
    config: ConfigDict, dataset: Dataset, key: jax.Array
) -> tuple[np.ndarray | jax.Array, np.ndarray | jax.Array]:
    """Images and labels to score on: the mini-batch of all cells or, for fresh ones, the data set.

    Args:
      config: the config.
      dataset: as from `dataset_of`.
      key: random key of the mini-batch, consumed.

    Raises:
      InputError: the data set has not enough images.
    """
    size = config.data.batch_size
    if config.data.fresh_minibatch:
        check_batch_size(size, dataset)
        return dataset.normalised(), dataset.labels
    return draw_fixed_minibatch(
        key,
        dataset,
        size,
        augment=config.data.augment,
        class_balanced=config.data.class_balanced,
    )


def accuracies_of(config: ConfigDict, space: SearchSpace) -> dict[str, float] | None:
    """Trained accuracies by the text of a cell; None if the config names no table of them."""
    if not config.benchmark.path:
        return None
    return read_accuracies(config.benchmark.path, config.benchmark.column, space=space)


def objective_from(config: ConfigDict) -> Objective:
    """What the config has a search maximise; raises as `objective_of`."""
    return objective_of(tuple(config.score.objective), config.score.combine)


def cells_per_step_of(config: ConfigDict) -> int | str:
    """A number, or `"auto"`; on the command line the number arrives as text."""
    value: int | str = config.cells_per_step
    return int(value) if isinstance(value, str) and value.isdigit() else value
