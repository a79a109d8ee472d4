"""What cells of NAS-Bench-201 and micro cells of TransNAS-Bench-101 share: nodes and edges.

Each of four nodes has an edge to every later one. A genotype has the operation's index for every
edge in `EDGES` order; a space may know the first of the `OPERATIONS` only. E is 6 here.
"""

import numpy as np

from epe_nas_jax.spaces.base import CellGraph, GraphEdge, GraphNode

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
KERNEL_SIZES = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NUM_NODES = 4

# The four ways through a cell, as indices of their edges.
_WAYS = ([3], [0, 4], [1, 5], [0, 2, 5])
# Time of each operation on a CPU core, roughly.
_RELATIVE_WORK = np.array([1, 1, 3, 9, 2])
_KINDS = ("", "skip", "conv", "conv", "pool")
_NODES = (
    GraphNode("in", 150, 34),
    GraphNode("1", 64, 158),
    GraphNode("2", 236, 214),
    GraphNode("out", 150, 338),
)
# The edge from input to output would run through the others.
_BENDS = {(0, 3): (462.0, 186.0)}


def prune_dead(genotypes: np.ndarray) -> np.ndarray:
    """Genotypes, int `[..., E]`, with every operation on no path from input to output set to none.

    Such an operation changes neither the output nor the input Jacobian: what comes from a node
    without inputs is zero at the initial weights, batch norm's offset being zero.
    """
    rows = np.asarray(genotypes)
    is_real = rows != 0
    is_live = np.zeros(rows.shape, bool)
    for way in _WAYS:
        is_live[..., way] |= np.all(is_real[..., way], axis=-1, keepdims=True)
    return np.where(is_live, rows, 0)


def has_path(genotypes: np.ndarray) -> np.ndarray:
    """Whether real operations lead from input to output: bool `[...]` of genotypes `[..., E]`."""
    return np.any(prune_dead(genotypes) != 0, axis=-1)


def relative_work(genotypes: np.ndarray) -> np.ndarray:
    """How long genotypes, int `[A, E]`, take to score, in any unit: `[A]`."""
    return _RELATIVE_WORK[genotypes].sum(axis=1)


def graphs(genotype: np.ndarray) -> tuple[CellGraph, ...]:
    """What a genotype, int `[E]`, looks like: one graph, without edges that have no operation."""
    is_live = prune_dead(genotype) != 0
    edges = [
        GraphEdge(*edge, OPERATIONS[op], _KINDS[op], live, _BENDS.get(edge))
        for edge, op, live in zip(EDGES, genotype, is_live, strict=True)
        if op
    ]
    return (CellGraph("", 372, 372, _NODES, tuple(edges)),)
