"""Candidate operations of DARTS cells (Liu et al. 2019, section 3.1.1), as its evaluation network.

`apply_operation` has two forms: with a Python int only that operation is built; with a traced index
one program serves any cells. The backward pass then runs the operation again from the edge's input,
which is all that is kept.

Pools have no batch norm, unlike those of DARTS's search network.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from epe_nas_jax.spaces.layers import convolution
from epe_nas_jax.spaces.layers.batch_norm import normalise
from epe_nas_jax.spaces.layers.conv_bn import ConvBN
from epe_nas_jax.spaces.layers.grouped_switch import (
    cotangents,
    grouped_switch,
    is_differentiated,
    values_of,
)
from epe_nas_jax.spaces.layers.pooling import avg_pool_3x3


class SeparableConvBN(NamedTuple):
    """Weights of a depthwise and a pointwise convolution with a batch norm behind them.

    Attributes:
      depthwise: `[h, w, 1, C]`.
      pointwise: kernel `[1, 1, C, C]`, scale and bias.
    """

    depthwise: jax.Array
    pointwise: ConvBN


class DartsEdgeWeights(NamedTuple):
    """Weights of the candidate operations of one edge; None for an operation that is not built."""

    skip_connect: ConvBN | None
    sep_conv_3x3: tuple[SeparableConvBN, SeparableConvBN] | None
    sep_conv_5x5: tuple[SeparableConvBN, SeparableConvBN] | None
    dil_conv_3x3: SeparableConvBN | None
    dil_conv_5x5: SeparableConvBN | None


def apply_operation(
    op: int | jax.Array, x: jax.Array, weights: DartsEdgeWeights, stride: int
) -> jax.Array:
    """Applies one candidate operation to an edge's input.

    Args:
      op: index into `genotype.OPERATIONS`; a Python int is static, an array is traced.
      x: the source node, `[N, H, H, C]`.
      weights: the edge's weights; a traced index needs those of every operation.
      stride: 1, or 2 on the edges of a reduction cell that leave its inputs.

    Returns:
      The edge's output, `[N, H/stride, H/stride, C]`.
    """
    if isinstance(op, jax.Array):
        return _traced_operation(op, x, weights, stride)
    return _OPERATIONS[op](x, weights, stride)


def factorized_reduce(x: jax.Array, weights: ConvBN) -> jax.Array:
    """ReLU, pointwise convolution at stride 2, batch norm: `[N, H, H, C]` to `[N, H/2, H/2, O]`.

    The first half of the kernel's outputs sees the even pixels and the second half the odd ones.
    """
    x = nn.relu(x)
    even, odd = jnp.split(weights.kernel, 2, axis=-1)
    halves = convolution.convolve(x[:, ::2, ::2], even), convolution.convolve(x[:, 1::2, 1::2], odd)
    return normalise(jnp.concatenate(halves, axis=-1), weights.scale, weights.bias)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _traced_operation(
    op: jax.Array, x: jax.Array, weights: DartsEdgeWeights, stride: int
) -> jax.Array:
    return grouped_switch(op, _forward_branches(stride), x, weights)


def _traced_operation_fwd(op: Any, x: Any, weights: Any, stride: int) -> tuple[jax.Array, Any]:
    weights_too = is_differentiated(weights)
    op, x, weights = values_of((op, x, weights))
    y = grouped_switch(op, _forward_branches(stride), x, weights)
    # What is differentiated, and what is not.
    return y, (op, (x, weights), ()) if weights_too else (op, (x,), (weights,))


def _traced_operation_bwd(stride: int, residuals: Any, dy: Any) -> tuple[None, jax.Array, Any]:
    op, differentiated, constant = residuals
    if isinstance(dy, jax.custom_derivatives.SymbolicZero):
        return None, jnp.zeros_like(differentiated[0]), None
    cotangents = grouped_switch(op, _backward_branches(stride), differentiated, constant, dy)
    return None, *cotangents, *[jax.tree.map(jnp.zeros_like, weights) for weights in constant]


_traced_operation.defvjp(_traced_operation_fwd, _traced_operation_bwd, symbolic_zeros=True)


def _forward_branches(stride: int) -> list[Any]:
    return [functools.partial(operation, stride=stride) for operation in _OPERATIONS]


def _backward_branches(stride: int) -> list[Any]:
    return [functools.partial(cotangents, operation) for operation in _forward_branches(stride)]


def _none(x: jax.Array, weights: DartsEdgeWeights, stride: int) -> jax.Array:
    return jnp.zeros_like(x[:, ::stride, ::stride])


def _max_pool_3x3(x: jax.Array, weights: DartsEdgeWeights, stride: int) -> jax.Array:
    window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)


def _avg_pool_3x3(x: jax.Array, weights: DartsEdgeWeights, stride: int) -> jax.Array:
    return avg_pool_3x3(x)[:, ::stride, ::stride]


def _skip_connect(x: jax.Array, weights: DartsEdgeWeights, stride: int) -> jax.Array:
    if stride == 1:
        return x
    assert weights.skip_connect is not None
    return factorized_reduce(x, weights.skip_connect)


def _sep_conv_3x3(x: jax.Array, weights: DartsEdgeWeights, stride: int) -> jax.Array:
    assert weights.sep_conv_3x3 is not None
    first, second = weights.sep_conv_3x3
    return _separable(_separable(x, first, stride), second)


def _sep_conv_5x5(x: jax.Array, weights: DartsEdgeWeights, stride: int) -> jax.Array:
    assert weights.sep_conv_5x5 is not None
    first, second = weights.sep_conv_5x5
    return _separable(_separable(x, first, stride), second)


def _dil_conv_3x3(x: jax.Array, weights: DartsEdgeWeights, stride: int) -> jax.Array:
    assert weights.dil_conv_3x3 is not None
    return _separable(x, weights.dil_conv_3x3, stride, dilation=2)


def _dil_conv_5x5(x: jax.Array, weights: DartsEdgeWeights, stride: int) -> jax.Array:
    assert weights.dil_conv_5x5 is not None
    return _separable(x, weights.dil_conv_5x5, stride, dilation=2)


_OPERATIONS = (
    _none,
    _max_pool_3x3,
    _avg_pool_3x3,
    _skip_connect,
    _sep_conv_3x3,
    _sep_conv_5x5,
    _dil_conv_3x3,
    _dil_conv_5x5,
)


def _separable(
    x: jax.Array, weights: SeparableConvBN, stride: int = 1, *, dilation: int = 1
) -> jax.Array:
    """ReLU, depthwise convolution, pointwise convolution, batch norm."""
    padding = dilation * (weights.depthwise.shape[0] // 2)
    x = lax.conv_general_dilated(
        nn.relu(x),
        weights.depthwise,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )
    kernel, scale, bias = weights.pointwise
    return normalise(convolution.convolve(x, kernel), scale, bias)[0]
