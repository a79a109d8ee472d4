"""A switch that stays a switch under `jax.vmap`: rows are grouped by branch."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

_BLOCKS_PER_GROUP_SWITCH = 32


def grouped_switch(index: jax.Array, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """A `lax.switch` whose batching rule groups by branch instead of computing every branch.

    Plain `jax.vmap` of a switch computes all branches for all rows and selects. Here the rows are
    sorted by branch, and each branch runs in blocks over its own rows: a loop whose length is known
    only on the device. So shapes are static, one program is enough for any indices, and at most one
    block per branch is partly empty.

    Args:
      index: index of the branch, int32 scalar in range.
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

    # JAX has no reverse mode for `custom_vmap`: scores do not need it, their gradients do.
    differentiable = jax.custom_vjp(switch)

    def forward(index: jax.Array, operands: Any) -> tuple[Any, Any]:
        return switch(index, operands), (index, operands)

    def backward(saved: tuple[jax.Array, Any], cotangent: Any) -> tuple[None, Any]:
        index, operands = saved
        _, vjp = jax.vjp(lambda o: lax.switch(index, branches, *o), operands)
        return None, *vjp(cotangent)

    differentiable.defvjp(forward, backward)
    return differentiable(index, operands)


def switch_by_rules(
    index: jax.Array,
    forward: Sequence[Callable[..., Any]],
    backward: Sequence[Callable[..., Any]] | None,
    x: jax.Array,
    weights: Any,
) -> jax.Array:
    """A `grouped_switch` of operations whose inputs are differentiated by hand-written rules.

    Then only the input, the output and what the rules need is kept. Where weights are
    differentiated too, or there are no rules, the backward pass runs the operation again.

    Args:
      index: index of the operation, int32 scalar in range.
      forward: functions from x and weights to the output and what the rules need.
      backward: functions from x, weights, these two results and the output's cotangent to the
        cotangent of x; None if there are no rules.
      x: the input.
      weights: the weights of all operations, a pytree.

    Returns:
      The output.
    """

    @jax.custom_vjp
    def run(index: jax.Array, x: jax.Array, weights: Any) -> jax.Array:
        return grouped_switch(index, forward, x, weights)[0]

    def run_forward(index: Any, x: Any, weights: Any) -> tuple[jax.Array, Any]:
        by_rules = backward is not None and not is_differentiated(weights)
        index, x, weights = values_of((index, x, weights))
        results = grouped_switch(index, forward, x, weights)
        return results[0], (index, x, weights, results if by_rules else ())

    def run_backward(residuals: Any, dy: Any) -> tuple[None, jax.Array, Any]:
        index, x, weights, results = residuals
        if isinstance(dy, jax.custom_derivatives.SymbolicZero):
            return None, jnp.zeros_like(x), None
        if backward is None or not results:
            again = [functools.partial(cotangents, _first_result(branch)) for branch in forward]
            return None, *grouped_switch(index, again, (x, weights), (), dy)
        dx = grouped_switch(index, backward, x, weights, *results, dy)
        return None, dx, jax.tree.map(jnp.zeros_like, weights)

    run.defvjp(run_forward, run_backward, symbolic_zeros=True)
    return run(index, x, weights)


def _first_result(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: function(*arguments)[0]


def switch_on_entry(
    index: jax.Array,
    branches: Sequence[Callable[..., Any]],
    stack: jax.Array,
    entry: jax.Array,
    *operands: Any,
    is_plain: bool = False,
) -> Any:
    """A `grouped_switch` of branches whose first argument is an entry of a stack.

    Without `jax.vmap` a branch reads the stack itself, and nothing is copied. In groups the entries
    are taken first, so that the groups do not copy whole stacks.

    Args:
      index: index of the branch, int32 scalar in range.
      branches: functions of an entry and the operands.
      stack: the array of entries, along the first axis.
      entry: index of the entry, int32 scalar in range.
      *operands: pytrees of arrays, given to the chosen branch.
      is_plain: do not group, so that JAX can differentiate it in reverse mode.

    Returns:
      What the chosen branch returns.
    """

    def take(stack: jax.Array, entry: jax.Array) -> jax.Array:
        return lax.dynamic_index_in_dim(stack, entry, keepdims=False)

    def switch(index: jax.Array, stack: jax.Array, entry: jax.Array, operands: Any) -> Any:
        def on_stack(branch: Callable[..., Any]) -> Callable[..., Any]:
            return lambda: branch(take(stack, entry), *operands)

        return lax.switch(index, [on_stack(branch) for branch in branches])

    def of_row(index: jax.Array, stack: jax.Array, entry: jax.Array, operands: Any) -> Any:
        return grouped_switch(index, branches, take(stack, entry), *operands)

    if not is_plain:
        switch = _with_rule(switch, of_row)
    return switch(index, stack, entry, operands)


def choose(which: jax.Array, choices: Sequence[Any], *, is_plain: bool = False) -> Any:
    """Chooses one of some pytrees of equal shapes, without copying the others.

    Args:
      which: index of the chosen one, int32 scalar in range.
      choices: the pytrees.
      is_plain: as in `switch_on_entry`.
    """

    def switch(which: jax.Array, choices: Sequence[Any]) -> Any:
        return lax.switch(which, [functools.partial(lambda own: own, own) for own in choices])

    # Under `jax.vmap` a switch would copy all choices and select.
    def of_row(which: jax.Array, choices: Sequence[Any]) -> Any:
        def take(*own: jax.Array) -> jax.Array:
            return lax.dynamic_index_in_dim(jnp.stack(own), which, keepdims=False)

        return jax.tree.map(take, *choices)

    return (switch if is_plain else _with_rule(switch, of_row))(which, choices)


@custom_vmap
def largest(number: jax.Array) -> jax.Array:
    """Returns a number; under `jax.vmap` the largest number of all rows, for every row."""
    return number


@largest.def_vmap
def _(axis_size: int, in_batched: list[bool], number: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size, in_batched
    return jnp.max(number), False


def _with_rule(alone: Callable[..., Any], of_row: Callable[..., Any]) -> Callable[..., Any]:
    """A function that computes rows under `jax.vmap` in another way than without."""
    function = custom_vmap(alone)

    @function.def_vmap
    def _(axis_size: int, in_batched: Any, *arguments: Any) -> tuple[Any, Any]:
        axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)
        out = jax.vmap(of_row, tuple(axes), axis_size=axis_size)(*arguments)
        return out, jax.tree.map(lambda _: True, out)

    return function


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
    """Runs `branches[index[a]]` on row a of the operands for all A rows, branch by branch."""
    block = block_size(num_rows)
    order = jnp.argsort(index)
    # A block may reach into the next group, whose own branch runs later and overwrites the result.
    # Past the last group it reads the last row, and the result is dropped.
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
    """Whether any argument of a `custom_vjp` rule with symbolic zeros is being differentiated."""
    return any(leaf.perturbed for leaf in jax.tree.leaves(tree, is_leaf=_is_primal))


def values_of(tree: Any) -> Any:
    """The values of the arguments of a `custom_vjp` rule with symbolic zeros."""
    return jax.tree.map(lambda leaf: leaf.value, tree, is_leaf=_is_primal)


def _is_primal(leaf: Any) -> bool:
    return isinstance(leaf, jax.custom_derivatives.CustomVJPPrimal)


def cotangents(operation: Any, differentiated: Any, constant: Any, dy: jax.Array) -> Any:
    """The cotangents of an operation's first arguments, computed by running it again.

    Args:
      operation: a function of the arguments below.
      differentiated: the first arguments.
      constant: the further arguments.
      dy: the output's cotangent.
    """
    _, vjp = jax.vjp(lambda *args: operation(*args, *constant), *differentiated)
    return vjp(dy)
