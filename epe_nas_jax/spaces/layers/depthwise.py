"""The depthwise convolution, computed as sums of shifted images.

On CPUs XLA has no fast depthwise convolution: its grouped convolution takes 20 to 100 times as
long.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def convolve_depthwise(
    x: jax.Array, kernel: jax.Array, stride: int = 1, dilation: int = 1
) -> jax.Array:
    """Convolves every channel of `[N, H, W, C]` with its own kernel, one of `[h, w, 1, C]`.

    Args:
      x: the images; H and W are even with a stride of 2.
      kernel: h and w are equal and odd.
      stride: 1 or 2.
      dilation: how many pixels apart the kernel's taps lie.

    Returns:
      `[N, H/stride, W/stride, C]`, with zero padding.
    """
    if dilation % stride == 0:
        # Every tap reads only pixels that the stride does not skip.
        return _convolve(x[:, ::stride, ::stride], kernel, 1, dilation // stride)
    return _convolve(x, kernel, stride, dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    return _sum_of_shifted(_pad(x, kernel, dilation), kernel, x.shape, stride, dilation)


def _convolve_fwd(
    x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, stride, dilation), (x, kernel)


def _convolve_bwd(
    stride: int, dilation: int, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    spread = _pad(dy, kernel, dilation, zeros_between=stride - 1)
    dx = _sum_of_shifted(spread, kernel[::-1, ::-1], x.shape, 1, dilation)
    padded = _pad(x, kernel, dilation)
    num_images, height, width, channels = x.shape

    def tap_cotangent(place: tuple[jax.Array, jax.Array]) -> jax.Array:
        start = (0, *place, 0)
        seen = lax.dynamic_slice(padded, start, (num_images, height, width, channels))
        return jnp.sum(seen[:, ::stride, ::stride] * dy, axis=(0, 1, 2))

    # One tap after another: all sums in one program would take long to compile.
    places = dilation * jnp.indices(kernel.shape[:2]).reshape(2, -1)
    return dx, lax.map(tap_cotangent, (places[0], places[1])).reshape(kernel.shape)


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


def _pad(x: jax.Array, kernel: jax.Array, dilation: int, zeros_between: int = 0) -> jax.Array:
    """Pads images with as many zeros as a shift can reach, and puts zeros between their pixels."""
    around = dilation * (kernel.shape[0] // 2)
    edges = (around, around + zeros_between, zeros_between)
    padded = lax.pad(x, x.dtype.type(0), ((0, 0, 0), edges, edges, (0, 0, 0)))
    # Padded in memory once; else the compiler pads again for each of the shifted images.
    return lax.optimization_barrier(padded)  # type: ignore[no-untyped-call]


def _sum_of_shifted(
    padded: jax.Array, kernel: jax.Array, shape: tuple[int, ...], stride: int, dilation: int
) -> jax.Array:
    """The sum over taps of the image shifted by the tap, times the tap's weights."""
    terms = [
        _shifted(padded, i, j, shape, stride, dilation) * kernel[i, j][None, None]
        for i, j in _taps(kernel, shape, dilation)
    ]
    return sum(terms[1:], start=terms[0])


def _shifted(
    padded: jax.Array, i: int, j: int, shape: tuple[int, ...], stride: int, dilation: int
) -> jax.Array:
    """The pixels that a tap reads, of padded images whose shape before padding is given."""
    _, height, width, _ = shape
    i, j = i * dilation, j * dilation
    return padded[:, i : i + height : stride, j : j + width : stride]


def _taps(kernel: jax.Array, shape: tuple[int, ...], dilation: int) -> list[tuple[int, int]]:
    """The taps of a kernel that read more than padding, for images of a given shape."""
    _, height, width, _ = shape
    size = kernel.shape[0]

    def near(extent: int) -> list[int]:
        return [i for i in range(size) if abs(i - size // 2) * dilation < extent]

    return [(i, j) for i in near(height) for j in near(width)]
