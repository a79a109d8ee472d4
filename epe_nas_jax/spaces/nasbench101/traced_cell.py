"""A traced cell, which only the device knows: one program runs any cell, and only its own work.

It is a switch by the number k of the output's parts. Within a branch there is a loop over vertices,
and in it a loop over a vertex's sources, so that a branch has one convolution of each kind for all
cells. Under `jax.vmap` cells run one after another: with its hundreds of channels, one cell keeps a
GPU busy.

The backward pass keeps the cell's input, and for each vertex the output of its batch norm or pool.
Sums and projections of the input are computed again; where weights are differentiated, everything
is.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap

from epe_nas_jax.spaces.layers.grouped_switch import is_differentiated, values_of
from epe_nas_jax.spaces.nasbench101.branch import Branch, Plan
from epe_nas_jax.spaces.nasbench101.genotype import NUM_INNER
from epe_nas_jax.spaces.nasbench101.layout import MOST_PARTS
from epe_nas_jax.spaces.nasbench101.operations import CellWeights, no_agreement


class Kept(NamedTuple):
    """What the backward pass needs besides the input, in a shape that all branches share.

    Attributes:
      vertices: the vertices as in `Branch`, flat and padded with zeros, `[5, N * H * H * O]`.
      inverse_std: inverse deviations of batch norms, padded with zeros, `[5, O]`.
    """

    vertices: jax.Array
    inverse_std: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def traced_cell(
    x: jax.Array, weights: CellWeights, plan: Plan, counts_relus: bool
) -> tuple[jax.Array, jax.Array]:
    """Runs a traced cell: `[N, H, H, C]` to `[N, H, H, O]`.

    Args:
      x: the input.
      weights: weights of every operation.
      plan: the cell.
      counts_relus: whether to count in how many ReLUs two images agree.

    Returns:
      The output, and these counts, int32 `[N, N]`, or zeros.
    """
    y, agreement, _ = _forward(x, weights, plan, counts_relus)
    return y, agreement


def _forward(
    x: jax.Array, weights: CellWeights, plan: Plan, counts_relus: bool
) -> tuple[jax.Array, jax.Array, Kept]:
    branches = [functools.partial(_run_branch, k, counts_relus) for k in range(MOST_PARTS + 1)]

    @sequential_vmap  # type: ignore[untyped-decorator]
    def run(x: Any, weights: Any, plan: Any) -> Any:
        return lax.switch(plan.layout.num_parts, branches, x, weights, plan)

    return run(x, weights, plan)


def _traced_cell_fwd(
    x: Any, weights: Any, plan: Any, counts_relus: bool
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    with_weights = is_differentiated(weights)
    x, weights, plan = values_of((x, weights, plan))
    y, agreement, kept = _forward(x, weights, plan, counts_relus)
    return (y, agreement), (x, weights, plan) if with_weights else (x, weights, plan, kept)


def _traced_cell_bwd(
    counts_relus: bool, residuals: Any, dy_and_none: Any
) -> tuple[jax.Array, CellWeights, None]:
    del counts_relus
    x, weights, plan, *kept = residuals
    dy, _ = dy_and_none
    no_gradient = jax.tree.map(jnp.zeros_like, weights)
    if isinstance(dy, jax.custom_derivatives.SymbolicZero):
        return jnp.zeros_like(x), no_gradient, None
    backward = _input_cotangent if kept else _cotangents
    branches = [functools.partial(backward, k) for k in range(MOST_PARTS + 1)]

    @sequential_vmap  # type: ignore[untyped-decorator]
    def run(x: Any, weights: Any, plan: Any, dy: Any, kept: Any) -> Any:
        return lax.switch(plan.layout.num_parts, branches, x, weights, plan, dy, *kept)

    found = run(x, weights, plan, dy, kept)
    return (found, no_gradient, None) if kept else (*found, None)


traced_cell.defvjp(_traced_cell_fwd, _traced_cell_bwd, symbolic_zeros=True)


def _run_branch(
    num_parts: int, counts_relus: bool, x: jax.Array, weights: CellWeights, plan: Plan
) -> tuple[jax.Array, jax.Array, Kept]:
    """The output of a cell of k parts, its agreement, and what the backward pass keeps."""
    branch = Branch(num_parts, counts_relus, x, weights, plan)
    vertices, inverse_std, agreement = _vertices_of(branch)

    def add_projection(y: jax.Array, agreement: jax.Array) -> tuple[jax.Array, jax.Array]:
        projected, of_projection = branch.project_to_output()
        return y + projected, agreement + of_projection

    y, agreement = lax.cond(
        plan.layout.reads_input[-1],
        add_projection,
        lambda *unchanged: unchanged,
        branch.concatenate(vertices),
        agreement,
    )
    flat = vertices.reshape(NUM_INNER, -1)
    num_left = math.prod(x.shape[:3]) * branch.channels - flat.shape[1]
    kept = Kept(
        jnp.pad(flat, ((0, 0), (0, num_left))),
        jnp.pad(inverse_std, ((0, 0), (0, branch.channels - branch.width))),
    )
    return y, agreement, kept


def _vertices_of(branch: Branch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All vertices, their inverse deviations `[5, width]`, and the agreement of their ReLUs."""
    x, layout = branch.x, branch.plan.layout
    none = no_agreement(x)

    def add(vertex: jax.Array, found: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        vertices, inverse_std, agreement = found
        total, of_projection = branch.total(vertex, vertices)
        y, deviation = branch.apply(vertex, total)
        of_vertex = lax.cond(
            branch.has_relu(vertex), lambda: branch.agreement(vertex, y), lambda: none
        )
        agreement = agreement + of_projection + of_vertex
        return vertices.at[vertex].set(y), inverse_std.at[vertex].set(deviation), agreement

    shape = (NUM_INNER, *x.shape[:3], branch.width)
    found = jnp.zeros(shape, x.dtype), jnp.zeros(shape[::4], x.dtype), none
    if not branch.num_parts:
        return found
    return lax.fori_loop(0, layout.num_vertices, add, found)


def _input_cotangent(
    num_parts: int, x: jax.Array, weights: CellWeights, plan: Plan, dy: jax.Array, kept: Kept
) -> jax.Array:
    """The cotangent of the input of a cell of k parts, from what was kept."""
    branch = Branch(num_parts, False, x, weights, plan)
    shape = (NUM_INNER, *x.shape[:3], branch.width)
    vertices = kept.vertices[:, : math.prod(shape[1:])].reshape(shape)
    inverse_std = kept.inverse_std[:, : branch.width]

    def of_vertex(
        vertex: jax.Array, d_vertex: jax.Array, dx: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        d_total = branch.cotangent(vertex, vertices, inverse_std, d_vertex)
        dx = lax.cond(
            plan.layout.reads_input[vertex],
            lambda dx: dx + branch.projection_cotangent(vertex, d_total),
            lambda dx: dx,
            dx,
        )
        return d_total, dx

    dx = lax.cond(
        plan.layout.reads_input[-1],
        branch.output_projection_cotangent,
        lambda _: jnp.zeros_like(x),
        dy,
    )
    return _back_through_vertices(branch, dy, of_vertex, dx)


def _cotangents(
    num_parts: int, x: jax.Array, weights: CellWeights, plan: Plan, dy: jax.Array
) -> tuple[jax.Array, CellWeights]:
    """The cotangents of input and weights of a cell of k parts, by running the cell again."""
    branch = Branch(num_parts, False, x, weights, plan)
    vertices, _, _ = _vertices_of(branch)

    def add_where(
        is_there: jax.Array, project: Callable[[Branch], jax.Array], dy: jax.Array, sums: Any
    ) -> Any:
        """Adds the cotangents of a projection's input and weights to the sums, if it exists."""

        def of_projection(x: jax.Array, weights: CellWeights) -> jax.Array:
            return project(branch._replace(x=x, weights=weights))

        def add(sums: Any) -> Any:
            return jax.tree.map(jnp.add, sums, jax.vjp(of_projection, x, weights)[1](dy))

        return lax.cond(is_there, add, lambda sums: sums, sums)

    def of_vertex(vertex: jax.Array, d_vertex: jax.Array, sums: Any) -> tuple[jax.Array, Any]:
        def run(total: jax.Array, weights: CellWeights) -> jax.Array:
            return nn.relu(branch._replace(weights=weights).apply(vertex, total)[0])

        _, vjp = jax.vjp(run, branch.total(vertex, vertices)[0], weights)
        d_total, d_weights = vjp(d_vertex)
        sums = sums[0], jax.tree.map(jnp.add, sums[1], d_weights)
        reads_input = plan.layout.reads_input[vertex]
        return d_total, add_where(reads_input, lambda own: own.project(vertex)[0], d_total, sums)

    zeros = jax.tree.map(jnp.zeros_like, (x, weights))
    to_output = plan.layout.reads_input[-1]
    sums = add_where(to_output, lambda own: own.project_to_output()[0], dy, zeros)
    return _back_through_vertices(branch, dy, of_vertex, sums)


def _back_through_vertices(
    branch: Branch,
    dy: jax.Array,
    of_vertex: Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]],
    sums: Any,
) -> Any:
    """Runs the backward pass of all vertices, the last one first.

    Args:
      branch: the cell.
      dy: the output's cotangent.
      of_vertex: from a vertex, the cotangent of its ReLU, and the sums so far, to the cotangent of
        the vertex's input, and the sums including this vertex.
      sums: the sums before all vertices.

    Returns:
      The sums after all vertices.
    """
    plan = branch.plan
    if not branch.num_parts:
        return sums

    def step(number: jax.Array, carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        d_vertices, sums = carry
        vertex = plan.layout.num_vertices - 1 - number
        d_total, sums = of_vertex(vertex, d_vertices[vertex], sums)

        def give(source: jax.Array, d_vertices: jax.Array) -> jax.Array:
            return d_vertices.at[plan.sources[vertex, source]].add(d_total)

        return lax.fori_loop(0, plan.num_sources[vertex], give, d_vertices), sums

    return lax.fori_loop(0, plan.layout.num_vertices, step, (branch.split(dy), sums))[1]
