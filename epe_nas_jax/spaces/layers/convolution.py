"""The convolution and its derivatives, in forms for which XLA is fast on CPUs.

Each form has a fast implementation in the compiler, also inside loops, where the convolutions that
autodiff makes can take a hundred times as long.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# By parity of a pixel: which kernel tap (last axis) leads to the output pixel above and below.
_TAPS_OF_PARITY = (((0, 1, 0), (0, 0, 0)), ((0, 0, 1), (1, 0, 0)))
# Most channels for which two pixels at a time are faster on CPUs.
_FEW_CHANNELS = 16
# Largest side for which `_cotangent_by_taps` is faster on CPUs, for all channels used here.
_FEW_PIXELS = 4
# The fastest of 1 to 16 for the network's three sizes, on two CPU cores.
_IMAGES_AT_ONCE = 8


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolves `[N, H, W, C]` with `[h, w, C, O]`: `[N, H/stride, W/stride, O]`, zero-padded.

    With a stride of 2, H and W must be even and h and w 1 or 3, for the derivative with respect to
    the input. The kernel is rounded to the dtype of x, which is the result's dtype too.
    """
    return _convolve_by_rule(x, kernel.astype(x.dtype), stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_by_rule(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    height, width = kernel.shape[:2]
    if height == width == stride == 1:
        return x @ kernel[0, 0]
    if height == width == 3 and max(x.shape[1:3]) <= 2:
        if stride == 1:
            return _convolve_all_pixels(x, kernel)
        # The only window that begins inside the image contains the whole image.
        num_images = x.shape[0]
        x = x.reshape(num_images, -1)
        return (x @ kernel[1:, 1:].reshape(x.shape[1], -1)).reshape(num_images, 1, 1, -1)
    few_channels = max(kernel.shape[2:]) <= _FEW_CHANNELS
    if few_channels and stride == 1 and width == 3 and x.shape[2] % 2 == 0:
        return lax.platform_dependent(x, kernel, cpu=_convolve_pixel_pairs, default=_convolve)
    return _convolve(x, kernel, stride)


def _convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    height, width = kernel.shape[:2]
    padding = ((height // 2, height // 2), (width // 2, width // 2))
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT)


def _convolve_all_pixels(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves 2x2 pixels or fewer with a 3x3 kernel, which reads all pixels: a matrix product.

    XLA swaps an image and its kernel if the image is smaller, and has no fast convolution for that:
    on CPUs it takes twenty times as long. A product is fast on any device.
    """
    num_images, height, width, _ = x.shape
    pixels = [(i, j) for i in range(height) for j in range(width)]
    middle = [size // 2 for size in kernel.shape[:2]]
    rows = [
        jnp.concatenate([kernel[middle[0] + i - m, middle[1] + j - n] for m, n in pixels], axis=1)
        for i, j in pixels
    ]
    return (x.reshape(num_images, -1) @ jnp.concatenate(rows)).reshape(
        num_images, height, width, -1
    )


def _convolve_pixel_pairs(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves at stride 1 with a kernel 3 wide, two neighbouring pixels at a time.

    This is a third more work, but has twice the output channels: XLA's fast convolution on CPUs
    needs more than 16.
    """
    height, width, channels_in, channels_out = kernel.shape
    pair = [jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in range(2)]
    kernel = jnp.stack(pair, axis=3).reshape(height, width + 1, channels_in, 2 * channels_out)
    padding = ((height // 2, height // 2), (1, 1))
    y = lax.conv_general_dilated(x, kernel, (1, 2), padding, dimension_numbers=_LAYOUT)
    return y.reshape(*x.shape[:3], channels_out)


def _convolve_fwd(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, Any]:
    return _convolve_by_rule(x, kernel, stride), (x, kernel)


def _convolve_bwd(stride: int, residuals: Any, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    # Only where devices exchange nothing, as in scoring. In data-parallel training devices add up
    # the gradients that these loops compute, where XLA:CPU can deadlock.
    exchange_nothing = bool(jax.sharding.get_abstract_mesh().manual_axes)
    if exchange_nothing and kernel.shape[:2] != (1, 1):
        kernel_cotangent = lax.platform_dependent(
            x,
            kernel,
            dy,
            cpu=functools.partial(_kernel_cotangent_of_patches, stride),
            default=functools.partial(_kernel_cotangent, stride),
        )
    else:
        kernel_cotangent = _kernel_cotangent(stride, x, kernel, dy)
    return input_cotangent(kernel, dy, stride), kernel_cotangent


_convolve_by_rule.defvjp(_convolve_fwd, _convolve_bwd)


def _kernel_cotangent(stride: int, x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
    # Two pixels at a time would take three times as long here on CPUs.
    convolve_plainly = _convolve_by_rule.fun if kernel.shape[:2] == (1, 1) else _convolve
    _, kernel_vjp = jax.vjp(lambda k: convolve_plainly(x, k, stride), kernel)
    return kernel_vjp(dy)[0]


def _kernel_cotangent_of_patches(
    stride: int, x: jax.Array, kernel: jax.Array, dy: jax.Array
) -> jax.Array:
    """The kernel's cotangent as products of input patches, of a few images at a time.

    On CPUs this is over a hundred times as fast inside loops, where XLA has no fast convolution for
    it (docs/performance.md).
    """
    height, width, _, channels_out = kernel.shape
    padding = ((0, 0), (height // 2, height // 2), (width // 2, width // 2), (0, 0))
    num_images = math.gcd(len(x), _IMAGES_AT_ONCE)

    def add(total: jax.Array, images: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, dy = jnp.pad(images[0], padding), images[1]
        # The extent of the first pixels of all windows.
        rows, columns = (stride * (size - 1) + 1 for size in dy.shape[1:3])
        pixels = [
            x[:, i : i + rows : stride, j : j + columns : stride]
            for i in range(height)
            for j in range(width)
        ]
        patches = jnp.concatenate(pixels, axis=-1).reshape(-1, len(total))
        return total + patches.T @ dy.reshape(-1, channels_out), None

    def in_blocks(array: jax.Array) -> jax.Array:
        return array.reshape(-1, num_images, *array.shape[1:])

    nothing = jnp.zeros((kernel[..., 0].size, channels_out), kernel.dtype)
    return lax.scan(add, nothing, (in_blocks(x), in_blocks(dy)))[0].reshape(kernel.shape)


def input_cotangent(kernel: jax.Array, dy: jax.Array, stride: int = 1) -> jax.Array:
    """The cotangent of the input of `convolve`: a convolution with the flipped kernel.

    Autodiff would leave the kernel in a layout for which XLA has no fast convolution on CPUs.
    """
    kernel = kernel.astype(dy.dtype)
    if stride == 1:
        return convolve(dy, kernel[::-1, ::-1].swapaxes(2, 3))
    if max(dy.shape[1:3]) <= _FEW_PIXELS:
        return lax.platform_dependent(
            kernel, dy, cpu=_cotangent_by_taps, default=_cotangent_by_parity
        )
    return _cotangent_by_parity(kernel, dy)


def _cotangent_by_parity(kernel: jax.Array, dy: jax.Array) -> jax.Array:
    """The input's cotangent at stride 2, from parities: 2x2 kinds of pixels.

    An even pixel was read by the middle tap, an odd one by the two others. The four kinds of pixel
    are 4C channels of one 2x2 convolution, which needs no zeros between the pixels.
    """
    taps = jnp.asarray(_TAPS_OF_PARITY, kernel.dtype)
    kernel = jnp.einsum("atu,bsv,uvcd->tsdabc", taps, taps, kernel, precision=lax.Precision.HIGHEST)
    n, height, width, _ = dy.shape
    channels = kernel.shape[-1]
    kernel = kernel.reshape(*kernel.shape[:3], 4 * channels)
    padding = ((0, 1), (0, 1))
    dx = lax.conv_general_dilated(dy, kernel, (1, 1), padding, dimension_numbers=_LAYOUT)
    dx = dx.reshape(n, height, width, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return dx.reshape(n, 2 * height, 2 * width, channels)


def _cotangent_by_taps(kernel: jax.Array, dy: jax.Array) -> jax.Array:
    """The input's cotangent of a 3x3 kernel at stride 2: one product for all taps, then sums.

    For few pixels this is faster on CPUs than making the kernel of another convolution.
    """
    parts = lax.dot_general(dy, kernel, (((3,), (3,)), ((), ())))
    # `[N, H, W, 3, 3, C]`; each step turns an axis and its taps into twice as many pixels.
    return _add_taps(_add_taps(parts, 1, 3), 2, 3)


def _add_taps(parts: jax.Array, axis: int, tap_axis: int) -> jax.Array:
    """Adds up the three taps of an axis at the pixels that they read at stride 2."""
    before, middle, after = jnp.unstack(parts, axis=tap_axis)
    padding = [(0, int(i == axis)) for i in range(before.ndim)]
    before_next = lax.slice_in_dim(jnp.pad(before, padding), 1, None, axis=axis)
    pixels = jnp.stack([middle, after + before_next], axis=axis + 1)
    shape = pixels.shape
    return pixels.reshape(*shape[:axis], 2 * shape[axis], *shape[axis + 2 :])
