"""Candidate operations, and how cells that differ in them share one program.

`apply_operation` runs one edge. With a Python int only that operation is built and everything can
be differentiated. With a traced index the operation is chosen on the device, which is what lets one
compiled program score any cell. Then the input is differentiated by a hand-written rule, which
keeps nothing but the edge's input, its output and the batch deviation; where weights are
differentiated too, the backward pass runs the operation again.

Under `jax.vmap` a traced index does not become "compute all five and select": `grouped_switch`
sorts the cells by operation and runs every operation on its own group only.

Shape legend: N images, H height, W width, C channels in, D channels out, A cells.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, nn
from jax.custom_batching import custom_vmap

from epe_nas_jax import convolution

BATCH_NORM_EPSILON = 1e-5

_BLOCKS_PER_GROUP_SWITCH = 32
# Of all images: few enough for the fastest cache of a CPU.
_WORDS_AT_ONCE = 16


class ConvBN(NamedTuple):
    """Weights of a convolution followed by batch normalisation.

    Attributes:
      kernel: `[h, w, C, D]`.
      scale: `[D]`.
      bias: `[D]`.
    """

    kernel: jax.Array
    scale: jax.Array
    bias: jax.Array


# From `[N, H, W, D]`, scale and bias `[D]` to the normalised, and the inverse deviation `[D]`.
Normalise = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class EdgeWeights(NamedTuple):
    """Weights of the candidate operations of one edge; None for an operation that is not built."""

    nor_conv_1x1: ConvBN | None
    nor_conv_3x3: ConvBN | None


def normalise(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    moments: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Batch normalisation of `[N, H, W, D]`, and the inverse deviation `[D]`.

    Args:
      x: what to normalise.
      scale: `[D]`.
      bias: `[D]`.
      moments: mean and variance, `[D]` each; by default those of the mini-batch.
    """
    mean, variance = batch_moments(x) if moments is None else moments
    inverse_std = lax.rsqrt(variance + BATCH_NORM_EPSILON)
    gain = inverse_std * scale
    return (x - _per_channel(mean)) * _per_channel(gain) + _per_channel(bias), inverse_std


def without_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """In the place of `normalise`: leaves x, `[N, H, W, D]`, as it is."""
    return x, _no_std(x)


def batch_moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance `[D]` of `[N, H, W, D]`, both in one pass."""
    mean = jnp.mean(x, (0, 1, 2))
    return mean, jnp.maximum(jnp.mean(x**2, (0, 1, 2)) - mean**2, 0)


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


def relu_conv_bn(
    x: jax.Array, weights: ConvBN, stride: int = 1, norm: Normalise = normalise
) -> tuple[jax.Array, jax.Array]:
    """ReLU, convolution, batch normalisation: `[N, H, W, C]` to `[N, H/stride, W/stride, D]`.

    Returns:
      The output and the inverse deviation `[D]`.
    """
    z = convolution.convolve(nn.relu(x), weights.kernel, stride)
    return norm(z, weights.scale, weights.bias)


def avg_pool_3x3(x: jax.Array) -> jax.Array:
    """3x3 average at stride 1 over `[N, H, W, C]`; padding is not counted."""
    return _box_sum(x) / _window_sizes(x)


def relu_agreement(x: jax.Array) -> jax.Array:
    """In how many of x's units two images' ReLUs are both open or both closed.

    Args:
      x: what the ReLUs read, `[N, H, W, C]`.

    Returns:
      Counts, int32 `[N, N]`.
    """
    units = (x > 0).reshape(len(x), -1)
    return lax.platform_dependent(units, cpu=_agreement_by_bits, default=_agreement_by_product)


def _agreement_by_product(units: jax.Array) -> jax.Array:
    # Exact: +1 and -1 have no rounding in bfloat16, nor have their sums in float32.
    signs = jnp.where(units, 1, -1).astype(jnp.bfloat16)
    products = jnp.matmul(signs, signs.T, preferred_element_type=jnp.float32)
    return (units.shape[1] + products.astype(jnp.int32)) // 2


def _agreement_by_bits(units: jax.Array) -> jax.Array:
    """The same by counting bits, 32 units to a word: several times as fast on CPUs."""
    num_images, num_units = units.shape
    units = jnp.pad(units, ((0, 0), (0, -num_units % (32 * _WORDS_AT_ONCE))))
    bits = units.reshape(num_images, 32, -1).astype(jnp.uint32)
    bits = bits << jnp.arange(32, dtype=jnp.uint32)[None, :, None]
    words = jnp.sum(bits, axis=1, dtype=jnp.uint32).T
    twice = jnp.concatenate([words, words], axis=1).reshape(-1, _WORDS_AT_ONCE, 2 * num_images)

    def count(by_distance: jax.Array, twice: jax.Array) -> tuple[jax.Array, None]:
        def differing(apart: jax.Array) -> jax.Array:
            others = lax.dynamic_slice_in_dim(twice, apart, num_images, axis=1)
            unlike = lax.population_count(twice[:, :num_images] ^ others)
            return jnp.sum(unlike, axis=0, dtype=jnp.int32)

        return by_distance + lax.map(differing, jnp.arange(len(by_distance))), None

    # Every image with those up to half a round of all images ahead of it: so each pair is met.
    none = jnp.zeros((num_images // 2 + 1, num_images), jnp.int32)
    by_distance, _ = lax.scan(count, none, twice)
    image = jnp.arange(num_images)
    ahead = (image[None, :] - image[:, None]) % num_images
    earlier = jnp.where(ahead <= num_images // 2, image[:, None], image[None, :])
    return num_units - by_distance[jnp.minimum(ahead, num_images - ahead), earlier]


def grouped_switch(index: jax.Array, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """`lax.switch` whose batching rule groups by branch instead of computing every branch.

    Plain `jax.vmap` of a switch computes all branches for all rows and selects. Here the rows are
    sorted by branch, and each branch runs in blocks over its own rows: a loop whose length is known
    on the device only, so shapes are static, one program serves any indices, and at most one block
    a branch is partly idle.

    Args:
      index: which branch, int32 scalar in range.
      branches: functions of the operands with results of equal shapes and dtypes.
      *operands: pytrees of arrays, given to the chosen branch.

    Returns:
      What the chosen branch returns.
    """

    @custom_vmap
    def switch(index: jax.Array, operands: Any) -> Any:
        return lax.switch(index, branches, *operands)

    @switch.def_vmap
    def _(axis_size: int, in_batched: Any, index: jax.Array, operands: Any) -> tuple[Any, Any]:
        index_batched, operands_batched = in_batched
        axes = jax.tree.map(lambda batched: 0 if batched else None, operands_batched)
        if index_batched:
            out = _run_groups(index, branches, operands, operands_batched, axis_size)
        else:
            out = jax.vmap(lambda o: lax.switch(index, branches, *o), (axes,), axis_size=axis_size)(
                operands
            )
        return out, jax.tree.map(lambda _: True, out)

    return switch(index, operands)


def block_size(num_rows: int) -> int:
    """How many rows of a branch `grouped_switch` runs at once."""
    return max(1, num_rows // _BLOCKS_PER_GROUP_SWITCH)


def _run_groups(
    index: jax.Array,
    branches: Sequence[Callable[..., Any]],
    operands: Any,
    batched: Any,
    num_rows: int,
) -> Any:
    """Runs `branches[index[a]]` on row a of the operands for all A rows, a branch at a time."""
    block = block_size(num_rows)
    order = jnp.argsort(index)
    # A block may reach into the next group, whose own branch runs later and writes over it. Past
    # the last group it reads the last row, and what it finds is dropped.
    order = jnp.pad(order, (0, block), constant_values=num_rows)
    starts = jnp.searchsorted(jnp.sort(index), jnp.arange(len(branches) + 1))
    axes = jax.tree.map(lambda b: 0 if b else None, batched)

    def take(rows: jax.Array) -> Any:
        return jax.tree.map(
            lambda x, b: jnp.take(x, rows, axis=0, mode="clip") if b else x, operands, batched
        )

    first = jax.tree.map(lambda x, b: x[0] if b else x, operands, batched)
    shapes = jax.eval_shape(branches[0], *first)
    out = jax.tree.map(lambda s: jnp.zeros((num_rows, *s.shape), s.dtype), shapes)

    def run_group(number: int, out: Any) -> Any:
        start, stop = starts[number], starts[number + 1]

        def run_block(i: jax.Array, out: Any) -> Any:
            position = start + i * block
            rows = lax.dynamic_slice(order, (position,), (block,))
            run = jax.vmap(lambda o: branches[number](*o), (axes,), axis_size=block)
            results = run(take(rows))  # type: ignore[no-untyped-call]
            return jax.tree.map(lambda x, y: x.at[rows].set(y, mode="drop"), out, results)

        return lax.fori_loop(0, (stop - start + block - 1) // block, run_block, out)

    for number in range(len(branches)):
        out = run_group(number, out)
    return out


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


def is_differentiated(tree: Any) -> bool:
    """Whether any of what a `custom_vjp` rule with symbolic zeros got is being differentiated."""
    return any(leaf.perturbed for leaf in jax.tree.leaves(tree, is_leaf=_is_primal))


def values_of(tree: Any) -> Any:
    """The values of what a `custom_vjp` rule with symbolic zeros got."""
    return jax.tree.map(lambda leaf: leaf.value, tree, is_leaf=_is_primal)


def _is_primal(leaf: Any) -> bool:
    return isinstance(leaf, jax.custom_derivatives.CustomVJPPrimal)


# Forward branches return (output, 1 / batch deviation); the latter is used by convolutions only.


def _none(
    x: jax.Array, weights: EdgeWeights, norm: Normalise = normalise
) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros_like(x), _no_std(x)


def _skip_connect(
    x: jax.Array, weights: EdgeWeights, norm: Normalise = normalise
) -> tuple[jax.Array, jax.Array]:
    return x, _no_std(x)


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
    return avg_pool_3x3(x), _no_std(x)


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


def cotangents(operation: Any, differentiated: Any, constant: Any, dy: jax.Array) -> Any:
    """The cotangents of an operation's first arguments, from its output's, by running it again."""
    _, vjp = jax.vjp(lambda *args: operation(*args, *constant), *differentiated)
    return vjp(dy)


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
    return _box_sum(dy / _window_sizes(dy))


_BACKWARD = (
    _none_bwd,
    _skip_connect_bwd,
    _nor_conv_1x1_bwd,
    _nor_conv_3x3_bwd,
    _avg_pool_3x3_bwd,
)


def _no_std(x: jax.Array) -> jax.Array:
    return jnp.zeros(x.shape[-1:], x.dtype)


def _relu_conv_bn_bwd(
    x: jax.Array, weights: ConvBN, y: jax.Array, inverse_std: jax.Array, dy: jax.Array
) -> jax.Array:
    """Input cotangent of ReLU-Conv-BN; the normalised value is read back from the output y."""
    scale, bias = weights.scale, weights.bias
    inverse_scale = jnp.where(scale == 0, 0, 1 / scale)
    mean_dy = jnp.mean(dy, (0, 1, 2))
    mean_dy_normalised = (jnp.mean(dy * y, (0, 1, 2)) - bias * mean_dy) * inverse_scale
    gain = _per_channel(scale * inverse_std)
    slope = _per_channel(mean_dy_normalised * inverse_scale)
    dz = gain * (dy - _per_channel(mean_dy) - slope * (y - _per_channel(bias)))
    dx = convolution.input_cotangent(weights.kernel, dz)
    # Selecting the zero first is a third faster on CPUs.
    return jnp.where(x <= 0, 0, dx)


def _per_channel(v: jax.Array) -> jax.Array:
    return v.reshape(1, 1, 1, -1)


def _box_sum(x: jax.Array) -> jax.Array:
    """Sum over the 3x3 neighbourhood, an axis at a time: 3 times faster on CPUs than one window."""
    zero = x.dtype.type(0)
    for window in ((1, 3, 1, 1), (1, 1, 3, 1)):
        x = lax.reduce_window(x, zero, lax.add, window, (1, 1, 1, 1), "SAME")
    return x


def _window_sizes(x: jax.Array) -> jax.Array:
    """Pixels of the image in each 3x3 window, `[1, H, W, 1]`."""

    def along(size: int) -> jax.Array:
        position = jnp.arange(size)
        return 1 + (position > 0).astype(x.dtype) + (position < size - 1).astype(x.dtype)

    height, width = x.shape[1:3]
    return (along(height)[:, None] * along(width)[None, :]).reshape(1, height, width, 1)
