import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from epe_nas_jax.spaces.layers import gradient_probes
from epe_nas_jax.spaces.layers.gradient_probes import (
    ENTROPY,
    PROBES,
    SIZE,
    channel_entropy,
    sum_of_squares,
)

RNG = np.random.default_rng(0)


class Probed(nn.Module):
    """A function of x, with the probes of some names at x and, twice as large, at 2 x."""

    names: tuple[str, ...]

    @nn.compact
    def __call__(self, x):
        """The sum of sin(2 x)."""
        for name in self.names:
            x = gradient_probes.probe(self, name, x)
        x = 2 * x
        for name in self.names:
            x = gradient_probes.probe(self, name, x)
        return jnp.sum(jnp.sin(x))


def test_entropy_of_channels_that_vary_alike_apart_or_not_at_all():
    apart = np.random.default_rng(0).normal(size=(8, 40, 40, 4))
    # Eigenvalues of 12,800 samples are off by about 1 %, which an entropy feels in the square.
    assert np.allclose(channel_entropy(jnp.asarray(apart)), np.log(4), atol=1e-3)
    alike = apart[..., :1] * np.array([1.0, -2.0, 3.0, 0.5])
    assert np.allclose(channel_entropy(jnp.asarray(alike)), 0, atol=1e-12)
    assert channel_entropy(jnp.full((2, 3, 3, 4), 5.0)) == 0


def test_channel_entropy_is_numpys():
    gradient = RNG.normal(size=(5, 4, 4, 3)) @ RNG.normal(size=(3, 3))
    # The mean is subtracted in one pass, which loses a few digits.
    assert np.allclose(channel_entropy(gradient), oracles.channel_entropy(gradient), rtol=1e-10)


def test_sum_of_squares_is_numpys():
    gradient = RNG.normal(size=(5, 4, 4, 3))
    assert np.allclose(sum_of_squares(gradient), np.linalg.norm(gradient) ** 2, rtol=1e-12)


@pytest.mark.parametrize("names", [(), (SIZE,), (ENTROPY, SIZE)])
def test_probes_change_no_output_and_add_up_what_they_measure(names):
    x = RNG.normal(size=(5, 4, 4, 3))
    measure = {ENTROPY: oracles.channel_entropy, SIZE: lambda g: np.sum(g**2)}

    def run(scalars, x):
        return Probed(names).apply({gradient_probes.COLLECTION: scalars}, x)

    output, (measured, gradient) = jax.value_and_grad(run, (0, 1))(
        gradient_probes.scalars(jnp.float64), x
    )
    assert np.allclose(output, np.sum(np.sin(2 * x)), rtol=1e-12)
    assert np.allclose(gradient, 2 * np.cos(2 * x), rtol=1e-12)
    assert set(measured) == set(PROBES) == set(measure)
    for name, number in measured.items():
        both = measure[name](np.cos(2 * x)) + measure[name](2 * np.cos(2 * x))
        assert np.allclose(number, both if name in names else 0, rtol=1e-10)


def test_without_the_scalars_there_are_no_probes():
    x = RNG.normal(size=(5, 4, 4, 3))
    output, present = Probed((SIZE,)).apply({}, x, mutable=[gradient_probes.PRESENT])
    assert np.allclose(output, np.sum(np.sin(2 * x)), rtol=1e-12)
    assert not present
    scalars = {gradient_probes.COLLECTION: gradient_probes.scalars(jnp.float64)}
    _, present = Probed((SIZE,)).apply(scalars, x, mutable=[gradient_probes.PRESENT])
    assert set(present[gradient_probes.PRESENT]) == {SIZE}
