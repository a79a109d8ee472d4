"""Nodes and edges that cells of NAS-Bench-201 and TransNAS-Bench-101 (micro) share.

Each of four nodes has an edge to every later one. A genotype has the operation's index for every
edge, in `EDGES` order; a space may have only the first of the `OPERATIONS`. E is 6 here.
"""

import numpy as np

from epe_nas_jax.spaces.base import CellGraph, GraphEdge, GraphNode

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
KERNEL_SIZES = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NUM_NODES = 4

# The four paths through a cell, as indices of their edges.
_WAYS = ([3], [0, 4], [1, 5], [0, 2, 5])
# Approximate time of each operation on a CPU core.
_RELATIVE_WORK = np.array([1, 1, 3, 9, 2])
_KINDS = ("", "skip", "conv", "conv", "pool")
_NODES = (
    GraphNode("in", 150, 34),
    GraphNode("1", 64, 158),
    GraphNode("2", 236, 214),
    GraphNode("out", 150, 338),
)
# A straight edge from input to output would cross the others.
_BENDS = {(0, 3): (462.0, 186.0)}


def prune_dead(genotypes: np.ndarray) -> np.ndarray:
    """Sets every operation of genotypes, int `[..., E]`, on no path from input to output to none.

    Such an operation changes neither the output nor the input Jacobian: a node without inputs is
    zero, and at the initial weights, with batch norm offsets of zero, so is all that it leads to.
    """
    rows = np.asarray(genotypes)
    is_real = rows != 0
    is_live = np.zeros(rows.shape, bool)
    for way in _WAYS:
        is_live[..., way] |= np.all(is_real[..., way], axis=-1, keepdims=True)
    return np.where(is_live, rows, 0)


def has_path(genotypes: np.ndarray) -> np.ndarray:
    """Whether operations other than none lead from input to output: `[..., E]` to bool `[...]`."""
    return np.any(prune_dead(genotypes) != 0, axis=-1)


def relative_work(genotypes: np.ndarray) -> np.ndarray:
    """How long genotypes, int `[A, E]`, take to score, in any unit: `[A]`."""
    return _RELATIVE_WORK[genotypes].sum(axis=1)


def graphs(genotype: np.ndarray) -> tuple[CellGraph, ...]:
    """The graph of a genotype, int `[E]`, without edges that have no operation."""
    is_live = prune_dead(genotype) != 0
    edges = [
        GraphEdge(*edge, OPERATIONS[op], _KINDS[op], live, _BENDS.get(edge))
        for edge, op, live in zip(EDGES, genotype, is_live, strict=True)
        if op
    ]
    return (CellGraph("", 372, 372, _NODES, tuple(edges)),)
