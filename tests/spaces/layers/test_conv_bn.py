import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.spaces.layers.batch_norm import without_norm
from epe_nas_jax.spaces.layers.conv_bn import (
    ConvBN,
    ConvBNParams,
    relu_conv_bn,
    relu_conv_bn_cotangent,
)

RNG = np.random.default_rng(0)


def test_weights_are_the_drawn_kernel_and_a_norm_that_changes_nothing():
    drawn = RNG.normal(size=(3, 3, 2, 4))
    module = ConvBNParams(drawn.shape, jnp.float64)
    variables = module.init(jax.random.key(0), drawn)
    weights = module.apply(variables, np.zeros_like(drawn))
    # Where they are made already, another kernel is not looked at.
    assert np.array_equal(weights.kernel, drawn)
    assert np.array_equal(weights.scale, np.ones(4))
    assert np.array_equal(weights.bias, np.zeros(4))


def test_relu_convolution_and_norm_follow_each_other():
    x = RNG.normal(size=(5, 4, 4, 2))
    kernel, scale, bias = RNG.normal(size=(1, 1, 2, 3)), RNG.normal(size=3), np.arange(3.0)
    weights = ConvBN(jnp.asarray(kernel), jnp.asarray(scale), jnp.asarray(bias))
    for stride in (1, 2):
        z = np.maximum(x, 0)[:, ::stride, ::stride] @ kernel[0, 0]
        inverse_std = 1 / np.sqrt(z.var(axis=(0, 1, 2)) + 1e-5)
        expected = (z - z.mean(axis=(0, 1, 2), keepdims=True)) * inverse_std[None, None, None]
        expected = expected * scale + bias
        y, deviation = relu_conv_bn(jnp.asarray(x), weights, stride)
        assert np.allclose(y, expected, rtol=1e-10, atol=1e-12)
        assert np.allclose(deviation, inverse_std, rtol=1e-10)
        plain, _ = relu_conv_bn(jnp.asarray(x), weights, stride, norm=without_norm)
        assert np.allclose(plain, z, rtol=1e-12)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_cotangent_from_the_output_is_autodiffs(size, stride):
    x = RNG.normal(size=(5, 4, 4, 2))
    kernel = RNG.normal(size=(size, size, 2, 3))
    weights = ConvBN(jnp.asarray(kernel), jnp.array([2.0, -1.0, 0.0]), jnp.arange(3.0))
    (y, inverse_std), vjp = jax.vjp(lambda x: relu_conv_bn(x, weights, stride), jnp.asarray(x))
    dy = jnp.asarray(RNG.normal(size=y.shape))
    expected = vjp((dy, jnp.zeros_like(inverse_std)))[0]
    got = relu_conv_bn_cotangent(x <= 0, weights, y, inverse_std, dy, stride)
    assert np.allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_without_scale_and_bias_there_is_a_kernel_only():
    drawn = RNG.normal(size=(1, 1, 2, 4))
    module = ConvBNParams(drawn.shape, jnp.float64, affine=False)
    variables = module.init(jax.random.key(0), drawn)
    assert variables["params"].keys() == {"kernel"}
    weights = module.apply(variables, drawn)
    assert np.array_equal(weights.kernel, drawn)
    assert np.array_equal(weights.scale, np.ones(4))
    assert np.array_equal(weights.bias, np.zeros(4))
