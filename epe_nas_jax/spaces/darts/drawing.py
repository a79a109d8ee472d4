"""Draws the two cells of a DARTS genotype so that labels cover neither labels nor other edges.

The nodes stand below each other. Above each node that has inputs are two places for the labels of
its operations, left and right. An edge that passes other nodes runs down a lane beside the labels:
each node has a lane of its own on each side, and the edges to the output share the outermost one.
"""

from collections.abc import Sequence

import numpy as np

from epe_nas_jax.spaces.base import CellGraph, GraphEdge, GraphNode
from epe_nas_jax.spaces.darts import edges as cells
from epe_nas_jax.spaces.darts.genotype import prune_dead

_TITLES = ("normal cell", "reduction cell")
_KINDS = {"skip": "skip", "sep": "conv", "dil": "conv", "max": "pool", "avg": "pool"}

_WIDTH, _HEIGHT = 366, 640
_MIDDLE = 174
# Distance from the middle to the labels, to the lane of node 3, and to the lane of the output.
_TO_LABEL, _TO_LANE, _TO_OUTPUT_LANE = 58, 124, 180
_LANE = 18
_FIRST, _ROW = 144, 122
_ABOVE_NODE = 50
# How far below a node an edge has reached its lane, and how far below a node it leaves the lane.
_INTO_LANE, _OUT_OF_LANE = 60, 20

_NODES = (
    GraphNode("k-2", _MIDDLE - _TO_LABEL, 30),
    GraphNode("k-1", _MIDDLE + _TO_LABEL, 30),
    *(GraphNode(str(node), _MIDDLE, _FIRST + _ROW * row) for row, node in enumerate(cells.NODES)),
    GraphNode("out", _MIDDLE, _HEIGHT - 34),
)
_OUTPUT = len(_NODES) - 1


def graphs(genotype: np.ndarray) -> tuple[CellGraph, ...]:
    """The graphs of the normal and the reduction cell of a genotype, int `[E]`."""
    halves = np.asarray(genotype).reshape(2, cells.NUM_CELL_EDGES)
    live_halves = prune_dead(np.asarray(genotype)).reshape(2, cells.NUM_CELL_EDGES)
    return tuple(
        CellGraph(title, _WIDTH, _HEIGHT, _NODES, (*_inputs(values, live), *_outputs(live)))
        for title, values, live in zip(_TITLES, halves, live_halves, strict=True)
    )


def _inputs(values: np.ndarray, live: np.ndarray) -> list[GraphEdge]:
    """The edges with an operation, of values `[E / 2]`; a pair is drawn as two edges."""
    edges = []
    for target in cells.NODES:
        into = [
            (cells.CELL_EDGES[edge][0], op, bool(live[edge]))
            for edge in cells.EDGES_INTO[target]
            for op in cells.OPERATIONS_OF[values[edge]]
            if op
        ]
        sides = _sides([source for source, _, _ in into])
        for (source, op, is_live), side in zip(into, sides, strict=True):
            name = cells.OPERATIONS[op]
            kind = _KINDS[name.split("_")[0]]
            via = _way(source, target, side)
            edges.append(GraphEdge(source, target, name, kind, is_live, via=via))
    return edges


def _outputs(live: np.ndarray) -> list[GraphEdge]:
    """The edges to the output, which join nodes and have no operation."""
    last = cells.NODES[-1]
    lane = _MIDDLE + _TO_OUTPUT_LANE
    reached = {target for edge, (_, target) in enumerate(cells.CELL_EDGES) if live[edge]}
    edges = []
    for node in cells.NODES:
        via = ((lane, _NODES[node].y + _INTO_LANE), (lane, _NODES[last].y + _INTO_LANE))
        way = () if node == last else via
        edges.append(GraphEdge(node, _OUTPUT, "", "skip", node in reached, via=way))
    return edges


def _sides(sources: Sequence[int]) -> list[int]:
    """The sides on which edges enter a node, -1 left and 1 right; edges from k-1 on the right."""
    if len(sources) == 2:
        return [1, -1] if sources[0] == 1 else [-1, 1]
    return [1 if source == 1 else -1 for source in sources]


def _way(source: int, target: int, side: int) -> tuple[tuple[float, float], ...]:
    """The points through which an edge runs; the last is the place of its label."""
    label = (_MIDDLE + side * _TO_LABEL, _NODES[target].y - _ABOVE_NODE)
    if source == target - 1 or target == cells.NODES[0]:
        return (label,)
    lane = _MIDDLE + side * (_TO_LANE + _LANE * (target - cells.NODES[1]))
    return (
        (lane, _NODES[source].y + _INTO_LANE),
        (lane, _NODES[target - 1].y + _OUT_OF_LANE),
        label,
    )
