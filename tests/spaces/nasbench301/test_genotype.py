"""Texts and genotypes of NAS-Bench-301; the tables are read where they are at hand."""

import collections
import csv
import gzip
from pathlib import Path

import jax
import numpy as np
import pytest
from darts_torch import read
from hypothesis import given, settings
from hypothesis import strategies as st

from epe_nas_jax import InputError
from epe_nas_jax import format_genotype as format_darts
from epe_nas_jax.spaces.darts.edges import (
    CELL_EDGES,
    EDGES_INTO,
    NODES,
    NUM_OPERATIONS,
    NUM_VALUES,
    OPERATIONS,
    OPERATIONS_OF,
    value_of,
)
from epe_nas_jax.spaces.darts.published import DARTS_V2
from epe_nas_jax.spaces.nasbench301.genotype import (
    check_genotypes,
    format_genotype,
    identity,
    parse_genotype,
)
from epe_nas_jax.spaces.nasbench301.space import NASBENCH301

# Beside the repository.
DATA = Path(__file__).parents[4] / "shared" / "data"
CONCAT = "concat=[2, 3, 4, 5]"
# A node that reads another twice by two operations, by one twice, beside none, and none alone.
ODD = [
    *(("sep_conv_5x5", 0), ("sep_conv_3x3", 0), ("skip_connect", 2), ("skip_connect", 2)),
    *(("none", 3), ("max_pool_3x3", 3), ("none", 1), ("none", 1)),
]


def text_of(normal, reduce):
    return f"Genotype(normal={normal}, normal_{CONCAT}, reduce={reduce}, reduce_{CONCAT})"


def inputs_of(text):
    """For every node of both cells which nodes it reads by what, without order and none."""
    call = read(text)
    return [
        collections.Counter(
            pair for pair in call[cell][2 * node - 4 : 2 * node - 2] if pair[0] != "none"
        )
        for cell in ("normal", "reduce")
        for node in NODES
    ]


def rows_of(name):
    path = DATA / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


@st.composite
def texts(draw):
    cells = [
        [
            (draw(st.sampled_from(OPERATIONS)), draw(st.integers(0, node - 1)))
            for node in NODES
            for _ in range(2)
        ]
        for _ in range(2)
    ]
    return text_of(*cells)


def check_round_trip(text):
    row = parse_genotype(text)
    written = format_genotype(row)
    assert inputs_of(written) == inputs_of(text)
    assert written.count("'none'") == text.count("'none'")
    assert np.array_equal(parse_genotype(written), row)
    assert format_genotype(parse_genotype(written)) == written
    assert np.array_equal(check_genotypes(row[None]), row[None])
    return row


@given(texts())
def test_text_and_genotype_are_each_others_inverse_but_for_the_order_of_inputs(text):
    check_round_trip(text)


def test_a_node_that_reads_another_twice_and_none_are_written_in_order():
    row = check_round_trip(text_of(ODD, read(DARTS_V2)["reduce"]))
    values = dict(zip(CELL_EDGES, row[:14].tolist(), strict=True))
    assert {edge: value for edge, value in values.items() if value} == {
        (0, 2): value_of(4, 5),
        (2, 3): value_of(3, 3),
        (3, 4): 1,
    }
    assert read(format_genotype(row))["normal"] == [
        *(("sep_conv_3x3", 0), ("sep_conv_5x5", 0), ("skip_connect", 2), ("skip_connect", 2)),
        *(("none", 0), ("max_pool_3x3", 3), ("none", 0), ("none", 1)),
    ]


@pytest.mark.parametrize("name", ["nasbench301_zc_725", "darts_trained_500"])
def test_all_texts_of_the_tables_are_read_and_written(name):
    texts = [row["genotype"] for row in rows_of(name)]
    rows = [check_round_trip(text) for text in texts]
    # Two texts of one network would have one accuracy each.
    assert len({row.tobytes() for row in rows}) == len(set(texts))


def test_how_often_the_tables_have_none_and_nodes_that_read_another_twice():
    counts = {}
    for name in ("nasbench301_zc_725", "darts_trained_500"):
        texts = [row["genotype"] for row in rows_of(name)]
        values = np.array([parse_genotype(text) for text in texts])
        pairs = values >= NUM_OPERATIONS
        first, second = OPERATIONS_OF[values[pairs]].T
        counts[name] = (
            sum(text.count("'none'") for text in texts),
            int(pairs.sum()),
            int((first == second).sum()),
        )
    # Both cells of a row count, which in the second table are equal.
    assert counts == {"nasbench301_zc_725": (0, 0, 0), "darts_trained_500": (974, 1112, 170)}


def test_values_of_edges_are_all_operations_and_unordered_pairs():
    assert NUM_VALUES == 8 + 28
    for value, (first, second) in enumerate(OPERATIONS_OF):
        assert value_of(first, second) == value_of(second, first) == value
        assert (second == 0) == (value < NUM_OPERATIONS)


@given(st.lists(texts(), min_size=2, max_size=4))
def test_identity_is_exact(some):
    rows = np.array([parse_genotype(text) for text in some])
    words = identity(rows)
    assert words.dtype == np.int32
    assert words.shape == (len(rows), 6)
    assert words.min() >= 0
    # The values can be read off it again.
    numbers = [sum(int(word) << 30 * i for i, word in enumerate(cell)) for cell in words]
    assert [[n >> 6 * e & 63 for e in range(28)] for n in numbers] == rows.tolist()


@given(texts())
@settings(deadline=None, max_examples=30)
def test_neighbours_change_one_input_and_read_no_further_node_twice(text):
    row = parse_genotype(text)
    found = NASBENCH301.neighbours(row)
    assert found.dtype == np.int32
    assert np.array_equal(check_genotypes(found), found)
    assert len(np.unique(np.append(found, row[None], axis=0), axis=0)) == len(found) + 1
    before = inputs_of(text)
    for other in found:
        after = inputs_of(format_genotype(other))
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert len(changed) == 1
        lost, new = changed[0][0] - changed[0][1], changed[0][1] - changed[0][0]
        assert new.total() == 1
        assert lost.total() <= 1
        if lost:
            ((op, source),), ((new_op, new_source),) = lost, new
            assert (op == new_op) != (source == new_source)
        assert (other >= NUM_OPERATIONS).sum() <= (row >= NUM_OPERATIONS).sum()
    # Seven operations; another node; one input more.
    for i, (inputs, node) in enumerate(zip(before, 2 * NODES, strict=True)):
        free = node - len({source for _, source in inputs})
        expected = len(inputs) * (6 + free) + (7 * free if inputs.total() < 2 else 0)
        own = 14 * (i // 4) + EDGES_INTO[node]
        assert np.any(found[:, own] != row[own], axis=1).sum() == expected


def test_drawn_cells_are_those_of_darts():
    sampled = NASBENCH301.sample(jax.random.key(0), 20)
    assert (sampled < NUM_OPERATIONS).all()
    assert (np.count_nonzero(sampled, axis=1) == 16).all()
    for row in sampled:
        assert format_genotype(row) == format_darts(row)
    children = NASBENCH301.mutate(jax.random.key(1), sampled)
    assert (children < NUM_OPERATIONS).all()


@given(texts())
def test_pruning_leaves_out_what_reads_an_empty_node(text):
    row = parse_genotype(text)
    live = NASBENCH301.prune_dead(row)
    inputs, left = inputs_of(text), inputs_of(format_genotype(live))
    for first in (0, 4):
        full = {0, 1}
        for node, before, after in zip(NODES, inputs[first:], left[first:], strict=False):
            expected = collections.Counter(
                {pair: count for pair, count in before.items() if pair[1] in full}
            )
            assert after == expected
            full |= {node} if expected else set()
    assert NASBENCH301.has_path(row[None]).tolist() == [any(left[:4])]
    assert NASBENCH301.relative_work(row[None]) >= NASBENCH301.relative_work(live[None])


def test_a_pair_is_drawn_as_two_edges_that_enter_from_two_sides():
    row = parse_genotype(text_of(ODD, ODD))
    for graph in NASBENCH301.graphs(row):
        edges = [edge for edge in graph.edges if edge.operation]
        drawn = [(edge.source, edge.target, edge.operation) for edge in edges]
        assert drawn == [
            *((0, 2, "sep_conv_3x3"), (0, 2, "sep_conv_5x5")),
            *((2, 3, "skip_connect"), (2, 3, "skip_connect"), (3, 4, "max_pool_3x3")),
        ]
        for target in (2, 3):
            sides = [edge.via[-1][0] - graph.nodes[target].x for edge in edges]
            sides = [side for side, edge in zip(sides, edges, strict=True) if edge.target == target]
            assert sides[0] == -sides[1] != 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("'sep_conv_3x3', 0", "'sep_conv_7x7', 0"), "normal, node 2: unknown operation"),
        ((", ('dil_conv_3x3', 2)]", "]"), "normal: found 7 edges, expected 8"),
        (("'dil_conv_3x3', 2", "'none', 5"), "normal, node 5: reads node 5, expected an earlier"),
        (("'dil_conv_3x3', 2", "'dil_conv_3x3', -1"), "normal, node 5: reads node -1"),
        (("reduce_concat=[2, 3, 4, 5]", "reduce_concat=[2]"), "reduce_concat: found"),
        ((DARTS_V2, "Genotype()"), "genotype: found fields"),
    ],
)
def test_bad_text_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        parse_genotype(DARTS_V2.replace(*change))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (np.full((1, 28), NUM_VALUES), "found operation index 36, expected 0..35"),
        (np.eye(1, 28, 1, int) * 8 + np.eye(1, 28, 0, int), "normal, node 2: found 3 edges"),
        (np.eye(1, 28, 17, int) * 35 + np.eye(1, 28, 18, int) * 35, "reduce, node 3: found 4 edg"),
        (np.zeros((1, 28)), "found dtype float64"),
    ],
)
def test_bad_genotypes_are_refused(row, message):
    with pytest.raises(InputError, match=message):
        check_genotypes(row)
    with pytest.raises(InputError, match=message):
        format_genotype(row[0])
