"""Candidate operations of DARTS cells (Liu et al. 2019, section 3.1.1).

Each returns its output, and the input of its second ReLU, or None where it has no second one.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from epe_nas_jax.spaces.darts.edges import OPERATIONS, OPERATIONS_OF
from epe_nas_jax.spaces.layers import convolution
from epe_nas_jax.spaces.layers.batch_norm import normalise
from epe_nas_jax.spaces.layers.conv_bn import ConvBN
from epe_nas_jax.spaces.layers.depthwise import convolve_depthwise
from epe_nas_jax.spaces.layers.pooling import avg_pool_3x3, max_pool_3x3


class SeparableConvBN(NamedTuple):
    """Weights of a depthwise and a pointwise convolution followed by a batch norm.

    Attributes:
      depthwise: `[h, w, 1, C]`.
      pointwise: kernel `[1, 1, C, C]`, scale and bias.
    """

    depthwise: jax.Array
    pointwise: ConvBN


class DartsEdgeWeights(NamedTuple):
    """Weights of the candidate operations of one edge; None for an operation that is not built."""

    skip_connect: ConvBN | None = None
    sep_conv_3x3: tuple[SeparableConvBN, SeparableConvBN] | None = None
    sep_conv_5x5: tuple[SeparableConvBN, SeparableConvBN] | None = None
    dil_conv_3x3: SeparableConvBN | None = None
    dil_conv_5x5: SeparableConvBN | None = None


class Form(NamedTuple):
    """How operations are built on an edge.

    Attributes:
      stride: 1, or 2 on the edges of a reduction cell that leave its inputs.
      pool_norm: whether a batch norm without scale and offset follows pools.
    """

    stride: int
    pool_norm: bool


Output = tuple[jax.Array, jax.Array | None]


def apply_operation(op: int, x: jax.Array, weights: DartsEdgeWeights, form: Form) -> Output:
    """Applies one candidate operation to an edge's input.

    Args:
      op: index into `edges.OPERATIONS`.
      x: the source node, `[N, H, H, C]`.
      weights: weights of at least this operation.
      form: how the operation is built.

    Returns:
      The edge's output, `[N, H/stride, H/stride, C]`; and the input of a second ReLU, of the same
      shape, or None.
    """
    return _OPERATIONS[op](x, weights, form)


def num_relus_of_input(stride: int) -> np.ndarray:
    """How many ReLUs read an edge's source, for every value of the edge, int32 `[values]`."""
    with_relu = [name.startswith(("sep", "dil")) for name in OPERATIONS]
    with_relu[OPERATIONS.index("skip_connect")] = stride == 2
    return np.array(with_relu, np.int32)[OPERATIONS_OF].sum(axis=1, dtype=np.int32)


def factorized_reduce(x: jax.Array, weights: ConvBN) -> jax.Array:
    """ReLU, pointwise convolution at stride 2, batch norm: `[N, H, H, C]` to `[N, H/2, H/2, O]`.

    The first half of the output channels reads the even pixels, the second half the odd ones.
    """
    x = nn.relu(x)
    even, odd = jnp.split(weights.kernel, 2, axis=-1)
    halves = convolution.convolve(x[:, ::2, ::2], even), convolution.convolve(x[:, 1::2, 1::2], odd)
    return normalise(jnp.concatenate(halves, axis=-1), weights.scale, weights.bias)[0]


def _none(x: jax.Array, weights: DartsEdgeWeights, form: Form) -> Output:
    return jnp.zeros_like(x[:, :: form.stride, :: form.stride]), None


def _max_pool_3x3(x: jax.Array, weights: DartsEdgeWeights, form: Form) -> Output:
    return _pooled(max_pool_3x3(x, form.stride), form), None


def _avg_pool_3x3(x: jax.Array, weights: DartsEdgeWeights, form: Form) -> Output:
    return _pooled(avg_pool_3x3(x)[:, :: form.stride, :: form.stride], form), None


def _skip_connect(x: jax.Array, weights: DartsEdgeWeights, form: Form) -> Output:
    if form.stride == 1:
        return x, None
    assert weights.skip_connect is not None
    return factorized_reduce(x, weights.skip_connect), None


def _sep_conv_3x3(x: jax.Array, weights: DartsEdgeWeights, form: Form) -> Output:
    assert weights.sep_conv_3x3 is not None
    return _separable_twice(x, weights.sep_conv_3x3, form)


def _sep_conv_5x5(x: jax.Array, weights: DartsEdgeWeights, form: Form) -> Output:
    assert weights.sep_conv_5x5 is not None
    return _separable_twice(x, weights.sep_conv_5x5, form)


def _dil_conv_3x3(x: jax.Array, weights: DartsEdgeWeights, form: Form) -> Output:
    assert weights.dil_conv_3x3 is not None
    return _separable(x, weights.dil_conv_3x3, form.stride, dilation=2), None


def _dil_conv_5x5(x: jax.Array, weights: DartsEdgeWeights, form: Form) -> Output:
    assert weights.dil_conv_5x5 is not None
    return _separable(x, weights.dil_conv_5x5, form.stride, dilation=2), None


_OPERATIONS: tuple[Callable[[jax.Array, DartsEdgeWeights, Form], Output], ...] = (
    _none,
    _max_pool_3x3,
    _avg_pool_3x3,
    _skip_connect,
    _sep_conv_3x3,
    _sep_conv_5x5,
    _dil_conv_3x3,
    _dil_conv_5x5,
)


def _pooled(x: jax.Array, form: Form) -> jax.Array:
    """The output of a pool, normalised if the form says so."""
    if not form.pool_norm:
        return x
    channels = x.shape[-1:]
    return normalise(x, jnp.ones(channels, x.dtype), jnp.zeros(channels, x.dtype))[0]


def _separable_twice(
    x: jax.Array, weights: tuple[SeparableConvBN, SeparableConvBN], form: Form
) -> Output:
    inner = _separable(x, weights[0], form.stride)
    return _separable(inner, weights[1]), inner


def _separable(
    x: jax.Array, weights: SeparableConvBN, stride: int = 1, *, dilation: int = 1
) -> jax.Array:
    """ReLU, depthwise convolution, pointwise convolution, batch norm."""
    x = convolve_depthwise(nn.relu(x), weights.depthwise, stride, dilation)
    kernel, scale, bias = weights.pointwise
    return normalise(convolution.convolve(x, kernel), scale, bias)[0]
