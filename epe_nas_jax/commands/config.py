"""Reads what commands need from a config. Only the folder `commands` uses `ConfigDict`."""

import importlib
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

# The largest numbers of channels and cells, far beyond what can be computed.
_LARGEST_SIZE = 10_000
# The types that a value may have where the default is of this type; else only the same one.
_KINDS: dict[type, tuple[type, ...]] = {float: (float, int), tuple: (tuple, list)}


def check_config(config: Any) -> ConfigDict:
    """Checks that a config has the keys of `configs/base.py`, and values of their types.

    On the command line types are checked already, but a config file can return any object.

    Raises:
      InputError: a key is missing, unknown, or has a value of another type.
    """
    # A config that could not be read is an object that raises an exception when it is used.
    getattr(config, "items", None)
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise InputError(f"config: found a {kind}, expected a ConfigDict as in configs/base.py")
    base = importlib.import_module("epe_nas_jax.configs.base")
    expected, found = (_flattened(some) for some in (base.get_config(), config))
    for key in dict.fromkeys([*found, *expected]):
        if key not in expected:
            raise InputError(f"config key {key!r}: unknown, expected one of configs/base.py")
        if key not in found:
            raise InputError(f"config key {key!r}: missing, expected it as in configs/base.py")
        kinds = _KINDS.get(type(expected[key]), (type(expected[key]),))
        if key == "cells_per_step":
            kinds = (int, str)
        if type(found[key]) not in kinds:
            names = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(f"config key {key!r}: found {found[key]!r}, expected {names}")
    return config


def _flattened(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """The values of a config by their full keys."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            found |= _flattened(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def plain_config(config: ConfigDict) -> dict[str, Any]:
    """A config in types of JSON."""
    plain: dict[str, Any] = json.loads(config.to_json())
    return plain


def space_of(config: ConfigDict) -> SearchSpace:
    """The search space that a config names; raises as `space_entry`."""
    return space_entry(config.space.name).space


def network_of(config: ConfigDict, num_classes: int, dtype: jnp.dtype) -> CellNetwork:
    """The network that a config describes.

    Raises:
      InputError: an unknown space, or a size out of range.
    """
    for name, value in config.network.items():
        if not 1 <= value <= _LARGEST_SIZE:
            raise InputError(f"network.{name}: found {value}, expected 1..{_LARGEST_SIZE}")
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
    """Images and labels to score on: one mini-batch or, with fresh ones per cell, the data set.

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
    """Trained accuracies by the text of a cell; None if the config names no table of them.

    A column without a table is not read: configs of known data sets name the column of theirs.

    Raises:
      InputError: as `read_accuracies`.
    """
    if not config.benchmark.path:
        return None
    return read_accuracies(config.benchmark.path, config.benchmark.column, space=space)


def objective_from(config: ConfigDict) -> Objective:
    """What a search by the config maximises; raises as `objective_of`."""
    return objective_of(tuple(config.score.objective), config.score.combine)


def cells_per_step_of(config: ConfigDict) -> int | str:
    """The config's `cells_per_step`: `"auto"`, or a number, which is text on the command line."""
    value: int | str = config.cells_per_step
    is_number = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    return int(value) if is_number else value
