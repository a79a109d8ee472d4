import functools
import re

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from epe_nas_jax import NETWORK_RANKING, InputError, network_score, rank_networks
from epe_nas_jax.networks.columns import NETWORK_COLUMNS
from epe_nas_jax.search.ranking import log_rank_sum


def linear_tanh(weights, images):
    return jnp.tanh(images.reshape(len(images), -1) @ weights)


@pytest.fixture
def weights():
    return 0.1 * np.random.default_rng(1).normal(size=(192, 3))


@pytest.fixture
def networks(weights):
    return {
        name: (linear_tanh, factor * weights) for name, factor in [("a", 1), ("b", 3), ("c", 2)]
    }


def test_a_row_a_network_with_score_and_rank(minibatch, networks):
    table = rank_networks(networks, *minibatch, 3, objective=("epe", "jacob_cov"))
    assert list(table) == ["network", "score", "rank", *NETWORK_COLUMNS, "note", "error"]
    assert list(table["network"]) == list("abc")
    expected = log_rank_sum(table[["epe", "jacob_cov"]].to_numpy())
    np.testing.assert_array_equal(table["score"], expected)
    assert list(table["rank"]) == [1 + sum(expected > score) for score in expected]
    assert list(table["params"]) == [576] * 3
    for name, network in networks.items():
        score = network_score(*network, *minibatch, 3)
        row = table.set_index("network").loc[name]
        # The same Jacobian, the score computed outside of the program that makes it.
        assert np.isclose(row["epe"], score, rtol=1e-9)


def test_one_column_is_the_score_itself(minibatch, networks):
    table = rank_networks(networks, *minibatch, 3, columns=(), objective=("epe",))
    assert list(table) == ["network", "score", "rank", "epe", "note", "error"]
    assert table["score"].equals(table["epe"].rename("score"))


def test_pairs_are_taken_one_after_the_other(minibatch, networks):
    taken = []

    def pairs():
        for name, network in networks.items():
            taken.append(name)
            yield name, network

    found = rank_networks(pairs(), *minibatch, 3, columns=(), objective=("epe",))
    assert taken == list("abc")
    assert found.equals(rank_networks(networks, *minibatch, 3, columns=(), objective=("epe",)))


def test_a_function_that_makes_a_network_is_called_in_its_turn(minibatch, networks):
    def cannot():
        raise ValueError("no such width")

    made = {name: functools.partial(lambda network: network, networks[name]) for name in "abc"}
    made["d"] = cannot
    found = rank_networks(made, *minibatch, 3, columns=(), objective=("epe",))
    assert found["error"][3] == "network 'd': ValueError: no such width"
    expected = rank_networks(networks, *minibatch, 3, columns=(), objective=("epe",))
    assert found[:3].drop(columns="error").equals(expected.drop(columns="error"))


def fails(_weights, _images):
    raise RuntimeError("no such\nlayer")


BROKEN = {
    "tuple": (lambda w, x: (linear_tanh(w, x), x), "logits: found a tuple, expected one array"),
    "classes": (lambda w, x: linear_tanh(w, x)[:, :2], r"shape \(8, 2\), expected one array"),
    "batch": (lambda w, x: linear_tanh(w, x)[1:], r"shape \(7, 3\), expected one array"),
    "complex": (lambda w, x: linear_tanh(w, x) * 1j, "logits: found complex128"),
    "nan": (lambda w, x: jnp.log(linear_tanh(w, x) - 2), "logits: found NaN or infinite values"),
    "jacobian": (lambda w, x: jnp.sqrt(0 * linear_tanh(w, x)), "input Jacobian: found NaN"),
    "size": (lambda w, x: x.reshape(len(x), -1) @ w[:5], "TypeError: "),
    "failing": (fails, "RuntimeError: no such layer"),
}


@pytest.mark.parametrize(("apply_fn", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_network_is_a_row_with_its_error(minibatch, weights, networks, apply_fn, message):
    networks = {"bad": (apply_fn, weights), **networks}
    table = rank_networks(networks, *minibatch, 3, columns=(), objective=("epe",))
    bad = table.iloc[0]
    assert bad["error"].startswith("network 'bad': ")
    assert "\n" not in bad["error"]
    assert re.search(message, bad["error"]), bad["error"]
    assert np.isnan(bad["epe"])
    assert np.isnan(bad["score"])
    assert table["rank"].isna().tolist() == [True, False, False, False]
    assert table["error"][1:].isna().all()


@pytest.mark.parametrize("network", [None, 3, (1, 2), lambda x: x, [torch.ones(1)]])
def test_what_is_no_network_is_a_row_with_its_error(minibatch, network):
    table = rank_networks({"odd": network}, *minibatch, 3, columns=(), objective=("epe",))
    assert "expected one of: (apply_fn, variables), " in table["error"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"networks": {}}, "networks: found none"),
        ({"networks": 3}, "networks: found an int, expected networks by name"),
        ({"networks": [3]}, "networks: found an int, expected pairs"),
        ({"networks": [("a", None)] * 2}, "networks: found the name 'a' twice"),
        ({"columns": ("epe", "mine")}, "columns: found 'mine', expected one of epe, "),
        ({"columns": "epe"}, "columns: found 'epe', expected a list"),
        ({"objective": ("epe", "epe")}, "objective: found 'epe' twice"),
        ({"objective": ()}, "objective: found no columns"),
        ({"labels": np.arange(8)}, "labels: found 7, expected 0..2"),
        ({"images": np.ones((8, 3, 8, 8))}, "images: found channels first"),
        ({"images": np.ones((8, 8, 8, 3), int)}, "images: found int64"),
        ({"num_classes": 3.0}, "number of classes: found a float"),
    ],
)
def test_bad_argument_is_refused(minibatch, networks, change, message):
    images, labels = minibatch
    arguments = {"networks": networks, "images": images, "labels": labels, "num_classes": 3}
    with pytest.raises(InputError, match=message):
        rank_networks(**{**arguments, **change})


def test_recommended_ranking_is_of_columns():
    assert set(NETWORK_RANKING) <= set(NETWORK_COLUMNS)
