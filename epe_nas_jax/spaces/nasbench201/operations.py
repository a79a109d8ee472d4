"""Candidate operations of a NAS-Bench-201 cell, and how cells that differ in them share a program.

`apply_operation` runs one edge. With a Python int only that operation is built and everything can
be differentiated. With a traced index the operation is chosen on the device, which is what lets one
compiled program score any cell. Then the input is differentiated by a hand-written rule, which
keeps nothing but the edge's input, its output and the batch deviation; where weights are
differentiated too, the backward pass runs the operation again.

Under `jax.vmap` a traced index does not become "compute all five and select": `grouped_switch`
sorts the cells by operation and runs every operation on its own group only.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from epe_nas_jax.spaces.layers import convolution
from epe_nas_jax.spaces.layers.batch_norm import Normalise, no_deviation, normalise, per_channel
from epe_nas_jax.spaces.layers.conv_bn import ConvBN, relu_conv_bn
from epe_nas_jax.spaces.layers.grouped_switch import (
    cotangents,
    grouped_switch,
    is_differentiated,
    values_of,
)
from epe_nas_jax.spaces.layers.pooling import avg_pool_3x3, avg_pool_3x3_cotangent


class EdgeWeights(NamedTuple):
    """Weights of the candidate operations of one edge; None for an operation that is not built."""

    nor_conv_1x1: ConvBN | None
    nor_conv_3x3: ConvBN | None


def apply_operation(
    op: int | jax.Array, x: jax.Array, weights: EdgeWeights, norm: Normalise = normalise
) -> jax.Array:
    """Applies one candidate operation to an edge's input.

    Args:
      op: index into `genotype.OPERATIONS`; a Python int is static, an array is traced.
      x: the source node, `[N, H, W, C]`.
      weights: the edge's weights; a traced index needs those of every operation.
      norm: how a convolution is normalised; for a traced one `normalise` or `without_norm`.

    Returns:
      The edge's output, `[N, H, W, C]`.
    """
    if isinstance(op, jax.Array):
        return _traced_operation(op, x, weights, norm)
    return _FORWARD[op](x, weights, norm)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _traced_operation(
    op: jax.Array, x: jax.Array, weights: EdgeWeights, norm: Normalise
) -> jax.Array:
    return grouped_switch(op, _forward_branches(norm), x, weights)[0]


def _traced_operation_fwd(op: Any, x: Any, weights: Any, norm: Normalise) -> tuple[jax.Array, Any]:
    by_hand = norm is normalise and not is_differentiated(weights)
    op, x, weights = values_of((op, x, weights))
    y, inverse_std = grouped_switch(op, _forward_branches(norm), x, weights)
    return y, (op, x, weights, y, inverse_std) if by_hand else (op, x, weights)


def _traced_operation_bwd(norm: Normalise, residuals: Any, dy: Any) -> tuple[None, jax.Array, Any]:
    op, x, weights, *kept = residuals
    if isinstance(dy, jax.custom_derivatives.SymbolicZero):
        return None, jnp.zeros_like(x), None
    if not kept:
        return None, *grouped_switch(op, _cotangent_branches(norm), (x, weights), (), dy)
    dx = grouped_switch(op, _BACKWARD, x, weights, *kept, dy)
    return None, dx, jax.tree.map(jnp.zeros_like, weights)


_traced_operation.defvjp(_traced_operation_fwd, _traced_operation_bwd, symbolic_zeros=True)


# Forward branches return (output, 1 / batch deviation); the latter is used by convolutions only.


def _none(
    x: jax.Array, weights: EdgeWeights, norm: Normalise = normalise
) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros_like(x), no_deviation(x)


def _skip_connect(
    x: jax.Array, weights: EdgeWeights, norm: Normalise = normalise
) -> tuple[jax.Array, jax.Array]:
    return x, no_deviation(x)


def _nor_conv_1x1(
    x: jax.Array, weights: EdgeWeights, norm: Normalise = normalise
) -> tuple[jax.Array, jax.Array]:
    assert weights.nor_conv_1x1 is not None
    return relu_conv_bn(x, weights.nor_conv_1x1, norm=norm)


def _nor_conv_3x3(
    x: jax.Array, weights: EdgeWeights, norm: Normalise = normalise
) -> tuple[jax.Array, jax.Array]:
    assert weights.nor_conv_3x3 is not None
    return relu_conv_bn(x, weights.nor_conv_3x3, norm=norm)


def _avg_pool_3x3(
    x: jax.Array, weights: EdgeWeights, norm: Normalise = normalise
) -> tuple[jax.Array, jax.Array]:
    return avg_pool_3x3(x), no_deviation(x)


_FORWARD = (_none, _skip_connect, _nor_conv_1x1, _nor_conv_3x3, _avg_pool_3x3)


def _forward_branches(norm: Normalise) -> list[Any]:
    return [functools.partial(operation, norm=norm) for operation in _FORWARD]


def _cotangent_branches(norm: Normalise) -> list[Any]:
    def output_of(operation: Any, x: jax.Array, weights: EdgeWeights) -> jax.Array:
        return operation(x, weights, norm)[0]

    return [
        functools.partial(cotangents, functools.partial(output_of, operation))
        for operation in _FORWARD
    ]


# Backward branches take (input, weights, output, 1 / batch deviation, output cotangent).


def _none_bwd(x: Any, weights: Any, y: Any, inverse_std: Any, dy: jax.Array) -> jax.Array:
    return jnp.zeros_like(dy)


def _skip_connect_bwd(x: Any, weights: Any, y: Any, inverse_std: Any, dy: jax.Array) -> jax.Array:
    return dy


def _nor_conv_1x1_bwd(x: Any, weights: Any, y: Any, inverse_std: Any, dy: jax.Array) -> jax.Array:
    return _relu_conv_bn_bwd(x, weights.nor_conv_1x1, y, inverse_std, dy)


def _nor_conv_3x3_bwd(x: Any, weights: Any, y: Any, inverse_std: Any, dy: jax.Array) -> jax.Array:
    return _relu_conv_bn_bwd(x, weights.nor_conv_3x3, y, inverse_std, dy)


def _avg_pool_3x3_bwd(x: Any, weights: Any, y: Any, inverse_std: Any, dy: jax.Array) -> jax.Array:
    return avg_pool_3x3_cotangent(dy)


_BACKWARD = (
    _none_bwd,
    _skip_connect_bwd,
    _nor_conv_1x1_bwd,
    _nor_conv_3x3_bwd,
    _avg_pool_3x3_bwd,
)


def _relu_conv_bn_bwd(
    x: jax.Array, weights: ConvBN, y: jax.Array, inverse_std: jax.Array, dy: jax.Array
) -> jax.Array:
    """Input cotangent of ReLU-Conv-BN; the normalised value is read back from the output y."""
    scale, bias = weights.scale, weights.bias
    inverse_scale = jnp.where(scale == 0, 0, 1 / scale)
    mean_dy = jnp.mean(dy, (0, 1, 2))
    mean_dy_normalised = (jnp.mean(dy * y, (0, 1, 2)) - bias * mean_dy) * inverse_scale
    gain = per_channel(scale * inverse_std)
    slope = per_channel(mean_dy_normalised * inverse_scale)
    dz = gain * (dy - per_channel(mean_dy) - slope * (y - per_channel(bias)))
    dx = convolution.input_cotangent(weights.kernel, dz)
    # Selecting the zero first is a third faster on CPUs.
    return jnp.where(x <= 0, 0, dx)
