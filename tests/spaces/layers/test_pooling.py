import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.spaces.layers.pooling import (
    avg_pool_3x3,
    avg_pool_3x3_cotangent,
    halve,
    max_pool_3x3,
)


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


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [2, 4, 8])
def test_the_maximum_and_its_gradient_are_pytorchs_also_of_equal_values(side, stride):
    torch = pytest.importorskip("torch")
    # Small integers: most windows have several largest values.
    values = np.random.default_rng(0).integers(-1, 2, (3, side, side, 5)).astype(float)
    y, vjp = jax.vjp(lambda x: max_pool_3x3(x, stride), jnp.asarray(values))
    dy = np.random.default_rng(1).normal(size=y.shape)
    x = torch.tensor(values.transpose(0, 3, 1, 2), requires_grad=True)
    expected = torch.nn.functional.max_pool2d(x, 3, stride, 1)
    expected.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
    assert np.array_equal(y, expected.detach().numpy().transpose(0, 2, 3, 1))
    gradient = x.grad.numpy().transpose(0, 2, 3, 1)
    assert np.allclose(vjp(jnp.asarray(dy))[0], gradient, rtol=1e-13, atol=1e-13)


def test_the_gradient_of_the_maximum_can_be_differentiated(x):
    def loss(x):
        return jnp.sum(max_pool_3x3(x, 2) ** 3)

    gradient = jax.grad(lambda x: jnp.sum(jax.grad(loss)(x) ** 2))(x)
    step = 1e-6 * jnp.cos(7 * x)
    squares = [jnp.sum(jax.grad(loss)(x + s) ** 2) for s in (step, -step)]
    # Differences of 1e-6 see 9 digits.
    assert np.isclose((squares[0] - squares[1]) / 2, jnp.sum(gradient * step), rtol=1e-6)
