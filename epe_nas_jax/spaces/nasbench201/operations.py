"""Candidate operations of a NAS-Bench-201 cell, in one program for cells with different operations.

`apply_operation` runs one edge. With a Python int only that operation is built and everything can
be differentiated. With a traced index the operation is chosen on the device, so that one compiled
program can score any cell. Then the input is differentiated by a hand-written rule, which keeps
only the edge's input, its output and the batch deviation; where weights are differentiated too, the
backward pass runs the operation again.

Under `jax.vmap`, JAX would compute all five operations for every cell and select one. Instead
`grouped_switch` sorts the cells by operation and runs every operation on its own group only. With
groups of fixed size it needs no loop (`static_groups`), unless weights are differentiated.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from epe_nas_jax.spaces.base import EdgeGroups
from epe_nas_jax.spaces.layers.batch_norm import Normalise, no_deviation, normalise
from epe_nas_jax.spaces.layers.conv_bn import ConvBN, relu_conv_bn, relu_conv_bn_cotangent
from epe_nas_jax.spaces.layers.grouped_switch import (
    is_differentiated,
    switch_by_rules,
    values_of,
)
from epe_nas_jax.spaces.layers.pooling import avg_pool_3x3, avg_pool_3x3_cotangent
from epe_nas_jax.spaces.layers.static_groups import group_rows, put_back
from epe_nas_jax.spaces.nasbench201.genotype import KERNEL_SIZES, OPERATIONS


class EdgeWeights(NamedTuple):
    """Weights of the candidate operations of one edge; None for an operation that is not built."""

    nor_conv_1x1: ConvBN | None
    nor_conv_3x3: ConvBN | None


def apply_operation(
    op: int | jax.Array,
    x: jax.Array,
    weights: EdgeWeights,
    norm: Normalise = normalise,
    groups: EdgeGroups | None = None,
) -> jax.Array:
    """Applies one candidate operation to an edge's input.

    Args:
      op: index into `genotype.OPERATIONS`; a Python int is static, an array is traced.
      x: the source node, `[N, H, W, C]`.
      weights: the edge's weights; a traced index needs those of every operation.
      norm: how a convolution is normalised; with a traced index `normalise` or `without_norm`.
      groups: the groups of fixed size of the cells under a `jax.vmap`; the result is NaN for cells
        that do not fit. Differentiation must then be outside of the `jax.vmap`, and not with
        respect to the weights. None: groups of any size, by loops.

    Returns:
      The edge's output, `[N, H, W, C]`.
    """
    if isinstance(op, jax.Array):
        if groups is not None:
            assert norm is normalise
            return _vectorised_by_groups(groups)(op, x, weights)
        return _traced_operation(op, x, weights, norm)
    return _FORWARD[op](x, weights, norm)[0]


def _traced_operation(
    op: jax.Array, x: jax.Array, weights: EdgeWeights, norm: Normalise
) -> jax.Array:
    forward = [functools.partial(operation, norm=norm) for operation in _FORWARD]
    return switch_by_rules(op, forward, _BACKWARD if norm is normalise else None, x, weights)


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


# Backward branches take (input, weights, output, 1 / batch deviation, output cotangent).


def _none_bwd(x: Any, weights: Any, y: Any, inverse_std: Any, dy: jax.Array) -> jax.Array:
    return jnp.zeros_like(dy)


def _skip_connect_bwd(x: Any, weights: Any, y: Any, inverse_std: Any, dy: jax.Array) -> jax.Array:
    return dy


def _nor_conv_1x1_bwd(x: Any, weights: Any, y: Any, inverse_std: Any, dy: jax.Array) -> jax.Array:
    return relu_conv_bn_cotangent(x <= 0, weights.nor_conv_1x1, y, inverse_std, dy)


def _nor_conv_3x3_bwd(x: Any, weights: Any, y: Any, inverse_std: Any, dy: jax.Array) -> jax.Array:
    return relu_conv_bn_cotangent(x <= 0, weights.nor_conv_3x3, y, inverse_std, dy)


def _avg_pool_3x3_bwd(x: Any, weights: Any, y: Any, inverse_std: Any, dy: jax.Array) -> jax.Array:
    return avg_pool_3x3_cotangent(dy)


_BACKWARD = (
    _none_bwd,
    _skip_connect_bwd,
    _nor_conv_1x1_bwd,
    _nor_conv_3x3_bwd,
    _avg_pool_3x3_bwd,
)


# By groups of fixed size. `none` and `skip_connect` need no group.

# Estimated from the bytes that a GPU's kernels read and write, and a little more for arithmetic.
GROUP_WORK = (0, 0, 2, 3, 1)
_IDENTITY = OPERATIONS.index("skip_connect")
_CONVOLUTIONS = tuple(OPERATIONS.index(name) for name in KERNEL_SIZES)
_GROUPED = (*_CONVOLUTIONS, OPERATIONS.index("avg_pool_3x3"))


def _vectorised_by_groups(groups: EdgeGroups) -> Any:
    """Makes an edge's operation, `(op, x, weights) -> y`, which `jax.vmap` runs by groups."""

    @custom_vmap
    def apply(op: jax.Array, x: jax.Array, weights: EdgeWeights) -> jax.Array:
        return _traced_operation(op, x, weights, normalise)

    @apply.def_vmap
    def _(num_cells: int, in_batched: Any, op: Any, x: Any, weights: Any) -> tuple[jax.Array, bool]:
        def batched(array: jax.Array, is_batched: bool) -> jax.Array:
            return array if is_batched else jnp.broadcast_to(array, (num_cells, *array.shape))

        op_batched, x_batched, weights_batched = in_batched
        have_own_weights = any(jax.tree.leaves(weights_batched))
        if have_own_weights:
            weights = jax.tree.map(batched, weights, weights_batched)
        op, x = batched(op, op_batched), batched(x, x_batched)
        return _operations_of_cells(op, x, weights, groups, have_own_weights), True

    return apply


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _operations_of_cells(
    op: jax.Array,
    x: jax.Array,
    weights: EdgeWeights,
    groups: EdgeGroups,
    have_own_weights: bool,
) -> jax.Array:
    """The outputs of an edge in many cells, `[A, N, H, W, C]`.

    The operations are int32 `[A]`, and the inputs have the shape of the outputs.
    """
    return _outputs_of_cells(op, x, weights, groups, have_own_weights)[0]


def _operations_of_cells_fwd(
    op: Any, x: Any, weights: Any, groups: EdgeGroups, have_own_weights: bool
) -> tuple[jax.Array, Any]:
    if is_differentiated(weights):
        raise NotImplementedError("groups: found weights differentiated, expected images only")
    op, x, weights = values_of((op, x, weights))
    return _outputs_of_cells(op, x, weights, groups, have_own_weights)


def _outputs_of_cells(
    op: jax.Array,
    x: jax.Array,
    weights: EdgeWeights,
    groups: EdgeGroups,
    have_own_weights: bool,
) -> tuple[jax.Array, Any]:
    """The outputs, and what the backward pass needs: only of convolutions, one bit per ReLU."""
    capacities = {number: groups.capacities[number] for number in _GROUPED}
    grouped = group_rows(op, capacities, _IDENTITY)
    results, kept = [], []
    for number, rows in zip(_GROUPED, grouped.rows, strict=True):
        taken = jnp.take(x, rows, axis=0)
        own, axis = _weights_of(rows, weights, have_own_weights)
        y, inverse_std = jax.vmap(_FORWARD[number], (0, axis))(taken, own)
        results.append(y)
        if number in _CONVOLUTIONS:
            kept.append((jnp.packbits(taken <= 0, axis=1), _kept(y, groups), inverse_std))
    return put_back(grouped, results, x), (grouped, weights, kept)


def _kept(y: jax.Array, groups: EdgeGroups) -> jax.Array:
    """A convolution's output, in the dtype in which it is kept for the backward pass."""
    if groups.kept_dtype is None:
        return y
    # Else the compiler would remove the conversion and its inverse, and keep y as it is.
    return lax.optimization_barrier(y.astype(groups.kept_dtype))  # type: ignore[no-untyped-call]


def _operations_of_cells_bwd(
    groups: EdgeGroups, have_own_weights: bool, residuals: Any, dy: Any
) -> tuple[None, jax.Array, Any]:
    del groups
    grouped, weights, kept = residuals
    no_gradient = jax.tree.map(jnp.zeros_like, weights)
    if isinstance(dy, jax.custom_derivatives.SymbolicZero):
        return None, jnp.zeros(dy.shape, dy.dtype), no_gradient
    results = []
    for number, rows in zip(_GROUPED, grouped.rows, strict=True):
        taken = jnp.take(dy, rows, axis=0)
        if number in _CONVOLUTIONS:
            own, axis = _weights_of(rows, weights, have_own_weights)
            bits, y, inverse_std = kept[_CONVOLUTIONS.index(number)]
            is_closed = jnp.unpackbits(bits, axis=1, count=dy.shape[1]).astype(bool)
            name = OPERATIONS[number]
            backward = jax.vmap(relu_conv_bn_cotangent, (0, axis, 0, 0, 0))
            y = y.astype(dy.dtype)
            results.append(backward(is_closed, getattr(own, name), y, inverse_std, taken))
        else:
            results.append(jax.vmap(avg_pool_3x3_cotangent)(taken))
    return None, put_back(grouped, results, dy), no_gradient


def _weights_of(rows: jax.Array, weights: EdgeWeights, have_own_weights: bool) -> tuple[Any, Any]:
    """The weights of some rows, and their axis of rows (None: shared by all rows)."""
    if not have_own_weights:
        return weights, None
    return jax.tree.map(lambda array: jnp.take(array, rows, axis=0), weights), 0


_operations_of_cells.defvjp(_operations_of_cells_fwd, _operations_of_cells_bwd, symbolic_zeros=True)
