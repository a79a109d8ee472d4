"""NASWOT: how differently a network's ReLUs open for different images."""

import jax
import jax.numpy as jnp


def nwot_score(agreement: jax.Array, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """How differently a network's ReLUs open for different images (Mellor et al. 2021, section 3).

    The log-determinant of the kernel whose entry (i, j) counts the ReLU units that are both open or
    both closed for images i and j.

    Args:
      agreement: that kernel, int32 `[N, N]`.
      dtype: dtype to compute in.

    Returns:
      The score, a scalar; -inf if two images open the same units.
    """
    return jnp.linalg.slogdet(agreement.astype(dtype))[1]
