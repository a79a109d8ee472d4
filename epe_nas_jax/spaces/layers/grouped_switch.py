"""A switch that stays a switch under `jax.vmap`: rows are grouped by branch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

_BLOCKS_PER_GROUP_SWITCH = 32


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

    # JAX cannot differentiate `custom_vmap` backwards. Scores do without, their gradients do not.
    differentiable = jax.custom_vjp(switch)

    def forward(index: jax.Array, operands: Any) -> tuple[Any, Any]:
        return switch(index, operands), (index, operands)

    def backward(saved: tuple[jax.Array, Any], cotangent: Any) -> tuple[None, Any]:
        index, operands = saved
        _, vjp = jax.vjp(lambda o: lax.switch(index, branches, *o), operands)
        return None, *vjp(cotangent)

    differentiable.defvjp(forward, backward)
    return differentiable(index, operands)


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


def is_differentiated(tree: Any) -> bool:
    """Whether any of what a `custom_vjp` rule with symbolic zeros got is being differentiated."""
    return any(leaf.perturbed for leaf in jax.tree.leaves(tree, is_leaf=_is_primal))


def values_of(tree: Any) -> Any:
    """The values of what a `custom_vjp` rule with symbolic zeros got."""
    return jax.tree.map(lambda leaf: leaf.value, tree, is_leaf=_is_primal)


def _is_primal(leaf: Any) -> bool:
    return isinstance(leaf, jax.custom_derivatives.CustomVJPPrimal)


def cotangents(operation: Any, differentiated: Any, constant: Any, dy: jax.Array) -> Any:
    """The cotangents of an operation's first arguments, from its output's, by running it again."""
    _, vjp = jax.vjp(lambda *args: operation(*args, *constant), *differentiated)
    return vjp(dy)
