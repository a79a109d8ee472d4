import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.spaces.layers.pooling import avg_pool_3x3, avg_pool_3x3_cotangent, halve


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (4, 6, 6, 3), jnp.float64)


def test_avg_pool_does_not_count_padding(x):
    for row, column in ((0, 0), (2, 0), (5, 3), (3, 3)):
        window = x[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        expected = window.mean(axis=(1, 2))
        assert np.allclose(avg_pool_3x3(x)[:, row, column], expected, rtol=1e-12)


def test_cotangent_of_the_average_pool_is_autodiffs(x):
    _, vjp = jax.vjp(avg_pool_3x3, x)
    dy = jnp.sin(x)
    assert np.allclose(avg_pool_3x3_cotangent(dy), vjp(dy)[0], rtol=1e-12, atol=1e-14)


def test_halving_averages_four_pixels(x):
    got = halve(x)
    assert got.shape == (4, 3, 3, 3)
    for row, column in ((0, 0), (1, 2)):
        window = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert np.allclose(got[:, row, column], window.mean(axis=(1, 2)), rtol=1e-12)
