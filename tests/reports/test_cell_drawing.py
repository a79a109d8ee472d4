import itertools
import re
from xml.etree import ElementTree

import jax
import numpy as np
import pytest

from epe_nas_jax.reports.cell_drawing import cell_drawing
from epe_nas_jax.spaces.base import CellGraph, GraphEdge, GraphNode
from epe_nas_jax.spaces.darts.edges import CELL_EDGES, NODES, OPERATIONS
from epe_nas_jax.spaces.darts.published import DARTS_V2
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

CELL = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"


def draw(arch):
    (graph,) = NASBENCH201.graphs(NASBENCH201.parse(arch))
    return cell_drawing(graph, f"The cell {arch} as a graph")


def elements(svg, tag, name):
    """The attributes of a drawing's elements of a tag and class; fails if it is no valid XML."""
    return [
        element.attrib
        for element in ElementTree.fromstring(svg).iter(tag)
        if name in element.get("class", "").split()
    ]


@pytest.mark.parametrize(
    ("arch", "drawn", "dead"),
    [
        (CELL, ["nor_conv_3x3", "avg_pool_3x3", "nor_conv_1x1", "skip_connect"], 1),
        (CELL.replace("none", "skip_connect"), None, 0),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", [], 0),
    ],
)
def test_the_drawing_has_an_edge_for_every_operation(arch, drawn, dead):
    svg = draw(arch)
    edges = elements(svg, "path", "edge")
    assert len(edges) == np.sum(NASBENCH201.parse(arch) != 0)
    assert sum("dead" in attrs["class"] for attrs in edges) == dead
    if drawn is not None:
        assert svg.count("<rect") == len(drawn)
        assert all(f">{name}</text>" in svg for name in drawn)
    assert all(
        np.isfinite(float(v)) for attrs in edges for v in attrs["d"][1:].split("Q")[0].split()
    )


def test_a_cell_of_nasbench201_is_drawn_as_it_always_was():
    arrow = ' marker-end="url(#arrow)"/>'
    assert draw(CELL) == (
        '<svg class="cell" viewBox="0 0 372 372" role="img" aria-label="The cell '
        f'{CELL} as a graph"><defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" '
        'markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
        '<path d="M0 0L10 5L0 10z"/></marker></defs>'
        f'<path class="edge conv" d="M140.3 48.0Q107.0 96.0 75.4 141.6"{arrow}'
        f'<path class="edge pool dead" d="M80.2 163.3Q150.0 186.0 217.0 207.8"{arrow}'
        f'<path class="edge conv" d="M165.3 41.4Q462.0 186.0 168.0 329.2"{arrow}'
        f'<path class="edge skip" d="M71.3 173.3Q107.0 248.0 141.4 320.0"{arrow}'
        '<rect class="label conv" x="56.6" y="85" width="100.8" height="22" rx="11"/>'
        '<text class="label" x="107" y="100">nor_conv_3x3</text>'
        '<rect class="label pool dead" x="99.6" y="175" width="100.8" height="22" rx="11"/>'
        '<text class="label" x="150" y="190">avg_pool_3x3</text>'
        '<rect class="label conv" x="255.6" y="175" width="100.8" height="22" rx="11"/>'
        '<text class="label" x="306" y="190">nor_conv_1x1</text>'
        '<rect class="label skip" x="56.6" y="237" width="100.8" height="22" rx="11"/>'
        '<text class="label" x="107" y="252">skip_connect</text>'
        '<circle class="node" cx="150" cy="34" r="17"/><text class="node" x="150" y="39">in</text>'
        '<circle class="node" cx="64" cy="158" r="17"/><text class="node" x="64" y="163">1</text>'
        '<circle class="node" cx="236" cy="214" r="17"/><text class="node" x="236" y="219">2</text>'
        '<circle class="node" cx="150" cy="338" r="17"/>'
        '<text class="node" x="150" y="343">out</text></svg>'
    )


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_both_cells_of_darts_are_drawn_with_all_their_operations(seed):
    row = DARTS.parse(DARTS_V2) if seed is None else DARTS.sample(jax.random.key(seed), 1)[0]
    graphs = DARTS.graphs(row)
    assert len(graphs) == 2
    for graph, ops in zip(graphs, np.asarray(row).reshape(2, -1), strict=True):
        svg = cell_drawing(graph, "a cell")
        shown = [element.text for element in ElementTree.fromstring(svg).iter("text")]
        operations = [OPERATIONS[op] for op in ops if op]
        assert len(operations) == 8
        assert shown == [*operations, "k-2", "k-1", *map(str, NODES), "out"]
        assert len(elements(svg, "path", "plain")) == 4
        assert len(elements(svg, "path", "edge")) == 12
    # They may stand on one page.
    first, second = (re.search('marker id="(.*?)"', cell_drawing(graph, ""))[1] for graph in graphs)
    assert first != second


def on_path(d):
    """Points along a path of moves and Bézier curves."""
    points = []
    for command, numbers in re.findall("([MQC])([^MQC]*)", d):
        control = np.array(numbers.split(), float).reshape(-1, 2)
        if command == "M":
            points.append(control)
            continue
        control = np.concatenate([points[-1][-1:], control])
        t = np.linspace(0, 1, 40)[:, None]
        while len(control) > 1:
            # De Casteljau's construction, for all shares t at once.
            control = [(1 - t) * a + t * b for a, b in itertools.pairwise(control)]
        points.append(control[0])
    return np.concatenate(points)


def boxes_of(svg):
    """The boxes of the labels: left, top, right, bottom."""
    found = [
        [float(attrs[name]) for name in ("x", "y", "width", "height")]
        for attrs in elements(svg, "rect", "label")
    ]
    return [(x, y, x + width, y + height) for x, y, width, height in found]


def is_in(points, box, margin=2):
    left, top, right, bottom = box
    x, y = np.asarray(points).T
    return (
        (x > left - margin) & (x < right + margin) & (y > top - margin) & (y < bottom + margin)
    ).any()


def test_no_label_of_darts_lies_on_another_a_node_or_another_edge():
    pairs = [
        [
            [edge for edge, end in enumerate(CELL_EDGES) if end in ((a, node), (b, node))]
            for a, b in itertools.combinations(range(node), 2)
        ]
        for node in NODES
    ]
    # Every choice of two sources a node, and cells with fewer.
    cells = [list(itertools.chain(*choice)) for choice in itertools.product(*pairs)]
    assert len(cells) == 180
    fewer = {tuple(np.delete(cell, cut).tolist()) for cell in cells for cut in range(8)}
    for edges in [*cells, *map(list, sorted(fewer))]:
        row = np.zeros((2, len(CELL_EDGES)), int)
        row[:, edges] = OPERATIONS.index("sep_conv_3x3")
        graph = DARTS.graphs(row.ravel())[0]
        svg = cell_drawing(graph, "")
        boxes = boxes_of(svg)
        paths = [on_path(attrs["d"]) for attrs in elements(svg, "path", "edge")]
        inside = np.concatenate(paths)
        assert inside.min() > 2
        assert (inside < [graph.width - 2, graph.height - 2]).all()
        circles = [
            [float(attrs[name]) for name in ("cx", "cy", "r")]
            for attrs in elements(svg, "circle", "node")
        ]
        for index, box in enumerate(boxes):
            assert is_in(paths[index], box)
            assert not any(is_in(path, box) for other, path in enumerate(paths) if other != index)
            corners = list(itertools.product(box[::2], box[1::2]))
            assert not any(is_in(corners, other) for other in boxes if other != box)
            assert not any(is_in([(x, y)], box, margin=radius) for x, y, radius in circles)


def test_names_from_outside_stay_text():
    hostile = "\"><script>&'"
    nodes = (GraphNode(hostile, 20, 20), GraphNode("b", 20, 90))
    edge = GraphEdge(0, 1, hostile, "conv", via=((40, 50),))
    svg = cell_drawing(CellGraph(hostile, 60, 110, nodes, (edge,)), hostile)
    root = ElementTree.fromstring(svg)
    assert {element.tag for element in root.iter()}.isdisjoint({"script"})
    assert root.get("aria-label") == hostile
    assert [element.text for element in root.iter("text")] == [hostile, hostile, "b"]
