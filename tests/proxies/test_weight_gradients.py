import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax_runs import layers_of

from epe_nas_jax import DartsNetwork, InputError, NasBench201Network, parse_genotype
from epe_nas_jax.proxies.weight_gradients import (
    cross_entropy,
    grad_norm_score,
    snip_score,
    synflow_score,
)
from epe_nas_jax.spaces.darts.published import DARTS_V2

NETWORK = NasBench201Network(num_classes=3, channels=4, cells_per_stage=1, param_dtype=jnp.float64)


def test_grad_norm_and_snip_are_numpys_and_offsets_do_not_count():
    rng = np.random.default_rng(3)
    weights, gradient = (
        {
            "kernel": rng.normal(size=(3, 3, 2, 4)),
            "bias": rng.normal(size=4),
            "w": rng.normal(size=(4, 3)),
        }
        for _ in range(2)
    )
    layers = layers_of(weights), layers_of(gradient)
    assert len(layers[0]) == 2
    assert np.allclose(grad_norm_score(gradient), oracles.grad_norm(layers[1]), rtol=1e-12)
    assert np.allclose(snip_score(weights, gradient), oracles.snip(*layers), rtol=1e-12)
    nothing = jax.tree.map(np.zeros_like, gradient)
    assert np.isnan(grad_norm_score(nothing))
    assert np.isnan(snip_score(weights, nothing))


def test_synflow_in_float32_is_finite_where_the_flow_is_not():
    cell, image = (3, 0, 3, 0, 0, 3), jnp.zeros((8, 8, 3))
    variables = NETWORK.init(jax.random.key(0), image[None], cell)
    score = jax.jit(lambda variables, image: synflow_score(variables, cell, image, network=NETWORK))
    # 15 layers, so that the flow is 1e60 times as large.
    variables = jax.tree.map(lambda leaf: 1e4 * leaf, variables)
    exact = score(variables, image)
    assert exact > np.log(np.finfo(np.float32).max)
    got = score(*jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (variables, image)))
    assert got.dtype == jnp.float32
    # Sums of positive numbers in 15 layers, each rounded by 6e-8.
    assert np.allclose(got, exact, rtol=1e-6)


def test_synflow_of_a_network_that_keeps_its_batch_norm_is_refused(minibatch):
    images, _ = minibatch
    network = DartsNetwork(num_classes=3, channels=4, num_cells=3, param_dtype=jnp.float64)
    with pytest.raises(InputError, match="proxy synflow: found a network without an attribute"):
        synflow_score({}, parse_genotype(DARTS_V2), images[0], network=network)


def test_cross_entropy_is_the_mean_over_the_images():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 4)), np.array([0, 3, 1, 1, 2, 0], np.int32)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.mean([np.log(shares[i, label]) for i, label in enumerate(labels)])
    assert np.allclose(cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), expected)
