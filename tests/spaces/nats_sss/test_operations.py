"""Masked layers: the first part of the channels, on CPUs, is as good as all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.spaces.layers.conv_bn import ConvBN
from epe_nas_jax.spaces.nats_sss import operations
from epe_nas_jax.spaces.nats_sss.operations import Width

BUILT = 8


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, BUILT, BUILT))
    return ConvBN(kernel, 1 + rng.random(BUILT), rng.normal(size=BUILT))


def image(used):
    x = np.random.default_rng(1).normal(size=(5, 4, 4, BUILT))
    return np.where(np.arange(BUILT) < used, x, 0)


def layer(x, weights, inputs, outputs, stride):
    """The traced layer, as a function of which arrays are differentiated."""
    return operations.relu_conv_bn(x, weights, Width(inputs, BUILT), Width(outputs, BUILT), stride)


def built_alone(x, weights, inputs, outputs, stride):
    """The layer with its own channels only, weights scaled as for so many inputs."""
    factor = np.sqrt(BUILT / inputs)
    own = ConvBN(
        factor * weights.kernel[:, :, :inputs, :outputs],
        weights.scale[:outputs],
        weights.bias[:outputs],
    )
    width_in, width_out = Width(inputs, inputs), Width(outputs, outputs)
    y = operations.relu_conv_bn(x[..., :inputs], own, width_in, width_out, stride)
    return jnp.pad(y, ((0, 0),) * 3 + ((0, BUILT - outputs),))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("weights_too", [False, True])
def test_a_masked_layer_and_its_gradients_are_those_of_one_built_alone(
    weights, stride, weights_too
):
    by = (0, 1) if weights_too else 0

    def loss(run, x, weights, inputs, outputs):
        return jnp.sum(run(x, weights, inputs, outputs, stride) ** 3)

    traced = jax.jit(jax.value_and_grad(lambda *args: loss(layer, *args), by))
    alone = jax.value_and_grad(lambda *args: loss(built_alone, *args), by)
    for inputs, outputs in ((1, 2), (3, 4), (5, 1), (8, 8)):
        x = image(inputs)
        value, gradient = traced(x, weights, jnp.asarray(inputs), jnp.asarray(outputs))
        expected, expected_gradient = alone(x, weights, inputs, outputs)
        assert np.allclose(value, expected, rtol=1e-10)
        if not weights_too:
            gradient, expected_gradient = (gradient,), (expected_gradient,)
        # A batch norm before has no scale in channels that are not there.
        masked = jnp.where(jnp.arange(BUILT) < inputs, gradient[0], 0)
        assert np.allclose(masked, expected_gradient[0], rtol=1e-8, atol=1e-10)
        others = jax.tree.map(
            lambda a, b: np.allclose(a, b, rtol=1e-8, atol=1e-10),
            gradient[1:],
            expected_gradient[1:],
        )
        assert jax.tree.all(others)


def test_on_gpus_a_layer_of_many_networks_is_one_dense_convolution(weights):
    x = np.stack([image(used) for used in (1, 4, 8)])
    used = jnp.array([1, 4, 8])

    def gradient(x, used):
        return jax.grad(lambda x: jnp.sum(layer(x, weights, used, used, 1) ** 3))(x)

    lowered = jax.jit(jax.vmap(gradient)).trace(x, used).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert text.count("stablehlo.convolution") == 2
    assert "feature_group_count = 1" in text
    assert "feature_group_count = 3" not in text
    assert "stablehlo.while" not in text
