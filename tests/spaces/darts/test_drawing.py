import jax
import numpy as np
import pytest

from epe_nas_jax.spaces.darts import published
from epe_nas_jax.spaces.darts.drawing import graphs
from epe_nas_jax.spaces.darts.edges import (
    CELL_EDGES,
    NODES,
    NUM_EDGES,
    OPERATIONS,
)
from epe_nas_jax.spaces.darts.genotype import parse_genotype, sample

KINDS = {
    **{"max_pool_3x3": "pool", "avg_pool_3x3": "pool", "skip_connect": "skip"},
    **dict.fromkeys(("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"), "conv"),
}
OUTPUT = 6


@pytest.mark.parametrize("name", ["DARTS_V1", "DARTS_V2", "PC_DARTS", "P_DARTS", None])
def test_every_operation_is_an_edge(name):
    row = sample(jax.random.key(5), 1)[0]
    if name:
        row = parse_genotype(getattr(published, name))
    drawn = graphs(row)
    assert [graph.title for graph in drawn] == ["normal cell", "reduction cell"]
    for graph, ops in zip(drawn, row.reshape(2, -1), strict=True):
        expected = {
            (*ends, OPERATIONS[op], KINDS[OPERATIONS[op]])
            for ends, op in zip(CELL_EDGES, ops, strict=True)
            if op
        }
        found = [edge[:4] for edge in graph.edges if edge.operation]
        assert len(found) == len(expected) == 8
        assert set(found) == expected
        plain = [(edge.source, edge.target) for edge in graph.edges if not edge.operation]
        assert plain == [(node, OUTPUT) for node in NODES]
        assert all(edge.is_live for edge in graph.edges)
        assert [node.name for node in graph.nodes] == ["k-2", "k-1", "2", "3", "4", "5", "out"]


def test_the_two_edges_of_a_node_enter_it_from_two_sides():
    for row in sample(jax.random.key(6), 50):
        for graph in graphs(row):
            for node in NODES:
                into = [edge for edge in graph.edges if edge.target == node]
                sides = sorted(edge.via[-1][0] - graph.nodes[node].x for edge in into)
                assert sides[0] == -sides[1] < 0


def test_edges_from_a_node_without_inputs_are_dead():
    row = np.zeros(NUM_EDGES, int)
    skip = OPERATIONS.index("skip_connect")
    # In the normal cell node 3 reads node 2, which reads nothing, and node 4 reads an input.
    row[CELL_EDGES.index((2, 3))] = skip
    row[CELL_EDGES.index((1, 4))] = skip
    normal, reduction = graphs(row)
    live = {(edge.source, edge.target): edge.is_live for edge in normal.edges}
    assert live == {
        **{(2, 3): False, (1, 4): True},
        **{(2, OUTPUT): False, (3, OUTPUT): False, (4, OUTPUT): True, (5, OUTPUT): False},
    }
    assert not any(edge.is_live for edge in reduction.edges)
