import jax
import numpy as np
import pytest

from epe_nas_jax.reports.cell_drawing import cell_drawing
from epe_nas_jax.spaces import paths
from epe_nas_jax.spaces.nasbench101.drawing import graphs
from epe_nas_jax.spaces.nasbench101.genotype import parse, sample

C1, C3, POOL = "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3"


def test_a_vertex_is_a_sum_and_its_value_with_the_operation_between():
    (graph,) = graphs(parse(f"111-10-1:input,{POOL},{C3},output"))
    assert [node.name for node in graph.nodes] == ["in", "+", "1", "+", "2", "out"]
    operations = [edge[:4] for edge in graph.edges if edge.operation]
    assert operations == [(1, 2, "maxpool3x3", "pool"), (3, 4, "conv3x3", "conv")]
    plain = {edge[:2] for edge in graph.edges if not edge.operation}
    assert plain == {(0, 1), (0, 3), (0, 5), (2, 3), (4, 5)}
    assert all(edge.is_live for edge in graph.edges)
    assert paths.count_on_paths(graph, paths.is_pool) == {0: 2, 1: 1}
    assert paths.count_on_paths(graph, paths.is_wide_conv) == {0: 1, 1: 2}


def test_vertices_on_no_path_are_dead():
    (graph,) = graphs(parse(f"1101-010-00-0:input,{C3},{C1},{C1},output"))
    live = {edge[:2]: edge.is_live for edge in graph.edges}
    # The second vertex reads the input, and the third the first; neither leads to the output.
    nodes = [node.name for node in graph.nodes]
    assert nodes == ["in", "+", "1", "+", "2", "+", "3", "out"]
    assert {edge for edge, is_live in live.items() if is_live} == {(0, 7)}
    assert len(live) == 3 + 4


@pytest.mark.parametrize("seed", range(3))
def test_no_two_lines_share_all_their_points_and_every_drawing_is_finite(seed):
    for row in sample(jax.random.key(seed), 30):
        (graph,) = graphs(row)
        lines = [(edge.source, edge.via) for edge in graph.edges]
        assert len(set(lines)) == len(lines)
        points = np.array([point for edge in graph.edges for point in edge.via]).reshape(-1, 2)
        assert (points > 0).all()
        assert (points < (graph.width, graph.height)).all()
        assert "nan" not in cell_drawing(graph, "a cell")


def test_the_empty_cell_has_no_edges():
    (graph,) = graphs(np.zeros(26, int))
    assert [node.name for node in graph.nodes] == ["in", "out"]
    assert not graph.edges
