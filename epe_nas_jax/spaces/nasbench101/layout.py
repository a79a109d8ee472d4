"""The layout of a cell: what its vertices read, and how many channels they have.

The output concatenates its parts: the k vertices, other than the input, with an edge to it. Of its
O channels the first O mod k parts have ceil(O / k) each, the others floor(O / k). Any other vertex
has as many channels as its widest target, and a vertex reads the first channels of a wider source
(Ying et al. 2019, section 2.2, and their code). So channels never grow along an edge, and all
vertices of a cell have ceil(O / k) channels or one less.
"""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from epe_nas_jax.spaces.nasbench101.genotype import NUM_INNER, live_form, matrices

# Each part needs an edge that enters it and one that leaves it, and a cell has at most 9 edges.
MOST_PARTS = 4


class Layout(NamedTuple):
    """The live form of cells `[...]`, static or traced; its 5 inner vertices are numbered from 0.

    Attributes:
      operations: operation of each vertex, int `[..., 5]`.
      edges: whether an edge leads from one vertex to another, bool `[..., 5, 5]`.
      reads_input: whether each vertex and, at the end, the output reads the input, bool `[..., 6]`.
      is_part: whether a vertex has an edge to the output, bool `[..., 5]`.
      ranks: number of the first part to which a vertex leads, itself included, int `[..., 5]`.
    """

    operations: Any
    edges: Any
    reads_input: Any
    is_part: Any
    ranks: Any

    @property
    def num_vertices(self) -> Any:
        """How many inner vertices a cell has, int `[...]`; they come first of the 5."""
        return (self.edges.any(axis=-2) | self.reads_input[..., :-1]).sum(axis=-1)

    @property
    def num_parts(self) -> Any:
        """The number k of the output's parts, int `[...]`."""
        return self.is_part.sum(axis=-1)


def layout_of(genotypes: Any, xp: ModuleType = np) -> Layout:
    """Computes the layout of genotypes, int `[..., E]`.

    Args:
      genotypes: the cells.
      xp: `numpy`, or `jax.numpy` for a traced genotype.
    """
    matrix, operations = live_form(*matrices(genotypes, xp), xp)
    edges = matrix[..., 1:-1, 1:-1]
    is_part = matrix[..., 1:-1, -1]
    own = xp.cumsum(is_part, axis=-1) - 1
    ranks: dict[int, Any] = {}
    for vertex in reversed(range(NUM_INNER)):
        rank = xp.full(own.shape[:-1], NUM_INNER, own.dtype)
        for target in range(vertex + 1, NUM_INNER):
            leads = edges[..., vertex, target]
            rank = xp.where(leads, xp.minimum(rank, ranks[target]), rank)
        ranks[vertex] = xp.where(is_part[..., vertex], own[..., vertex], rank)
    in_order = xp.stack([ranks[vertex] for vertex in range(NUM_INNER)], axis=-1)
    return Layout(operations, edges, matrix[..., 0, 1:], is_part, in_order)


def widths(ranks: Any, num_parts: Any, channels: int) -> Any:
    """How many channels vertices have.

    Args:
      ranks: as `Layout.ranks`.
      num_parts: k, of a shape that broadcasts with the ranks.
      channels: O.
    """
    return channels // num_parts + (ranks < channels % num_parts)
