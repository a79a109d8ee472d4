"""Proxies of the input Jacobian and of gradients on their way back to it."""

import jax
import jax.numpy as jnp

from epe_nas_jax.proxies.epe import correlation_matrix

_EIGENVALUE_OFFSET = 1e-5


def jacob_cov_score(jacobian: jax.Array) -> jax.Array:
    """How far the input Jacobians of all images are from being alike (Mellor et al. 2020, v1).

    With v the eigenvalues of the correlation matrix and k = 1e-5: -sum(log(v + k) + 1 / (v + k)).

    Args:
      jacobian: input Jacobian, `[N, D]`.

    Returns:
      The score, a scalar. NaN if the Jacobian of an image has no variance.
    """
    rho = correlation_matrix(jacobian)
    defined = jnp.isfinite(rho).all()
    # Rounding may leave a zero eigenvalue slightly negative.
    v = jnp.maximum(jnp.linalg.eigvalsh(jnp.where(defined, rho, 0)), 0) + _EIGENVALUE_OFFSET
    return jnp.where(defined, -jnp.sum(jnp.log(v) + 1 / v), jnp.nan)


def grad_entropy_score(entropy: jax.Array, jacobian: jax.Array) -> jax.Array:
    """In how many directions the gradients of the cells' outputs vary.

    The sum of `gradient_probes.channel_entropy` over all cells but those of the last stage: what
    AZ-NAS (Lee & Ham 2024) measures of features, here of gradients. It is low where the channels'
    gradients have become alike.

    Args:
      entropy: that sum, as the probes of that name measure it, a scalar.
      jacobian: input Jacobian, `[N, D]`.

    Returns:
      The score, a scalar; NaN if the input Jacobian is zero.
    """
    return jnp.where(jnp.any(jacobian != 0), entropy, jnp.nan)


def grad_decay_score(size: jax.Array, jacobian: jax.Array) -> jax.Array:
    """How much smaller a gradient is at the images than at the last cell's output.

    log(G / J), with G and J the sums of squares of the two gradients; a simple form of AZ-NAS's
    trainability. Low where gradients grow on their way back: through convolutions that nothing goes
    around, and where many paths without one add up.

    Args:
      size: G, a scalar.
      jacobian: input Jacobian, `[N, D]`.

    Returns:
      The score, a scalar; NaN if one of them is zero.
    """
    # Jacobians may be tiny or huge: scaled before squaring, they are not lost.
    scale = jnp.max(jnp.abs(jacobian))
    log_sum = jnp.log(jnp.sum(jnp.square(jacobian / scale))) + 2 * jnp.log(scale)
    decay = jnp.log(size) - log_sum
    return jnp.where(jnp.isfinite(decay), decay, jnp.nan)
