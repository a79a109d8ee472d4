"""Draws a NAS-Bench-101 cell: a row for each vertex, from the sum that it reads to its value.

The operation is the edge between these two. Edges from the input to later vertices run down lanes
on the left, edges from other vertices lanes on the right, one lane for each target.
"""

import numpy as np

from epe_nas_jax.spaces.base import CellGraph, GraphEdge, GraphNode
from epe_nas_jax.spaces.nasbench101.genotype import as_written, live_vertices, matrices

_LEFT, _RIGHT, _WIDTH = 110, 300, 410
_FIRST, _ROW = 34, 90
# Distance from a node to the nearest lane, between lanes, and from a sum to the edges that enter.
_TO_LANE, _LANE, _TO_ENTRY = 36, 10, 34
# How far below a node a line has reached its lane, how far above a sum it leaves the lane, and how
# far above the sum it enters.
_INTO_LANE, _ABOVE, _ENTRY = 34, 50, 22


def graphs(genotype: np.ndarray) -> tuple[CellGraph, ...]:
    """The graph of a genotype, int `[E]`; its live edges are those on a path to the output."""
    row = np.asarray(genotype)
    matrix, labels = as_written(row)
    live = live_vertices(matrices(row)[0])
    last = len(labels) - 1
    is_live = [*live[:last], live[-1]]
    nodes = [GraphNode("in", _LEFT, _FIRST)]
    edges = []
    # For each vertex, the index of the node of the sum that it reads, and of the node of its value.
    sums, values = {}, {0: 0}
    for vertex in range(1, last + 1):
        y = _FIRST + _ROW * vertex
        sums[vertex] = len(nodes)
        if vertex == last:
            nodes.append(GraphNode("out", _LEFT, y))
            continue
        nodes += [GraphNode("+", _LEFT, y), GraphNode(str(vertex), _RIGHT, y)]
        values[vertex] = sums[vertex] + 1
        name = labels[vertex].split("-")[0]
        kind = "pool" if "pool" in name else "conv"
        edges.append(GraphEdge(sums[vertex], values[vertex], name, kind, bool(is_live[vertex])))
    for source, target in np.argwhere(matrix).tolist():
        is_on_path = bool(is_live[source] and is_live[target])
        ends = values[source], sums[target]
        edges.append(GraphEdge(*ends, "", "skip", is_on_path, via=_way(source, target)))
    return (CellGraph("", _WIDTH, 2 * _FIRST + _ROW * last, tuple(nodes), tuple(edges)),)


def _way(source: int, target: int) -> tuple[tuple[float, float], ...]:
    """The points through which the line from a vertex to one of its targets runs."""
    top, bottom = _FIRST + _ROW * source, _FIRST + _ROW * target
    side = -1 if source == 0 else 1
    entry = (_LEFT + side * _TO_ENTRY, bottom - _ENTRY)
    if target == source + 1:
        return () if source == 0 else (entry,)
    lane = (_RIGHT if source else _LEFT) + side * (_TO_LANE + _LANE * (target - 1))
    return ((lane, top + _INTO_LANE), (lane, bottom - _ABOVE), entry)
