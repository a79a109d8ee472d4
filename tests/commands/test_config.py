"""The configs, and what the commands read from one."""

import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_config import tiny_config

from epe_nas_jax import BEST_RANKING, DartsNetwork, InputError, NasBench201Network
from epe_nas_jax.commands import config as readers
from epe_nas_jax.configs import base, best
from epe_nas_jax.data.datasets import draw_fixed_minibatch
from epe_nas_jax.data.table import DATASETS
from epe_nas_jax.search import ranking
from epe_nas_jax.spaces.darts.published import DARTS_V2
from epe_nas_jax.spaces.table import SPACES

ROOT = Path(__file__).parents[2]


def test_configs_only_override_keys_of_the_base():
    keys = set(base.get_config().to_dict())
    names = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__", "base"}
    assert {"best", "digits", "exhaustive", "train_cifar10"} < names
    for name in names:
        module = importlib.import_module(f"epe_nas_jax.configs.{name}")
        config = module.get_config()
        assert set(config.to_dict()) == keys
        assert config.data.name in DATASETS


def test_a_plain_config_is_what_json_gives_back():
    plain = readers.plain_config(best.get_config())
    assert plain["score"]["objective"] == list(BEST_RANKING)
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize("name", SPACES)
def test_the_space_is_that_of_its_name(name):
    config = tiny_config(**{"space.name": name})
    assert readers.space_of(config) is SPACES[name].space
    assert readers.network_of(config, 3, jnp.float32).space is SPACES[name].space


def test_an_unknown_space_is_refused_by_name():
    config = tiny_config(**{"space.name": "nasnet"})
    message = r"space\.name: found 'nasnet', expected one of nasbench201, darts"
    for read in (readers.space_of, lambda config: readers.network_of(config, 3, jnp.float32)):
        with pytest.raises(InputError, match=message):
            read(config)


def test_networks_have_the_sizes_of_the_config():
    config = tiny_config(**{"network.channels": 6, "network.cells_per_stage": 2})
    expected = NasBench201Network(7, 6, 2, jnp.float64)
    assert readers.network_of(config, 7, jnp.float64) == expected
    config.space.name = "darts"
    # Two cells in each of three stages, and two reduction cells between the stages.
    expected = DartsNetwork(7, 6, 8, param_dtype=jnp.float64)
    assert readers.network_of(config, 7, jnp.float64) == expected


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("key", ["channels", "cells_per_stage"])
@pytest.mark.parametrize("size", [0, 10_001])
def test_sizes_out_of_range_are_refused(space, key, size):
    config = tiny_config(**{"space.name": space, f"network.{key}": size})
    with pytest.raises(InputError, match=rf"network\.{key}: found {size}, expected 1\.\.10000"):
        readers.network_of(config, 3, jnp.float32)


@pytest.mark.parametrize(("value", "expected"), [("3", 3), (5, 5), ("auto", "auto"), ("x", "x")])
def test_cells_per_step_is_a_number_where_it_can_be(value, expected):
    config = ConfigDict({"cells_per_step": value})
    assert readers.cells_per_step_of(config) == expected


def test_a_minibatch_is_drawn_once_or_from_the_whole_data_set():
    config = tiny_config()
    dataset = readers.dataset_of(config)
    images, labels = readers.minibatch_of(config, dataset, jax.random.key(3))
    expected = draw_fixed_minibatch(jax.random.key(3), dataset, 16, augment=False)
    assert np.array_equal(images, expected[0])
    assert np.array_equal(labels, expected[1])
    config.data.fresh_minibatch = True
    images, labels = readers.minibatch_of(config, dataset, jax.random.key(3))
    assert np.array_equal(images, dataset.normalised())
    assert np.array_equal(labels, dataset.labels)
    config.data.batch_size = 1798
    with pytest.raises(InputError, match=r"data\.batch_size: found 1798, expected 2\.\.1797"):
        readers.minibatch_of(config, dataset, jax.random.key(3))


def test_the_objective_is_a_column_or_several_with_their_combination():
    objective = readers.objective_from(base.get_config())
    assert objective.columns == ("epe",)
    assert objective.combine is None
    objective = readers.objective_from(best.get_config())
    assert objective.columns == BEST_RANKING
    assert objective.combine is ranking.log_rank_sum


def test_accuracies_are_those_of_the_cells_of_the_space(write):
    config = tiny_config()
    space = SPACES["darts"].space
    assert readers.accuracies_of(config, space) is None
    config.benchmark.path = write(f'arch,top1\n"{DARTS_V2}",97.24\n')
    config.benchmark.column = "top1"
    cell = space.format(space.parse(DARTS_V2))
    assert readers.accuracies_of(config, space) == {cell: 97.24}
    with pytest.raises(InputError, match="arch string"):
        readers.accuracies_of(config, SPACES["nasbench201"].space)
    # Configs of known data sets name the column of theirs, and are used without a table too.
    config.benchmark.path = ""
    assert readers.accuracies_of(config, space) is None


def changed(change):
    config = base.get_config()
    change(config)
    return config


def without_batch_size(config):
    del config.data.batch_size


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"seed": 1}, "config: found a dict, expected a ConfigDict"),
        (None, "config: found a NoneType"),
        (
            changed(lambda config: config.data.__setattr__("typo", 1)),
            "config key 'data.typo': unknown",
        ),
        (changed(without_batch_size), "config key 'data.batch_size': missing"),
        (ConfigDict({"seed": 1}), "config key 'arch': missing, expected it as in configs/base.py"),
        (
            changed(lambda config: config.data.__setattr__("path", None)),
            "config key 'data.path': found None, expected str",
        ),
    ],
)
def test_a_config_that_is_none_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        readers.check_config(config)


def test_values_of_other_types_are_refused():
    config = base.get_config()
    with config.ignore_type():
        config.search.num_samples = 7.5
    with pytest.raises(InputError, match=r"'search.num_samples': found 7.5, expected int"):
        readers.check_config(config)
    config = base.get_config()
    with config.ignore_type():
        config.score.objective = "epe"
    with pytest.raises(InputError, match=r"'score.objective': found 'epe', expected tuple or list"):
        readers.check_config(config)


def test_every_installed_config_passes():
    for path in (ROOT / "configs").glob("*.py"):
        if path.stem != "__init__":
            config = importlib.import_module(f"epe_nas_jax.configs.{path.stem}").get_config()
            assert readers.check_config(config) is config
