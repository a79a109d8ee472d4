"""The pieces of a traced cell, for one number k of the output's parts.

For one k, all vertices are built with the same static number of channels. Where k does not divide
the output's channels, a narrow vertex has one channel too many, which nothing reads: kernels are
zero there, and the output takes the first channels of its parts.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from epe_nas_jax.spaces.layers.conv_bn import ConvBN
from epe_nas_jax.spaces.layers.pooling import max_pool_3x3, max_pool_3x3_cotangent
from epe_nas_jax.spaces.layers.relu_agreement import relu_agreement
from epe_nas_jax.spaces.nasbench101.genotype import NUM_INNER, OPERATIONS
from epe_nas_jax.spaces.nasbench101.layout import Layout, widths
from epe_nas_jax.spaces.nasbench101.operations import (
    POOL,
    CellWeights,
    conv_bn,
    conv_bn_relu_cotangent,
    leading,
    no_agreement,
)


class Plan(NamedTuple):
    """A traced layout, with the indices over which the loops of a cell run.

    Attributes:
      layout: the cell.
      sources: for each vertex, the inner vertices that it reads, then the others, int `[5, 5]`.
      num_sources: how many inner vertices each vertex reads, int `[5]`.
      parts: the inner vertices that the output concatenates, then the others, int `[5]`.
    """

    layout: Layout
    sources: jax.Array
    num_sources: jax.Array
    parts: jax.Array


def plan_of(layout: Layout) -> Plan:
    """Computes the indices over which the loops of a traced cell run."""
    sources = jnp.argsort(~layout.edges, axis=0, stable=True).T
    parts = jnp.argsort(~layout.is_part, stable=True)
    return Plan(layout, sources, jnp.sum(layout.edges, axis=0), parts)


class Branch(NamedTuple):
    """A traced cell whose output has k parts.

    In its methods `vertex` is a traced index from 0, and `vertices` are the outputs of the
    vertices' batch norms and pools, `[5, N, H, H, width]`.

    Attributes:
      num_parts: k.
      counts_relus: whether to count in how many ReLUs two images agree.
      x: the input, `[N, H, H, C]`.
      weights: weights of every operation.
      plan: the cell.
    """

    num_parts: int
    counts_relus: bool
    x: jax.Array
    weights: CellWeights
    plan: Plan

    @property
    def channels(self) -> int:
        """O, the channels of the cell's output."""
        to_output = self.weights.projections[-1]
        assert to_output is not None
        return to_output.kernel.shape[-1]

    @property
    def width(self) -> int:
        """Channels of the widest inner vertex."""
        return -(-self.channels // max(self.num_parts, 1))

    def total(self, vertex: jax.Array, vertices: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The sum that a vertex reads, and the ReLU agreement of its projection of the input."""

        def nothing() -> tuple[jax.Array, jax.Array]:
            return jnp.zeros(vertices.shape[1:], vertices.dtype), no_agreement(self.x)

        def add(number: jax.Array, total: jax.Array) -> jax.Array:
            return total + nn.relu(vertices[self.plan.sources[vertex, number]])

        reads_input = self.plan.layout.reads_input[vertex]
        total, agreement = lax.cond(reads_input, lambda: self.project(vertex), nothing)
        return lax.fori_loop(0, self.plan.num_sources[vertex], add, total), agreement

    def apply(self, vertex: jax.Array, total: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Applies a vertex's convolution with batch norm, or its pool.

        Returns:
          The output and the inverse deviation `[width]`.
        """

        def convolve(operation: int) -> tuple[jax.Array, jax.Array]:
            return conv_bn(total, self._convolution(operation, vertex))

        def pool() -> tuple[jax.Array, jax.Array]:
            return max_pool_3x3(total), jnp.zeros(total.shape[-1:], total.dtype)

        return self._switch_by_operation(vertex, convolve, pool)

    def cotangent(
        self, vertex: jax.Array, vertices: jax.Array, inverse_std: jax.Array, dy: jax.Array
    ) -> jax.Array:
        """The cotangent of the sum that a vertex reads, from that of the vertex's ReLU.

        Args:
          vertex: the vertex.
          vertices: all vertices of the forward pass.
          inverse_std: inverse deviations of all vertices, `[5, width]`.
          dy: the cotangent of the vertex's ReLU, `[N, H, H, width]`.
        """
        y = vertices[vertex]

        def convolve(operation: int) -> jax.Array:
            weights = self._convolution(operation, vertex)
            return conv_bn_relu_cotangent(weights, y, inverse_std[vertex], dy)

        def pool() -> jax.Array:
            return max_pool_3x3_cotangent(self.total(vertex, vertices)[0], dy)

        return self._switch_by_operation(vertex, convolve, pool)

    def project(self, vertex: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The input's projection to a vertex, and the agreement of its ReLUs."""
        y, _ = conv_bn(self.x, self._projection(vertex))
        return nn.relu(y), self.agreement(vertex, y)

    def projection_cotangent(self, vertex: jax.Array, dy: jax.Array) -> jax.Array:
        """The input's cotangent, from that of its projection to a vertex."""
        weights = self._projection(vertex)
        return conv_bn_relu_cotangent(weights, *conv_bn(self.x, weights), dy)

    def project_to_output(self) -> tuple[jax.Array, jax.Array]:
        """The input's projection to the output, and the agreement of its ReLUs."""
        y, _ = conv_bn(self.x, self._to_output)
        return nn.relu(y), relu_agreement(y) if self.counts_relus else no_agreement(y)

    def output_projection_cotangent(self, dy: jax.Array) -> jax.Array:
        """The input's cotangent, from that of its projection to the output."""
        return conv_bn_relu_cotangent(self._to_output, *conv_bn(self.x, self._to_output), dy)

    def concatenate(self, vertices: jax.Array) -> jax.Array:
        """Concatenates the output's parts, `[N, H, H, O]`."""
        if not self.num_parts:
            return jnp.zeros((*self.x.shape[:3], self.channels), self.x.dtype)
        parts = [
            nn.relu(vertices[self.plan.parts[part]][..., :width])
            for part, width in enumerate(self._part_widths)
        ]
        return jnp.concatenate(parts, axis=-1)

    def split(self, dy: jax.Array) -> jax.Array:
        """The cotangents of all vertices' ReLUs, `[5, N, H, H, width]`, from the output's."""
        split = jnp.zeros((NUM_INNER, *dy.shape[:3], self.width), dy.dtype)
        first = 0
        for part, width in enumerate(self._part_widths):
            own = dy[..., first : first + width]
            padded = jnp.pad(own, (*[(0, 0)] * 3, (0, self.width - width)))
            split = split.at[self.plan.parts[part]].set(padded)
            first += width
        return split

    def agreement(self, vertex: jax.Array, y: jax.Array) -> jax.Array:
        """Counts in how many ReLUs images agree, `[N, N]`; the ReLUs read y, a vertex's values."""
        if not self.counts_relus:
            return no_agreement(y)
        # In a channel that only pads, all images agree; these do not count.
        num_none = (self.width - self._own_width(vertex)) * y.shape[1] * y.shape[2]
        return relu_agreement(y) - num_none.astype(jnp.int32)

    def has_relu(self, vertex: jax.Array) -> jax.Array:
        """Whether a vertex ends in a ReLU of its own."""
        return self.plan.layout.operations[vertex] != POOL

    @property
    def _part_widths(self) -> list[int]:
        return [widths(part, self.num_parts, self.channels) for part in range(self.num_parts)]

    @property
    def _to_output(self) -> ConvBN:
        projection = self.weights.projections[-1]
        assert projection is not None
        return projection

    def _own_width(self, vertex: jax.Array) -> jax.Array:
        return widths(self.plan.layout.ranks[vertex], self.num_parts, self.channels)

    def _convolution(self, operation: int, vertex: jax.Array) -> ConvBN:
        """A vertex's weights, with zeros in the kernel for a channel that only pads."""
        of_vertices = self.weights.convolutions[operation]
        picked = self._pick(of_vertices, vertex, self.width)
        own = self._own_width(vertex)
        is_own = jnp.arange(self.width) < own
        # Rescales the kernel from `width` inputs to the vertex's own.
        gain = jnp.sqrt(self.width / own).astype(picked.kernel.dtype)
        mask = jnp.where(is_own[:, None] & is_own[None, :], gain, 0)
        return picked._replace(kernel=picked.kernel * mask[None, None])

    def _projection(self, vertex: jax.Array) -> ConvBN:
        picked = self._pick(self.weights.projections[:-1], vertex, self.x.shape[-1])
        is_own = jnp.arange(self.width) < self._own_width(vertex)
        return picked._replace(kernel=picked.kernel * is_own[None, None, None])

    def _pick(
        self, of_vertices: tuple[ConvBN | None, ...], vertex: jax.Array, channels_in: int
    ) -> ConvBN:
        take = [
            functools.partial(leading, weights, channels_in, self.width)
            for weights in of_vertices
            if weights is not None
        ]
        return lax.switch(vertex, take)

    def _switch_by_operation(self, vertex: jax.Array, convolve: Any, pool: Any) -> Any:
        branches = [
            pool if number == POOL else functools.partial(convolve, number)
            for number in range(len(OPERATIONS))
        ]
        return lax.switch(self.plan.layout.operations[vertex], branches)
