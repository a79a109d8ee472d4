"""DARTS cells whose genotype is traced: one compiled program for any of them.

The operations of a cell run one after another in a loop; in its body a switch chooses the
operation, and its source and weights by their indices. So a cell's program has every operation
once, not once per edge, and an edge without an operation costs nothing. A reduction cell has two
loops, because its inputs are larger than its nodes.

The backward pass runs each operation again from its source. Only the nodes are kept.
"""

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from epe_nas_jax.spaces.darts.edges import (
    CELL_EDGES,
    INPUTS_PER_NODE,
    NODES,
    NUM_CELL_EDGES,
    OPERATIONS,
    OPERATIONS_OF,
)
from epe_nas_jax.spaces.darts.operations import DartsEdgeWeights, Form, apply_operation
from epe_nas_jax.spaces.layers.grouped_switch import (
    choose,
    is_differentiated,
    largest,
    switch_on_entry,
    values_of,
)
from epe_nas_jax.spaces.layers.relu_agreement import relu_agreement

_NUM_INPUTS = NODES[0]


class _Steps(NamedTuple):
    """The iterations (turns) of a loop: one for each operation, in the order of edges.

    Attributes:
      turns: how many turns the loop takes, int32.
      op: the operation of each turn, int32 `[turns]`; none after the last turn.
      source: index of the source that each turn reads, int32 `[turns]`.
      target: index of the node to which each turn adds, int32 `[turns]`.
      weights: index of the weights of each turn, int32 `[turns]`.
    """

    turns: jax.Array
    op: jax.Array
    source: jax.Array
    target: jax.Array
    weights: jax.Array


class _Loop(NamedTuple):
    """The static properties of a loop.

    Attributes:
      form: form of its operations.
      in_place: whether the nodes are among the sources, at the end of their stack.
      counts_relus: whether the agreement of second ReLUs is counted.
      is_plain: whether JAX can differentiate the loop in reverse mode: it has equally many turns
        for any cell, and under `jax.vmap` runs all operations for all cells.
    """

    form: Form
    in_place: bool
    counts_relus: bool
    is_plain: bool = False


def nodes_of_cell(
    values: jax.Array,
    inputs: Sequence[jax.Array],
    weights: Sequence[DartsEdgeWeights],
    form: Form,
    *,
    counts_relus: bool,
) -> tuple[list[jax.Array], jax.Array | None]:
    """Computes the intermediate nodes of a cell.

    Args:
      values: values of the 14 edges, as in `edges`, int32.
      inputs: nodes 0 and 1, `[N, H, H, C]`.
      weights: weights of each edge; and, if there may be pairs, for each node the weights of the
        second operation of a pair.
      form: form of the operations on the inputs.
      counts_relus: whether to count in how many second ReLUs the images agree.

    Returns:
      Nodes 2 to 5, `[N, H/stride, H/stride, C]`; and these counts, int32 `[N, N]`, or None.
    """
    stride = form.stride
    stack = jnp.stack(inputs)
    nodes = jnp.zeros_like(stack[:1, :, ::stride, ::stride])
    nodes = jnp.concatenate([nodes] * len(NODES))
    if stride == 1:
        loop = _Loop(form, in_place=True, counts_relus=counts_relus)
        steps = _steps(values, range(NODES[-1]), first_node=0)
        stack, agreement = _run(loop, steps, jnp.concatenate([stack, nodes]), None, weights)
        nodes = stack[_NUM_INPUTS:]
    else:
        loop = _Loop(form, in_place=False, counts_relus=counts_relus)
        steps = _steps(values, range(_NUM_INPUTS), first_node=_NUM_INPUTS)
        nodes, first = _run(loop, steps, nodes, stack, weights)
        loop = _Loop(form._replace(stride=1), in_place=True, counts_relus=counts_relus)
        steps = _steps(values, NODES[:-1], first_node=_NUM_INPUTS)
        nodes, second = _run(loop, steps, nodes, None, weights)
        agreement = jax.tree.map(jnp.add, first, second)
    return list(nodes), agreement


def _steps(values: jax.Array, sources: range | tuple[int, ...], *, first_node: int) -> _Steps:
    """Makes the turns of a loop over the edges that leave some sources.

    Args:
      values: values of the 14 edges.
      sources: the nodes of the stack of sources, in its order.
      first_node: the first node of the stack of nodes.
    """
    edges = [edge for edge, (source, _) in enumerate(CELL_EDGES) if source in sources]
    ends = np.array([CELL_EDGES[edge] for edge in edges], np.int32)
    num_targets = len(set(ends[:, 1]))
    # First and second operations, edge by edge.
    ops = jnp.asarray(OPERATIONS_OF)[values[np.array(edges)]].reshape(-1)
    order = jnp.argsort(ops == 0, stable=True)[: INPUTS_PER_NODE * num_targets]
    number, is_second = order // 2, order % 2 == 1
    second_weights = NUM_CELL_EDGES + ends[:, 1] - NODES[0]
    return _Steps(
        turns=jnp.count_nonzero(ops).astype(jnp.int32),
        op=ops[order],
        source=jnp.asarray(ends[:, 0] - sources[0])[number],
        target=jnp.asarray(ends[:, 1] - first_node)[number],
        weights=jnp.where(
            is_second,
            jnp.asarray(second_weights)[number],
            jnp.asarray(np.array(edges, np.int32))[number],
        ),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    loop: _Loop,
    steps: _Steps,
    nodes: jax.Array,
    inputs: jax.Array | None,
    weights: Sequence[DartsEdgeWeights],
) -> tuple[jax.Array, jax.Array | None]:
    """Adds the outputs of the operations to the nodes.

    Args:
      loop: the loop's static properties.
      steps: the loop's turns.
      nodes: the stack of nodes, `[nodes, N, H, W, C]`, zeros where nothing has been added yet.
      inputs: the stack of sources; None if the loop is in place, and the nodes are the sources.
      weights: as in `nodes_of_cell`.

    Returns:
      The stack of nodes, and the agreement of second ReLUs, int32 `[N, N]`, or None.
    """
    num_images = nodes.shape[1]
    branches = [functools.partial(_forward, op, loop) for op in range(len(OPERATIONS))]

    def run_step(i: jax.Array, carry: Any) -> Any:
        nodes, agreement = carry
        sources = nodes if inputs is None else inputs
        y, agreed = switch_on_entry(
            steps.op[i], branches, sources, steps.source[i], steps.weights[i], weights
        )
        return _add(nodes, steps.target[i], y), jax.tree.map(jnp.add, agreement, agreed)

    agreement = jnp.zeros((num_images, num_images), jnp.int32) if loop.counts_relus else None
    return lax.fori_loop(0, largest(steps.turns), run_step, (nodes, agreement))


def _run_fwd(
    loop: _Loop, steps: Any, nodes: Any, inputs: Any, weights: Any
) -> tuple[tuple[jax.Array, jax.Array | None], Any]:
    weights_too = is_differentiated(weights)
    steps, nodes, inputs, weights = values_of((steps, nodes, inputs, weights))
    nodes, agreement = _run(loop, steps, nodes, inputs, weights)
    # Residuals cannot hold a Python flag: the position of the weights in this pair is the flag.
    kept = (weights, None) if weights_too else (None, weights)
    return (nodes, agreement), (steps, nodes if inputs is None else inputs, kept)


def _run_bwd(loop: _Loop, residuals: Any, cotangents: Any) -> tuple[None, Any, Any, Any]:
    steps, sources, (differentiated, constant) = residuals
    d_nodes, _ = cotangents
    if isinstance(d_nodes, jax.custom_derivatives.SymbolicZero):
        return None, None, None, None
    weights_too = differentiated is not None
    weights = differentiated if weights_too else constant
    return None, *_run_back(loop, weights_too, steps, sources, d_nodes, weights)


_run.defvjp(_run_fwd, _run_bwd, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run_back(
    loop: _Loop,
    weights_too: bool,
    steps: _Steps,
    sources: jax.Array,
    d_nodes: jax.Array,
    weights: Sequence[DartsEdgeWeights],
) -> tuple[jax.Array, jax.Array | None, list[DartsEdgeWeights] | None]:
    """The cotangents of the arguments of `_run`, from that of the nodes that it returns.

    Args:
      loop: the loop's static properties.
      weights_too: whether to return the cotangents of the weights.
      steps: the loop's turns.
      sources: the stack of sources.
      d_nodes: the cotangent of the stack of nodes.
      weights: the weights of all edges.

    Returns:
      The cotangents of the nodes, of the inputs or None, and of the weights or None.
    """
    branches = [
        functools.partial(_backward, op, loop, weights_too) for op in range(len(OPERATIONS))
    ]
    switch = functools.partial(switch_on_entry, is_plain=loop.is_plain)
    turns = len(steps.op) if loop.is_plain else largest(steps.turns)

    def run_step(i: jax.Array, carry: Any) -> Any:
        # The last operation first, so that a node's cotangent is complete when it is needed.
        step = turns - 1 - i
        d_nodes, d_sources, d_weights = carry
        dy = lax.dynamic_index_in_dim(d_nodes, steps.target[step], keepdims=False)
        source = steps.source[step]
        dx, d_own = switch(
            steps.op[step], branches, sources, source, steps.weights[step], weights, dy
        )
        d_weights = jax.tree.map(lambda all_, own: _add(all_, step, own), d_weights, d_own)
        if loop.in_place:
            return _add(d_nodes, source, dx), None, d_weights
        return d_nodes, _add(d_sources, source, dx), d_weights

    zeros = None
    if weights_too:
        shapes = jax.eval_shape(lambda: _no_gradient(weights))
        zeros = jax.tree.map(lambda s: jnp.zeros((len(steps.op), *s.shape), s.dtype), shapes)
    d_sources = None if loop.in_place else jnp.zeros_like(sources)
    d_nodes, d_sources, d_weights = lax.fori_loop(0, turns, run_step, (d_nodes, d_sources, zeros))
    return d_nodes, d_sources, _of_edges(d_weights, steps, weights) if weights_too else None


def _run_back_fwd(loop: _Loop, weights_too: bool, *arguments: Any) -> tuple[Any, Any]:
    return _run_back(loop, weights_too, *arguments), arguments


def _run_back_bwd(
    loop: _Loop, weights_too: bool, arguments: Any, cotangents: Any
) -> tuple[None, Any, Any, Any]:
    steps, *differentiated = arguments
    plain = functools.partial(_run_back.fun, loop._replace(is_plain=True), weights_too, steps)
    return None, *jax.vjp(plain, *differentiated)[1](cotangents)


# JAX has no reverse mode for `custom_vmap` and for loops of unknown length.
_run_back.defvjp(_run_back_fwd, _run_back_bwd)


def _forward(
    op: int, loop: _Loop, x: jax.Array, which: jax.Array, weights: Sequence[DartsEdgeWeights]
) -> tuple[jax.Array, jax.Array | None]:
    """The output of an operation, and the agreement of its second ReLU, or None if not counted."""
    y, inner = apply_operation(op, x, _own_weights(op, loop, which, weights), loop.form)
    if not loop.counts_relus:
        return y, None
    if inner is None:
        return y, jnp.zeros((len(x), len(x)), jnp.int32)
    return y, relu_agreement(inner)


def _backward(
    op: int,
    loop: _Loop,
    weights_too: bool,
    x: jax.Array,
    which: jax.Array,
    weights: Sequence[DartsEdgeWeights],
    dy: jax.Array,
) -> tuple[jax.Array, DartsEdgeWeights | None]:
    """The cotangents of an operation's input and, if requested, of its edge's weights."""
    own = _own_weights(op, loop, which, weights)
    if not weights_too:
        _, vjp = jax.vjp(lambda x: apply_operation(op, x, own, loop.form)[0], x)
        return vjp(dy)[0], None
    _, vjp = jax.vjp(lambda x, own: apply_operation(op, x, own, loop.form)[0], x, own)
    dx, d_own = vjp(dy)
    is_own = {name: field for name, field in d_own._asdict().items() if field is not None}
    return dx, _no_gradient(weights)._replace(**is_own)


def _own_weights(
    op: int, loop: _Loop, which: jax.Array, weights: Sequence[DartsEdgeWeights]
) -> DartsEdgeWeights:
    """Chooses an operation's weights from those of all edges, without copying the others."""
    name = OPERATIONS[op]
    found = [getattr(edge, name, None) for edge in weights]
    some = next((own for own in found if own is not None), None)
    if some is None:
        return DartsEdgeWeights()
    # An edge without these weights cannot have the operation, so that any others may stand there.
    choices = [some if own is None else own for own in found]
    return DartsEdgeWeights(**{name: choose(which, choices, is_plain=loop.is_plain)})


def _no_gradient(weights: Sequence[DartsEdgeWeights]) -> DartsEdgeWeights:
    """Zeros in the shapes of the weights of one edge."""

    def zeros(name: str) -> Any:
        found = (getattr(edge, name) for edge in weights)
        some = next((own for own in found if own is not None), None)
        return jax.tree.map(jnp.zeros_like, some)

    return DartsEdgeWeights(*map(zeros, DartsEdgeWeights._fields))


def _of_edges(
    d_weights: DartsEdgeWeights, steps: _Steps, weights: Sequence[DartsEdgeWeights]
) -> list[DartsEdgeWeights]:
    """The cotangents of the weights of all edges, from those of each turn `[turns, ...]`."""

    def sums(of_turns: jax.Array) -> jax.Array:
        zeros = jnp.zeros((len(weights), *of_turns.shape[1:]), of_turns.dtype)
        return zeros.at[steps.weights].add(of_turns)

    of_edges = jax.tree.map(sums, d_weights)
    return [
        DartsEdgeWeights(
            *(
                None if own is None else jax.tree.map(operator.itemgetter(i), summed)
                for own, summed in zip(edge, of_edges, strict=True)
            )
        )
        for i, edge in enumerate(weights)
    ]


def _add(stack: jax.Array, i: jax.Array, x: jax.Array) -> jax.Array:
    """Adds x to entry i of a stack."""
    entry = lax.dynamic_index_in_dim(stack, i, keepdims=False)
    return lax.dynamic_update_index_in_dim(stack, entry + x, i, axis=0)
