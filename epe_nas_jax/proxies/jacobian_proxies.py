"""Proxies made of the input Jacobian and of the gradients of the cells' outputs."""

import jax
import jax.numpy as jnp

from epe_nas_jax.proxies.epe import correlation_matrix

_EIGENVALUE_OFFSET = 1e-5


def jacob_cov_score(jacobian: jax.Array) -> jax.Array:
    """How different the input Jacobians of the images are (Mellor et al. 2020, version 1).

    With v the eigenvalues of the correlation matrix and k = 1e-5: -sum(log(v + k) + 1 / (v + k)).

    Args:
      jacobian: the input Jacobian, `[N, D]`.

    Returns:
      The score, a scalar. NaN if the Jacobian of an image has no variance.

    Examples:
      >>> from epe_nas_jax.proxies.jacobian_proxies import jacob_cov_score
      >>> different = np.eye(4)
      >>> similar = np.arange(4) + 0.1 * different
      >>> bool(jacob_cov_score(different) > jacob_cov_score(similar))
      True
    """
    rho = correlation_matrix(jacobian)
    defined = jnp.isfinite(rho).all()
    # Rounding may leave a zero eigenvalue slightly negative.
    v = jnp.maximum(jnp.linalg.eigvalsh(jnp.where(defined, rho, 0)), 0) + _EIGENVALUE_OFFSET
    return jnp.where(defined, -jnp.sum(jnp.log(v) + 1 / v), jnp.nan)


def grad_entropy_score(entropy: jax.Array, jacobian: jax.Array) -> jax.Array:
    """In how many directions the gradients of the cells' outputs vary.

    The sum of `gradient_probes.channel_entropy` over all cells except those of the last stage.
    AZ-NAS (Lee & Ham 2024) measures this entropy of features; here it is that of gradients. It is
    low where the gradients of the channels have become similar.

    Args:
      entropy: this sum, as the probes named `"entropy"` measure it, a scalar.
      jacobian: the input Jacobian, `[N, D]`.

    Returns:
      The score, a scalar; NaN if the input Jacobian is zero.

    Examples:
      >>> from epe_nas_jax.proxies.jacobian_proxies import grad_entropy_score
      >>> float(grad_entropy_score(jnp.array(2.5), jacobian=jnp.ones((8, 192))))
      2.5
      >>> float(grad_entropy_score(jnp.array(2.5), jacobian=jnp.zeros((8, 192))))
      nan
    """
    return jnp.where(jnp.any(jacobian != 0), entropy, jnp.nan)


def grad_decay_score(size: jax.Array, jacobian: jax.Array) -> jax.Array:
    """How much smaller a gradient is at the images than at the last cell's output.

    log(G / J), with G and J the sums of squares of the gradients at the last cell's output and at
    the images; a simple form of the trainability of AZ-NAS (Lee & Ham 2024). It is low where
    gradients grow in the backward pass: through convolutions without a parallel path, and where
    many paths without convolutions add up.

    Args:
      size: G, a scalar.
      jacobian: the input Jacobian, `[N, D]`.

    Returns:
      The score, a scalar; NaN if G or J is zero.

    Examples:
      >>> from epe_nas_jax.proxies.jacobian_proxies import grad_decay_score
      >>> round(float(grad_decay_score(jnp.array(12.0), jacobian=jnp.ones((2, 3)))), 2)  # log 2
      0.69
    """
    # Jacobians may be tiny or huge: scaled before squaring, they neither underflow nor overflow.
    scale = jnp.max(jnp.abs(jacobian))
    log_sum = jnp.log(jnp.sum(jnp.square(jacobian / scale))) + 2 * jnp.log(scale)
    decay = jnp.log(size) - log_sum
    return jnp.where(jnp.isfinite(decay), decay, jnp.nan)
