"""The NASWOT score: how differently the ReLUs of a network respond to different images."""

import jax
import jax.numpy as jnp


def nwot_score(agreement: jax.Array, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """How differently ReLUs respond to different images (Mellor et al. 2021, section 3).

    It is the log-determinant of the matrix whose entry (i, j) counts the ReLU units that are active
    for both images i and j, or for neither.

    Args:
      agreement: this matrix, int32 `[N, N]`.
      dtype: dtype to compute in.

    Returns:
      The score, a scalar; -inf if two images activate the same units.

    Examples:
      >>> from epe_nas_jax.proxies.nwot import nwot_score
      >>> agreement = jnp.array([[4, 1], [1, 4]])  # two images that agree in 1 of 4 units
      >>> round(float(nwot_score(agreement)), 2)  # log 15
      2.71
    """
    return jnp.linalg.slogdet(agreement.astype(dtype))[1]
