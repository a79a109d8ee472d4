import gzip
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_inputs import arrays, spliced, values
from refusals import refusal

from epe_nas_jax import InputError
from epe_nas_jax.spaces.transnas_micro import genotype as space
from epe_nas_jax.spaces.transnas_micro.space import TRANSNAS_MICRO

DATA = os.environ.get("EPE_NAS_JAX_DATA", "")
# Rows of the benchmark's table.
TEXTS = {
    "64-41414-2_32_323": [2, 3, 2, 3, 2, 3],
    "64-41414-3_11_212": [3, 1, 1, 2, 1, 2],
    "64-41414-0_00_202": [0, 0, 0, 2, 0, 2],
}


@pytest.mark.parametrize("text", TEXTS)
def test_text_lists_the_edges_node_by_node(text):
    row = space.parse(text)
    assert row.dtype == np.int32
    assert row.tolist() == TEXTS[text]
    assert space.format_cell(row) == text


def test_every_cell_round_trips_through_its_text():
    cells = space.PRODUCT.every()
    texts = [space.format_cell(cell) for cell in cells]
    assert len(set(texts)) == 4096
    assert np.array_equal([space.parse(text) for text in texts], cells)


@pytest.mark.skipif(not DATA, reason="EPE_NAS_JAX_DATA does not name a folder with the table")
def test_the_cells_of_the_table_are_those_of_the_space():
    with gzip.open(Path(DATA) / "transnasbench101_micro.csv.gz", "rt") as table:
        archs = [line.split(",")[0] for line in table][1:]
    assert sorted(archs) == sorted(map(space.format_cell, space.PRODUCT.every()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the form 64-41414-a_bc_def"),
        ("64-41414-3_33", "expected the form"),
        ("64-41414-3_33_3333", "expected the form"),
        ("64-41414-3_33_334", "expected the form"),
        ("64-41414-3-33-333", "expected the form"),
        (" 64-41414-3_33_333", "expected the form"),
        ("64-41414-3_33_333\n", "expected the form"),
        ("64-41414-\u0663_33_333", "expected the form"),
        ("64-41423-basic", "expected the form"),
        ("64-41423-3_33_333", "found the skeleton '64-41423', expected 64-41414, the only one"),
        ("32-41414-3_33_333", "found the skeleton '32-41414', expected 64-41414"),
        ("9" * 10**6 + "-1-3_33_333", r"found the skeleton '9+\.\.\.9+-1', expected 64-41414"),
        (3, "cell: found int, expected a str like 64-41414"),
    ],
)
def test_other_text_is_refused_in_one_line(text, message):
    with pytest.raises(InputError, match=message) as error:
        space.parse(text)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 300


FRAGMENTS = st.sampled_from([*"-_0123469\n\x85\u2028\ud800\u0663", "64-", "41414", "3_33", "basic"])


@given(st.text() | spliced(list(TEXTS), FRAGMENTS | st.text(max_size=5)))
@settings(deadline=None, max_examples=200)
def test_any_text_is_a_cell_or_refused(text):
    def read():
        assert space.format_cell(space.parse(text)) == text

    refusal(read)


@given(values(st.integers(0, 3)) | arrays((), (1,), (6,), (1, 6)))
@settings(deadline=None, max_examples=200)
def test_anything_is_a_genotype_or_refused(value):
    refusal(lambda: space.parse(space.format_cell(value)))


def ways(source=0):
    """The edges of every way from a node to the output, by walking."""
    if source == 3:
        return [()]
    return [
        (edge, *rest)
        for edge, (start, target) in enumerate(space.EDGES)
        if start == source
        for rest in ways(target)
    ]


def test_live_forms_keep_the_operations_on_ways_through_the_cell_and_no_others():
    cells = space.PRODUCT.every()
    expected = np.zeros_like(cells)
    for cell, live in zip(cells, expected, strict=True):
        for way in ways():
            if all(cell[edge] for edge in way):
                live[list(way)] = cell[list(way)]
    assert np.array_equal(space.prune_dead(cells), expected)
    assert np.array_equal(space.has_path(cells), expected.any(axis=1))
    for row in (0, 17, 4095):
        assert np.array_equal(space.prune_dead(cells[row]), expected[row])


def test_169_cells_have_no_path_and_there_are_2128_live_forms():
    # Without the edge 0->3; each of the others is none or one of three operations.
    no_path = 0
    for a, b, c, e, f in itertools.product((False, True), repeat=5):
        reaches = (a and e) or (b and f) or (a and c and f)
        no_path += 0 if reaches else 3 ** sum((a, b, c, e, f))
    cells = space.PRODUCT.every()
    assert np.sum(~space.has_path(cells)) == no_path == 169
    assert len(np.unique(space.prune_dead(cells), axis=0)) == 2128


def test_work_grows_with_the_operations():
    work = space.relative_work(np.array([[op] * 6 for op in (1, 2, 3)]))
    assert (np.diff(work) > 0).all()


def test_the_drawing_has_an_edge_for_each_operation():
    (graph,) = TRANSNAS_MICRO.graphs(np.array([3, 0, 1, 2, 0, 0]))
    assert [(edge.source, edge.target, edge.operation, edge.is_live) for edge in graph.edges] == [
        (0, 1, "nor_conv_3x3", False),
        (1, 2, "skip_connect", False),
        (0, 3, "nor_conv_1x1", True),
    ]
