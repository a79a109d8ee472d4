"""The 2x2 max pool between two stacks; the gradient goes to the first maximum of a window.

It is the first in row-major order, as in PyTorch. After ReLUs many windows have several maxima, all
of them zero. The maxima are computed again for the gradient, as in `layers.pooling`.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp

_CORNERS = tuple((i, j) for i in range(2) for j in range(2))


@jax.custom_vjp
def halve_by_maximum(x: jax.Array) -> jax.Array:
    """The 2x2 maximum at stride 2: `[N, H, H, C]` to `[N, H/2, H/2, C]`."""
    return jnp.max(_in_quarters(x), axis=(2, 4))


def _in_quarters(x: jax.Array) -> jax.Array:
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels)


def _first_maximum(arrays: Iterable[jax.Array]) -> jax.Array:
    """For each entry, the index of the first array that has the maximum, int8."""
    first, *others = arrays
    largest, chosen = first, jnp.zeros(first.shape, jnp.int8)
    for number, array in enumerate(others, start=1):
        chosen = jnp.where(array > largest, jnp.int8(number), chosen)
        largest = jnp.maximum(array, largest)
    return chosen


def _halve_by_maximum_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return halve_by_maximum(x), x


def _halve_by_maximum_bwd(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    quarters = _in_quarters(x)
    chosen = _first_maximum(quarters[:, :, i, :, j] for i, j in _CORNERS)
    rows = [
        jnp.stack([jnp.where(chosen == 2 * i + j, dy, 0) for j in range(2)], axis=3)
        for i in range(2)
    ]
    return (jnp.stack(rows, axis=2).reshape(x.shape),)


halve_by_maximum.defvjp(_halve_by_maximum_fwd, _halve_by_maximum_bwd)
