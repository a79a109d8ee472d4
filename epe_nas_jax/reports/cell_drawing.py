"""Draws a cell as an SVG element: its nodes, and the operation on each edge."""

import itertools
from collections.abc import Iterable
from html import escape

import numpy as np

from epe_nas_jax.spaces.base import CellGraph, GraphEdge, GraphNode

_RADIUS = 17
# Between the tip of an arrow and its node.
_GAP = 3
_LABEL_HEIGHT = 22
_CHARACTER_WIDTH = 7.4


def cell_drawing(graph: CellGraph, description: str) -> str:
    """Draws a cell as an SVG element, which `page.css` styles.

    An operation that is on no path from input to output is dashed.

    Args:
      graph: the cell.
      description: what a screen reader says in place of the drawing.

    Examples:
      >>> from epe_nas_jax.reports.cell_drawing import cell_drawing
      >>> cell = np.array([3, 0, 3, 0, 0, 3])
      >>> svg = cell_drawing(network.space.graphs(cell)[0], "a cell")
      >>> svg[:4], "nor_conv_3x3" in svg
      ('<svg', True)
    """
    # An identifier that no other drawing of the page has.
    arrow = escape("-".join(["arrow", *graph.title.split()]))
    drawn = [_edge(edge, graph.nodes, arrow) for edge in graph.edges]
    return "".join(
        [
            f'<svg class="cell" viewBox="0 0 {graph.width:g} {graph.height:g}" role="img" '
            f'aria-label="{escape(description)}">',
            f'<defs><marker id="{arrow}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z"/></marker>',
            "</defs>",
            *(path for path, _ in drawn),
            *(label for _, label in drawn),
            *map(_node, graph.nodes),
            "</svg>",
        ]
    )


def _node(node: GraphNode) -> str:
    return (
        f'<circle class="node" cx="{node.x:g}" cy="{node.y:g}" r="{_RADIUS}"/>'
        f'<text class="node" x="{node.x:g}" y="{node.y + 5:g}">{escape(node.name)}</text>'
    )


def _edge(edge: GraphEdge, nodes: tuple[GraphNode, ...], arrow: str) -> tuple[str, str]:
    """An edge and its label, which is empty where it has no operation."""
    looks = escape(edge.kind if edge.operation else "plain") + ("" if edge.is_live else " dead")
    start, end = (
        np.array([nodes[node].x, nodes[node].y], float) for node in (edge.source, edge.target)
    )
    line, middle = _routed(edge, start, end) if edge.via else _bent(edge, start, end)
    path = f'<path class="edge {looks}" d="{line}" marker-end="url(#{arrow})"/>'
    return path, _label(edge.operation, looks, *middle) if edge.operation else ""


def _label(operation: str, looks: str, x: int, y: int) -> str:
    """The name of an operation in a rounded box around (x, y)."""
    width = _CHARACTER_WIDTH * len(operation) + 12
    return (
        f'<rect class="label {looks}" x="{x - width / 2:.1f}" y="{y - _LABEL_HEIGHT // 2}" '
        f'width="{width:.1f}" height="{_LABEL_HEIGHT}" rx="{_LABEL_HEIGHT // 2}"/>'
        f'<text class="label" x="{x}" y="{y + 4}">{escape(operation)}</text>'
    )


def _bent(edge: GraphEdge, start: np.ndarray, end: np.ndarray) -> tuple[str, tuple[int, int]]:
    """A line between the rims of two nodes, straight or bent to one side, and its middle."""
    bend = (start + end) / 2 if edge.bend is None else np.array(edge.bend, float)
    middle = start / 4 + bend / 2 + end / 4
    line = f"M{_points([_rim(start, bend, _RADIUS)])}{_curve_into(bend, end)}"
    return line, (round(middle[0]), round(middle[1]))


def _routed(edge: GraphEdge, start: np.ndarray, end: np.ndarray) -> tuple[str, tuple[int, int]]:
    """A line that runs down through an edge's points and into its target, and its last point.

    It starts in the middle of its source, which is drawn over it.
    """
    points = [start, *np.array(edge.via, float)]
    parts = [f"M{_points([start])}"]
    for (x, y), (next_x, next_y) in itertools.pairwise(points):
        half = (y + next_y) / 2
        parts.append(f"C{_points([(x, half), (next_x, half), (next_x, next_y)])}")
    last = points[-1]
    # Down from the last point, and into the node from the side.
    parts.append(_curve_into(np.array([last[0], end[1]]), end))
    return "".join(parts), (round(last[0]), round(last[1]))


def _curve_into(bend: np.ndarray, end: np.ndarray) -> str:
    """The last piece of a line: bent to one side, up to the rim of the node at its end."""
    return f"Q{_points([bend, _rim(end, bend, _RADIUS + _GAP)])}"


def _rim(centre: np.ndarray, towards: np.ndarray, distance: float) -> np.ndarray:
    """The point at a distance from a node's centre in a direction."""
    direction = towards - centre
    return centre + distance * direction / np.linalg.norm(direction)


def _points(points: Iterable[Iterable[float]]) -> str:
    return " ".join(f"{x:.1f} {y:.1f}" for x, y in points)
