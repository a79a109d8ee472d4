"""What a backward pass tells on its way: numbers about the gradient of a layer's output.

A probe leaves a layer's output as it is. It takes a scalar on which nothing depends, and to
differentiate by that scalar gives the number instead of a derivative. So nothing is kept for it,
and what probes of one scalar tell is added up. A network takes its scalars from a collection:

    variables = {**variables, "probes": probes.scalars(dtype)}

Shape legend: N images, H height and width, C channels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

COLLECTION = "probes"
ENTROPY, SIZE = "entropy", "size"


def scalars(dtype: jnp.dtype) -> dict[str, jax.Array]:
    """The collection to differentiate by."""
    return {name: jnp.zeros((), dtype) for name in (ENTROPY, SIZE)}


def probe(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
    """An output `[N, H, H, C]` as it is, probed if the variables of the module have the scalar."""
    if not module.has_variable(COLLECTION, name):
        return x
    scalar: jax.Array = module.get_variable(COLLECTION, name)
    return _probe_of(channel_entropy if name == ENTROPY else _sum_of_squares)(x, scalar)


def channel_entropy(gradient: jax.Array) -> jax.Array:
    """In how many directions of the channels a gradient varies, as an entropy.

    With p the eigenvalues of the covariance of the channels over images and pixels, as shares of
    their sum: -sum(p log p), between 0 and log C. AZ-NAS (Lee & Ham 2024) calls it expressivity and
    computes it of the features.

    Args:
      gradient: `[N, H, H, C]`.

    Returns:
      A scalar; NaN if nothing varies.
    """
    rows = gradient.reshape(-1, gradient.shape[-1])
    mean = jnp.mean(rows, axis=0)
    # One pass: gradients have means near 0, so that nothing cancels.
    covariance = rows.T @ rows / len(rows) - mean[:, None] * mean[None, :]
    varies = jnp.trace(covariance) > 0
    v = jnp.maximum(jnp.linalg.eigvalsh(jnp.where(varies, covariance, 0)), 0)
    shares = v / jnp.sum(v)
    entropy = -jnp.sum(jax.scipy.special.xlogy(shares, shares))
    return jnp.where(varies, entropy, jnp.nan)


def _sum_of_squares(gradient: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(gradient))


def _probe_of(
    tell: Callable[[jax.Array], jax.Array],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """From a number of the gradient to the probe that tells it."""

    def forward(x: jax.Array, scalar: jax.Array) -> tuple[jax.Array, None]:
        del scalar
        return x, None

    def backward(_: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        return gradient, tell(gradient)

    probed = jax.custom_vjp(lambda x, _: x)
    probed.defvjp(forward, backward)
    return probed
