import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from epe_nas_jax.spaces.layers.depthwise import convolve_depthwise

CASES = [
    (side, size, stride, dilation)
    for side in (2, 4, 8)
    for size in (3, 5)
    for stride in (1, 2)
    for dilation in (1, 2)
]


def by_the_compiler(x, kernel, stride, dilation):
    around = dilation * (kernel.shape[0] // 2)
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((around, around), (around, around)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@pytest.mark.parametrize(("side", "size", "stride", "dilation"), CASES)
def test_output_and_cotangents_are_those_of_the_grouped_convolution(side, size, stride, dilation):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, side, side, 4)))
    kernel = jnp.asarray(rng.normal(size=(size, size, 1, 4)))

    @jax.jit
    def both(x, kernel):
        results = []
        for convolve in (convolve_depthwise, by_the_compiler):
            y, vjp = jax.vjp(lambda x, k, c=convolve: c(x, k, stride, dilation), x, kernel)
            results.append((y, *vjp(jnp.sin(y))))
        return results

    for own, expected in zip(*both(x, kernel), strict=True):
        assert own.shape == expected.shape
        # Sums of up to 192 products in another order.
        assert np.allclose(own, expected, rtol=1e-12, atol=1e-12)


def test_images_need_not_be_square():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 2, 6, 3)), rng.normal(size=(5, 5, 1, 3))
    expected = by_the_compiler(x, kernel, 1, 1)
    got = convolve_depthwise(jnp.asarray(x), jnp.asarray(kernel))
    assert np.allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_can_be_differentiated(stride):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 4, 4, 2)), rng.normal(size=(3, 3, 1, 2))
    check_grads(
        lambda x, k: convolve_depthwise(x, k, stride),
        (jnp.asarray(x), jnp.asarray(kernel)),
        order=2,
        modes=("rev",),
    )
