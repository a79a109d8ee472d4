import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from epe_nas_jax.spaces.layers import convolution

CHANNELS = 3


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (4, 6, 6, CHANNELS), jnp.float64)


@pytest.fixture
def kernel():
    return jax.random.normal(jax.random.key(2), (3, 3, CHANNELS, CHANNELS), jnp.float64)


def test_convolution_is_a_sum_over_the_zero_padded_window(x, kernel):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for stride in (1, 2):
        got = convolution.convolve(x, kernel, stride)
        assert got.shape == (4, 6 // stride, 6 // stride, CHANNELS)
        for row, column in ((0, 0), (1, 2), (2, 1)):
            window = padded[:, stride * row :, stride * column :][:, :3, :3]
            expected = np.einsum("nhwc,hwcd->nd", window, kernel)
            assert np.allclose(got[:, row, column], expected, rtol=1e-11)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 2), (2, 1), (3, 2)])
def test_an_image_as_small_as_a_window_is_convolved_as_any_other(kernel, shape):
    x = jax.random.normal(jax.random.key(1), (4, *shape, CHANNELS), jnp.float64)
    got = convolution.convolve(x, kernel)
    assert got.shape == x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for row, column in np.ndindex(shape):
        window = padded[:, row : row + 3, column : column + 3]
        expected = np.einsum("nhwc,hwcd->nd", window, kernel)
        assert np.allclose(got[:, row, column], expected, rtol=1e-11)
    check_grads(convolution.convolve, (x, kernel), order=1, modes=("rev",))
    is_product = (
        "stablehlo.convolution" not in jax.jit(convolution.convolve).lower(x, kernel).as_text()
    )
    assert is_product == (max(shape) <= 2)


@pytest.mark.parametrize("side", [2, 4, 8, 10, 12])
def test_a_stride_of_two_has_every_other_pixel_and_autodiffs_cotangent(kernel, side):
    keys = jax.random.split(jax.random.key(1))
    x = jax.random.normal(keys[0], (4, side, side, CHANNELS), jnp.float64)
    kernel = jnp.concatenate([kernel, 2 * kernel[..., :1]], axis=-1)
    # At stride 1 they are tested against sums over windows above.
    every_other = convolution.convolve(x, kernel)[:, ::2, ::2]
    assert np.allclose(convolution.convolve(x, kernel, 2), every_other, rtol=1e-11, atol=1e-12)
    dy = jax.random.normal(keys[1], every_other.shape, jnp.float64)
    _, vjp = jax.vjp(lambda x: convolution._convolve(x, kernel, 2), x)
    got = convolution.input_cotangent(kernel, dy, 2)
    assert np.allclose(got, vjp(dy)[0], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_the_convolution_match_finite_differences(x, kernel, stride):
    check_grads(
        lambda x, k: convolution.convolve(x, k, stride), (x, kernel), order=1, modes=("rev",)
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("num_images", [5, 24])
def test_kernel_cotangent_of_patches_is_autodiffs(stride, num_images):
    keys = jax.random.split(jax.random.key(4), 3)
    x = jax.random.normal(keys[0], (num_images, 6, 8, 3), jnp.float64)
    kernel = jax.random.normal(keys[1], (3, 3, 3, 4), jnp.float64)
    y = convolution.convolve(x, kernel, stride)
    dy = jax.random.normal(keys[2], y.shape, jnp.float64)
    got = convolution._kernel_cotangent_of_patches(stride, x, kernel, dy)
    assert np.allclose(got, convolution._kernel_cotangent(stride, x, kernel, dy), rtol=1e-10)
