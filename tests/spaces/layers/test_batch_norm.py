import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.spaces.layers.batch_norm import (
    no_deviation,
    normalise,
    normalise_cotangent,
    without_norm,
)

CHANNELS = 3
X = jax.random.normal(jax.random.key(0), (4, 6, 6, CHANNELS), jnp.float64)


def test_batch_norm_has_unit_moments_before_scale_and_shift():
    y, _ = normalise(3 * X + 5, jnp.full(CHANNELS, 2.0), jnp.full(CHANNELS, 7.0))
    assert np.allclose(y.mean((0, 1, 2)), 7, rtol=1e-12)
    # The variance is divided by itself plus epsilon, a relative 1e-5 / 9.
    assert np.allclose(y.std((0, 1, 2)), 2, rtol=1e-6)


def test_inverse_deviation_is_that_of_the_mini_batch_or_of_given_moments():
    scale, bias = jnp.full(CHANNELS, 2.0), jnp.full(CHANNELS, 7.0)
    _, inverse_std = normalise(X, scale, bias)
    assert np.allclose(inverse_std, 1 / np.sqrt(np.var(X, (0, 1, 2)) + 1e-5), rtol=1e-12)
    y, inverse_std = normalise(X, scale, bias, (jnp.full(CHANNELS, 0.5), jnp.full(CHANNELS, 4.0)))
    assert np.allclose(inverse_std, 1 / np.sqrt(4 + 1e-5), rtol=1e-12)
    assert np.allclose(y, 2 * (X - 0.5) / np.sqrt(4 + 1e-5) + 7, rtol=1e-12)


def test_without_norm_leaves_values_as_they_are():
    y, deviation = without_norm(X, jnp.full(CHANNELS, 2.0), jnp.full(CHANNELS, 7.0))
    assert np.array_equal(y, X)
    assert np.array_equal(deviation, no_deviation(X))
    assert np.array_equal(deviation, np.zeros(CHANNELS))


def test_cotangent_from_the_output_is_autodiffs():
    scale, bias = jnp.array([2.0, -0.5, 0.0]), jnp.array([7.0, 0.0, 1.0])
    y, inverse_std = normalise(X, scale, bias)
    dy = jax.random.normal(jax.random.key(1), X.shape, jnp.float64)
    _, vjp = jax.vjp(lambda x: normalise(x, scale, bias)[0], X)
    got = normalise_cotangent(y, scale, bias, inverse_std, dy)
    assert np.allclose(got, vjp(dy)[0], rtol=1e-9, atol=1e-12)
