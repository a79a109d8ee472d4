"""Probes: they measure the gradient of a layer's output during the backward pass.

A probe returns a layer's output unchanged. It takes a scalar on which nothing depends; the
derivative with respect to this scalar is defined as the measurement. So nothing is kept for it, and
the measurements of probes that share a scalar are added up. A network takes its scalars from a
collection:

    variables = {**variables, gradient_probes.COLLECTION: gradient_probes.scalars(dtype)}

With `mutable=[gradient_probes.PRESENT]`, `apply` also returns which probes the network has.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from epe_nas_jax.spaces.layers.batch_norm import at_least_float32

COLLECTION = "probes"
PRESENT = "probes_present"
ENTROPY, SIZE = "entropy", "size"


def scalars(dtype: jnp.dtype) -> dict[str, jax.Array]:
    """The collection of the probes' scalars, one per name of `PROBES`."""
    return {name: jnp.zeros((), dtype) for name in PROBES}


def probe(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
    """Returns x unchanged, with a probe of its gradient if the module's variables have the scalar.

    Args:
      module: the module whose variables may hold the collection.
      name: one of `PROBES`.
      x: a layer's output, `[N, H, W, C]`.
    """
    if not module.has_variable(COLLECTION, name):
        return x
    scalar: jax.Array = module.get_variable(COLLECTION, name)
    module.sow(PRESENT, name, True)
    return with_probe(PROBES[name])(x, scalar)


def channel_entropy(gradient: jax.Array) -> jax.Array:
    """The entropy of the directions in which a gradient varies over the channels.

    With p the eigenvalues of the covariance of the channels over images and pixels, as shares of
    their sum: -sum(p log p), between 0 and log C. AZ-NAS (Lee & Ham 2024) calls it expressivity and
    computes it of the features.

    Args:
      gradient: `[N, H, W, C]`.

    Returns:
      A scalar; 0 if the gradient is constant, as after a cell whose output nothing reads.
    """
    rows = gradient.reshape(-1, gradient.shape[-1])
    rows = rows.astype(at_least_float32(rows.dtype))
    mean = jnp.mean(rows, axis=0)
    # In one pass: gradients have means near 0, so that no digits cancel.
    covariance = rows.T @ rows / len(rows) - mean[:, None] * mean[None, :]
    varies = jnp.trace(covariance) > 0
    v = jnp.maximum(jnp.linalg.eigvalsh(jnp.where(varies, covariance, 0)), 0)
    shares = v / jnp.where(varies, jnp.sum(v), 1)
    return -jnp.sum(jax.scipy.special.xlogy(shares, shares))


def sum_of_squares(gradient: jax.Array) -> jax.Array:
    """The squared Euclidean norm of a gradient `[N, H, W, C]`: a scalar."""
    return jnp.sum(jnp.square(gradient.astype(at_least_float32(gradient.dtype))))


# The measurements of a gradient, by name.
PROBES: dict[str, Callable[[jax.Array], jax.Array]] = {
    ENTROPY: channel_entropy,
    SIZE: sum_of_squares,
}


def with_probe(
    measure: Callable[[jax.Array], jax.Array],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The identity function of x whose derivative by a scalar is `measure` of x's gradient."""

    def forward(x: jax.Array, scalar: jax.Array) -> tuple[jax.Array, None]:
        del scalar
        return x, None

    def backward(_: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        return gradient, measure(gradient)

    probed = jax.custom_vjp(lambda x, _: x)
    probed.defvjp(forward, backward)
    return probed
