"""Max pools whose gradient goes to one maximum of a window, the first one in row-major order.

So do PyTorch's. Behind ReLUs many windows have several maxima, all of them zero. The gradients are
written as shifted images: on CPUs seven times as fast as XLA's own, a loop over single values. They
find the maxima anew, since the compiler may round an input that it computes twice in two ways, and
none of it be equal to the maximum then.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax

_SHIFTS = tuple((i, j) for i in range(3) for j in range(3))
_CORNERS = tuple((i, j) for i in range(2) for j in range(2))


@jax.custom_vjp
def max_pool_3x3(x: jax.Array) -> jax.Array:
    """3x3 maximum at stride 1 over `[N, H, H, C]`; padding is never the maximum."""
    # An axis at a time: faster on CPUs than one window.
    for window in ((1, 3, 1, 1), (1, 1, 3, 1)):
        x = lax.reduce_window(x, -jnp.inf, lax.max, window, (1, 1, 1, 1), "SAME")
    return x


def max_pool_3x3_cotangent(x: jax.Array, dy: jax.Array) -> jax.Array:
    """The input's cotangent of `max_pool_3x3`, from the input and the output's cotangent."""
    around, side = ((0, 0), (1, 1), (1, 1), (0, 0)), x.shape[1]
    padded = jnp.pad(x, around, constant_values=-jnp.inf)
    chosen = _first_maximum(padded[:, i : i + side, j : j + side] for i, j in _SHIFTS)
    chosen, dy = jnp.pad(chosen, around), jnp.pad(dy, around)
    dx = jnp.zeros_like(x)
    for number, (i, j) in enumerate(_SHIFTS):
        window = (slice(None), slice(2 - i, 2 - i + side), slice(2 - j, 2 - j + side))
        dx = dx + jnp.where(chosen[window] == number, dy[window], 0)
    return dx


def _first_maximum(arrays: Iterable[jax.Array]) -> jax.Array:
    """Which of some arrays has the maximum, int8, entry by entry; the first one of several."""
    first, *others = arrays
    largest, chosen = first, jnp.zeros(first.shape, jnp.int8)
    for number, array in enumerate(others, start=1):
        chosen = jnp.where(array > largest, jnp.int8(number), chosen)
        largest = jnp.maximum(array, largest)
    return chosen


def _max_pool_3x3_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return max_pool_3x3(x), x


def _max_pool_3x3_bwd(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    return (max_pool_3x3_cotangent(x, dy),)


max_pool_3x3.defvjp(_max_pool_3x3_fwd, _max_pool_3x3_bwd)


@jax.custom_vjp
def halve_by_maximum(x: jax.Array) -> jax.Array:
    """2x2 maximum at stride 2: `[N, H, H, C]` to `[N, H/2, H/2, C]`."""
    return jnp.max(_in_quarters(x), axis=(2, 4))


def _in_quarters(x: jax.Array) -> jax.Array:
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels)


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
