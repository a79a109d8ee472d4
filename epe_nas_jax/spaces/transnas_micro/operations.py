"""Candidate operations of a TransNAS-Bench-101 micro cell, in one program for different cells.

An edge keeps its source's size, or halves the side and doubles the channels. It halves if it leaves
the input of the first cell of a module that halves.

`apply_operation` runs one edge. With a Python int only that operation is built and everything can
be differentiated. With a traced index the operation is chosen on the device, by `grouped_switch`
under `jax.vmap`. Then the input is differentiated by hand-written rules, which keep only the edge's
input, its output and the batch deviation; where weights are differentiated too, the backward pass
runs the operation again.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from epe_nas_jax.spaces.layers import convolution
from epe_nas_jax.spaces.layers.batch_norm import no_deviation, normalise, normalise_cotangent
from epe_nas_jax.spaces.layers.conv_bn import ConvBN, relu_conv_bn, relu_conv_bn_cotangent
from epe_nas_jax.spaces.layers.grouped_switch import switch_by_rules
from epe_nas_jax.spaces.transnas_micro.cost import halved


class EdgeWeights(NamedTuple):
    """Weights of the candidate operations of one edge; None for an operation that is not built."""

    skip_connect: ConvBN | None
    nor_conv_1x1: ConvBN | None
    nor_conv_3x3: ConvBN | None


def apply_operation(
    op: int | jax.Array, x: jax.Array, weights: EdgeWeights, halves: bool
) -> jax.Array:
    """Applies one candidate operation to an edge's input.

    Args:
      op: index into `genotype.OPERATIONS`; a Python int is static, an array is traced.
      x: the source node, `[N, H, H, C]`, H even or 1.
      weights: the edge's weights; a traced index needs those of every operation.
      halves: whether the edge halves the side, where it is not 1, and doubles the channels.

    Returns:
      The edge's output, `[N, H, H, C]`, or `[N, H/2, H/2, O]` with O = 2C where it halves.
    """
    if isinstance(op, jax.Array):
        branches = _with_halves(_FORWARD, halves), _with_halves(_BACKWARD, halves)
        return switch_by_rules(op, *branches, x, weights)
    return _FORWARD[op](x, weights, halves)[0]


def _with_halves(branches: tuple[Any, ...], halves: bool) -> list[Any]:
    return [functools.partial(branch, halves=halves) for branch in branches]


def _every_other(x: jax.Array, first: int) -> jax.Array:
    """The pixels `first`, `first` + 2, ... along both sides: `[N, H/2, H/2, C]`, H even or 1.

    A single pixel is padded with zeros to 2x2 pixels, as in PyTorch.
    """
    padding = x.shape[1] % 2
    x = jnp.pad(x, ((0, 0), (0, padding), (0, padding), (0, 0)))
    return x[:, first::2, first::2]


def _every_other_cotangent(x: jax.Array, first: int, dy: jax.Array) -> jax.Array:
    """The cotangent of x, `[N, H, H, C]`, from that of `_every_other`: zeros between pixels."""
    _, vjp = jax.vjp(lambda x: _every_other(x, first), x)
    return vjp(dy)[0]


# Forward branches return (output, 1 / batch deviation); the latter is used by batch norms only.


def _none(x: jax.Array, weights: EdgeWeights, halves: bool) -> tuple[jax.Array, jax.Array]:
    n, side, _, channels = x.shape
    if halves:
        side, channels = halved(side), 2 * channels
    y = jnp.zeros((n, side, side, channels), x.dtype)
    return y, no_deviation(y)


def _skip_connect(x: jax.Array, weights: EdgeWeights, halves: bool) -> tuple[jax.Array, jax.Array]:
    """Returns the input or, where the edge halves, its factorised reduction.

    A factorised reduction is ReLU, two parallel pointwise convolutions, of the even and of the odd
    pixels, and batch norm.
    """
    if not halves:
        return x, no_deviation(x)
    assert weights.skip_connect is not None
    kernels, scale, bias = weights.skip_connect
    x = nn.relu(x)
    parts = [
        convolution.convolve(_every_other(x, first), kernel)
        for first, kernel in enumerate(jnp.split(kernels, 2, axis=-1))
    ]
    return normalise(jnp.concatenate(parts, axis=-1), scale, bias)


def _nor_conv_1x1(x: jax.Array, weights: EdgeWeights, halves: bool) -> tuple[jax.Array, jax.Array]:
    assert weights.nor_conv_1x1 is not None
    return relu_conv_bn(_every_other(x, 0) if halves else x, weights.nor_conv_1x1)


def _nor_conv_3x3(x: jax.Array, weights: EdgeWeights, halves: bool) -> tuple[jax.Array, jax.Array]:
    assert weights.nor_conv_3x3 is not None
    return relu_conv_bn(x, weights.nor_conv_3x3, _stride(x, halves))


def _stride(x: jax.Array, halves: bool) -> int:
    """The stride of a 3x3 convolution; a single pixel has stride 1, with the same result as 2."""
    return 2 if halves and x.shape[1] > 1 else 1


_FORWARD = (_none, _skip_connect, _nor_conv_1x1, _nor_conv_3x3)

# Backward branches take (input, weights, output, 1 / batch deviation, output cotangent).


def _none_bwd(x: Any, weights: Any, y: Any, inverse_std: Any, dy: Any, halves: bool) -> jax.Array:
    return jnp.zeros_like(x)


def _skip_connect_bwd(
    x: jax.Array, weights: Any, y: jax.Array, inverse_std: jax.Array, dy: jax.Array, halves: bool
) -> jax.Array:
    if not halves:
        return dy
    kernels, scale, bias = weights.skip_connect
    dz = normalise_cotangent(y, scale, bias, inverse_std, dy)
    parts = [
        _every_other_cotangent(x, first, convolution.input_cotangent(kernel, of_half))
        for first, (kernel, of_half) in enumerate(
            zip(jnp.split(kernels, 2, axis=-1), jnp.split(dz, 2, axis=-1), strict=True)
        )
    ]
    return jnp.where(x <= 0, 0, parts[0] + parts[1])


def _nor_conv_1x1_bwd(
    x: jax.Array, weights: Any, y: jax.Array, inverse_std: jax.Array, dy: jax.Array, halves: bool
) -> jax.Array:
    if not halves:
        return relu_conv_bn_cotangent(x <= 0, weights.nor_conv_1x1, y, inverse_std, dy)
    is_closed = _every_other(x, 0) <= 0
    dx = relu_conv_bn_cotangent(is_closed, weights.nor_conv_1x1, y, inverse_std, dy)
    return _every_other_cotangent(x, 0, dx)


def _nor_conv_3x3_bwd(
    x: jax.Array, weights: Any, y: jax.Array, inverse_std: jax.Array, dy: jax.Array, halves: bool
) -> jax.Array:
    stride = _stride(x, halves)
    return relu_conv_bn_cotangent(x <= 0, weights.nor_conv_3x3, y, inverse_std, dy, stride)


_BACKWARD = (_none_bwd, _skip_connect_bwd, _nor_conv_1x1_bwd, _nor_conv_3x3_bwd)
