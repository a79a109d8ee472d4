"""A setting says on what the cells of a run are scored, and how. A search may have two of them."""

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from epe_nas_jax.commands.config import cells_per_step_of, dataset_of, minibatch_of, network_of
from epe_nas_jax.data.datasets import Dataset
from epe_nas_jax.errors import InputError
from epe_nas_jax.runs import hosts
from epe_nas_jax.scoring.columns import (
    MEASURED,
    Latency,
    Objective,
    RunCells,
    proxies_to_score,
)
from epe_nas_jax.scoring.config import ScoringConfig
from epe_nas_jax.scoring.scorer import CellScorer, compile_scorer
from epe_nas_jax.spaces.base import CellNetwork

# From a key of the section `refine`, the full setting, to that of the search's own setting.
FULL_KEYS = {
    "side": "data.side",
    "batch_size": "data.batch_size",
    "channels": "network.channels",
    "cells_per_stage": "network.cells_per_stage",
    "num_inits": "score.num_inits",
}
# From the begin of a message about the full setting to the key that the message should name.
_NAMED = {
    **{key: f"refine.{name}" for name, key in FULL_KEYS.items()},
    "num_inits": "refine.num_inits",
    "labels": "refine.batch_size",
}


class Setting(NamedTuple):
    """On what cells are scored, and how; checked.

    Attributes:
      dataset: the data set.
      inputs: images and labels of the mini-batch or, with a fresh one per cell, of the data set.
      network: the network around the cells.
      scoring: how cells are scored.
      latency: from genotypes to milliseconds; None if latencies are not used.
    """

    dataset: Dataset
    inputs: tuple[np.ndarray | jax.Array, np.ndarray | jax.Array]
    network: CellNetwork
    scoring: ScoringConfig
    latency: Latency | None = None

    @property
    def side(self) -> int:
        """The side of the images, H."""
        return int(self.inputs[0].shape[1])

    def cells(self, genotypes: np.ndarray) -> RunCells:
        """The object from which columns for genotypes `[A, E]` are computed."""
        return RunCells(genotypes, self.network, self.side, latency=self.latency)


class Compiled(NamedTuple):
    """A setting with its compiled scorer.

    Attributes:
      setting: the setting.
      scorer: scores cells at this setting.
      seconds: the time that compiling took.
    """

    setting: Setting
    scorer: CellScorer
    seconds: float


def setting_of(
    config: ConfigDict, dataset: Dataset, objective: Objective, batch_key: jax.Array
) -> Setting:
    """Reads and checks the setting of a search.

    Args:
      config: the config.
      dataset: as from `dataset_of`.
      objective: as from `objective_from`.
      batch_key: random key of the mini-batch, consumed.

    Raises:
      InputError: something in the config or the data cannot be used.
    """
    inputs = minibatch_of(config, dataset, batch_key)
    network = network_of(config, dataset.num_classes, jnp.float32)
    return Setting(dataset, inputs, network, _scoring_of(config, objective))


def full_setting_of(
    config: ConfigDict, objective: Objective, batch_key: jax.Array, own: Setting
) -> Setting:
    """Reads and checks the setting at which the best cells of a search are scored again.

    Args:
      config: the config.
      objective: as from `objective_from`.
      batch_key: the key that `setting_of` got for the search's own setting: the mini-batch is then
        that of a search at the full setting.
      own: the setting of the search itself.

    Raises:
      InputError: as `setting_of`, naming the keys `refine.*`; or the two settings are equal.
    """
    full = config.copy_and_resolve_references()
    full.update_from_flattened_dict({key: config.refine[name] for name, key in FULL_KEYS.items()})
    with naming_the_full_setting():
        is_read = full.data.side == config.data.side
        dataset = own.dataset if is_read else dataset_of(full)
        setting = setting_of(full, dataset, objective, batch_key)
    keys = [key for key in FULL_KEYS.values() if key != "data.side"]
    if setting.side == own.side and all(_value(full, key) == _value(config, key) for key in keys):
        raise InputError(
            f"search.refine: found {config.search.refine} with refine.* equal to the search's own "
            "setting, expected a cheaper search, as --config=fast has"
        )
    return setting


@contextlib.contextmanager
def naming_the_full_setting() -> Iterator[None]:
    """Makes messages of errors within it name the keys `refine.*` instead of the search's own.

    Raises:
      InputError: an `InputError` was raised within it.
    """
    try:
        yield
    except InputError as error:
        key, colon, rest = str(error).partition(":")
        raise InputError(f"{_NAMED.get(key, key)}{colon}{rest}") from None


def compile_setting(
    config: ConfigDict,
    setting: Setting,
    *,
    num_together: int | None = None,
    progress: bool,
) -> Compiled:
    """Compiles the scorer of a setting; the other arguments and errors are `compile_scorer`'s."""
    start = time.perf_counter()
    scorer = compile_scorer(
        *setting.inputs,
        seed=config.seed,
        network=setting.network,
        config=setting.scoring,
        cells_per_step=cells_per_step_of(config),
        prune_dead=config.score.prune_dead,
        black=setting.dataset.black(),
        num_together=num_together,
        num_processes=hosts.count(),
        progress=progress,
    )
    return Compiled(setting, scorer, time.perf_counter() - start)


def _scoring_of(config: ConfigDict, objective: Objective) -> ScoringConfig:
    fresh = config.data.fresh_minibatch
    further = tuple(name for name in config.score.proxies if name not in MEASURED)
    return ScoringConfig(
        init=config.score.init,
        proxies=proxies_to_score(objective, further),
        precision=config.score.precision,
        num_inits=config.score.num_inits,
        fresh_batch=config.data.batch_size if fresh else None,
        augment=config.data.augment and fresh,
        class_balanced=config.data.class_balanced and fresh,
    )


def _value(config: ConfigDict, key: str) -> int:
    section, name = key.split(".")
    value: int = config[section][name]
    return value
