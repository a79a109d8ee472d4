"""What is read of a function, beside the collections and probes of the package's own networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from epe_nas_jax import NasBench201Network, rank_networks
from epe_nas_jax.networks.columns import NETWORK_COLUMNS
from epe_nas_jax.networks.found import NO_JACOBIAN
from epe_nas_jax.networks.function import NO_BLOCKS
from epe_nas_jax.proxies.cell_proxies import cell_proxies
from epe_nas_jax.proxies.table import PROXIES

SIGNALS = tuple(name for name in NETWORK_COLUMNS if name in PROXIES)
CELLS = {
    "all": (3, 1, 4, 0, 2, 3),
    "one_way": (3, 0, 3, 0, 0, 3),
    "skip_alone": (0, 0, 0, 1, 0, 0),
    "pool_alone": (0, 0, 0, 4, 0, 0),
    "skips": (1, 1, 1, 1, 1, 1),
    "dead": (3, 3, 0, 3, 0, 2),
    "relu_of_zeros": (0, 0, 0, 3, 2, 2),
}


def row_of(network, minibatch, columns=tuple(NETWORK_COLUMNS), num_classes=3):
    row = rank_networks({"n": network}, *minibatch, num_classes, columns=columns).iloc[0]
    assert row["error"] is None
    return row


@pytest.mark.parametrize(
    ("name", "cells_per_stage"),
    [*((name, 1) for name in CELLS), ("one_way", 2), ("skip_alone", 2)],
)
def test_signals_of_our_networks_are_those_of_their_collections(minibatch, name, cells_per_stage):
    cell = CELLS[name]
    images, labels = minibatch
    network = NasBench201Network(3, 4, cells_per_stage, jnp.float64)
    variables = network.init(jax.random.key(0), images, cell)
    expected, _ = jax.jit(
        lambda variables: cell_proxies(
            variables, cell, images, labels, network=network, proxies=SIGNALS
        )
    )(variables)
    row = row_of((lambda v, x: network.apply(v, x, cell), variables), minibatch, SIGNALS)
    # The same operations in float64, compiled in another program.
    np.testing.assert_allclose(row[list(SIGNALS)].to_numpy(float), expected, rtol=1e-10)


def plain_residual(weights, images):
    """A stem and two residual blocks, the second at half the side, without modules."""
    x = jax.lax.conv_general_dilated(
        images, weights[0], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = x + jnp.tanh(jax.nn.relu(x) @ weights[1])
    x = x.reshape(len(x), 4, 2, 4, 2, -1).mean((2, 4)) @ weights[2]
    x = x + jnp.tanh(jax.nn.relu(x) @ weights[1])
    return jnp.tanh(x).mean((1, 2)) @ weights[3]


@pytest.fixture
def weights():
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape) for shape in [(3, 3, 3, 6), (6, 6), (6, 6), (6, 3)]]


def test_signals_of_a_plain_function_are_the_oracles(minibatch, weights):
    images, labels = minibatch
    row = row_of((plain_residual, weights), minibatch)
    probes = [jnp.zeros((8, 8, 8, 6)), jnp.zeros((8, 4, 4, 6))]

    def probed(images, weights, probes):
        """The network again, with its blocks' ends to differentiate by."""
        x = jax.lax.conv_general_dilated(
            images, weights[0], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        codes = [x > 0]
        x = x + jnp.tanh(jax.nn.relu(x) @ weights[1]) + probes[0]
        x = x.reshape(len(x), 4, 2, 4, 2, -1).mean((2, 4)) @ weights[2]
        codes.append(x > 0)
        x = x + jnp.tanh(jax.nn.relu(x) @ weights[1]) + probes[1]
        logits = jnp.tanh(x).mean((1, 2)) @ weights[3]
        return logits.sum(), (codes, logits)

    (jacobian, gradients), (codes, _) = jax.grad(probed, (0, 2), has_aux=True)(
        images, weights, probes
    )

    def loss(weights):
        chosen = jax.nn.log_softmax(probed(images, weights, probes)[1][1])
        return -chosen[jnp.arange(8), labels].mean()

    of_weights = jax.grad(loss)(weights)
    jacobian = np.asarray(jacobian).reshape(8, -1)
    size = np.square(np.asarray(gradients[1])).sum()
    expected = {
        "epe": oracles.epe_score(jacobian, labels, 3, "released"),
        "jacob_cov": oracles.jacob_cov(jacobian),
        "nwot": oracles.nwot([np.asarray(code).reshape(8, -1) for code in codes]),
        "grad_entropy": oracles.channel_entropy(np.asarray(gradients[0])),
        "grad_decay": np.log(size) - np.log(np.square(jacobian).sum()),
        "grad_norm": oracles.grad_norm(list(map(np.asarray, of_weights))),
        "snip": oracles.snip(weights, list(map(np.asarray, of_weights))),
        "params": 3 * 3 * 3 * 6 + 36 + 36 + 18,
    }
    for name, value in expected.items():
        # Float64 on both sides; a logarithm magnifies the rounding of correlations near 0.
        assert np.isclose(row[name], value, rtol=1e-7 if name == "epe" else 1e-9), name
    assert row["note"] == ""


def test_flops_are_the_compilers_and_latency_is_measured(minibatch):
    weights = np.random.default_rng(0).normal(size=(192, 3))
    row = row_of((lambda w, x: x.reshape(len(x), -1) @ w, weights), minibatch)
    # Two FLOPs a weight and image.
    assert row["mflops"] == 2 * 192 * 3 / 1e6
    assert row["latency_ms"] > 0


def test_network_without_rectifiers_and_stages_says_so(minibatch):
    weights = np.random.default_rng(0).normal(size=(192, 3))
    row = row_of((lambda w, x: jnp.tanh(x.reshape(len(x), -1) @ w), weights), minibatch)
    assert np.isnan(row[["nwot", "grad_entropy", "grad_decay"]].to_numpy(float)).all()
    assert row["note"] == f"nwot: found no rectifier; {NO_BLOCKS}"
    assert np.isfinite(row["epe"])
    assert np.isnan(row["score"])


class Net(nn.Module):
    """A Linen network with everything that has two modes."""

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(6, (3, 3))(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.silu(nn.GroupNorm(2)(nn.Conv(6, (3, 3))(x)))
        return nn.Dense(3)(x.mean(axis=(1, 2)))


def test_linen_module_is_in_training_mode_without_dropout(minibatch):
    images, _ = minibatch
    module = Net()
    variables = module.init(jax.random.key(0), images, train=False)

    def apply_fn(variables, images):
        rate_of_zero = nn.Dropout.__call__

        def skip(next_function, args, keywords, context):
            is_dropout = type(context.module).__call__ is rate_of_zero
            return args[0] if is_dropout else next_function(*args, **keywords)

        with nn.intercept_methods(skip):
            return module.apply(variables, images, train=True, mutable=["batch_stats"])[0]

    assert row_of((module, variables), minibatch)[list(SIGNALS)].equals(
        row_of((apply_fn, variables), minibatch)[list(SIGNALS)]
    )
    row = row_of((module, variables), minibatch)
    assert row["params"] == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert np.isfinite(row[list(NETWORK_COLUMNS)].to_numpy(float)).all()


@jax.custom_vjp
def straight_through(x):
    return jnp.sign(jax.nn.relu(x))


straight_through.defvjp(lambda x: (straight_through(x), x), lambda x, dy: (dy * jnp.cos(x),))


def test_derivatives_of_ones_own_are_kept_and_rectifiers_in_them_counted(minibatch):
    images, labels = minibatch
    weights = np.random.default_rng(0).normal(size=(192, 40)), np.ones((40, 3))

    def apply_fn(weights, images):
        return straight_through(images.reshape(len(images), -1) @ weights[0]) @ weights[1]

    row = row_of((apply_fn, weights), minibatch, ("epe", "nwot"))
    hidden = images.reshape(8, -1) @ weights[0]
    jacobian = 3 * np.cos(hidden) @ weights[0].T
    # Float64 on both sides; a logarithm magnifies the rounding of correlations near 0.
    assert np.isclose(row["epe"], oracles.epe_score(jacobian, labels, 3, "released"), rtol=1e-7)
    assert np.isclose(row["nwot"], oracles.nwot([hidden > 0]), rtol=1e-12)


def test_rectifiers_that_open_alike_are_said(minibatch):
    weights = np.zeros((192, 3))
    row = row_of((lambda w, x: jax.nn.relu(x.reshape(len(x), -1) @ w), weights), minibatch)
    assert np.isnan(row["nwot"])
    assert "nwot: -inf" in row["note"]


def test_a_zero_jacobian_is_said(minibatch):
    row = row_of((lambda w, x: 0 * x.reshape(len(x), -1) @ w, np.ones((192, 3))), minibatch)
    assert NO_JACOBIAN in row["note"]
    assert np.isnan(row["epe"])
