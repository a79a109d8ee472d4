import itertools
import os
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_inputs import arrays, spliced, values
from refusals import refusal

from epe_nas_jax import InputError
from epe_nas_jax.spaces.nasbench101 import genotype as space

C1, C3, POOL = space.OPERATIONS
TEXT = f"1100-011-01-1:input,{C3},{POOL},{C1},output"
SHARED = os.environ.get("EPE_NAS_JAX_DATA", "")
needs_tables = pytest.mark.skipif(not SHARED, reason="EPE_NAS_JAX_DATA names no published tables")
# Rows of NAS-Bench-101's table; the cells of the last two are of fewer vertices.
HASHES = {
    f"100110-10000-1001-010-10-1:input,{C3},{POOL},{C3},{C3},{C1},output": (
        "00005c142e6f48ac74fdcf73e3439874"
    ),
    f"100010-10010-1000-101-10-1:input,{C3},{POOL},{C1},{POOL},{C1},output": (
        "0000cb5372fad9d62c470df699ac6d52"
    ),
    f"11111-0001-001-10-1:input,{POOL},{POOL},{C3},{C3},output": (
        "4a0ab8bbe2441a002e07b0f445ec2d63"
    ),
    TEXT: "d3ce4b357bab991e98b34e3a8722b3bb",
}


@st.composite
def cells(draw):
    """A matrix of 2 to 7 vertices and at most 9 edges, upper triangular, and labels."""
    size = draw(st.integers(2, 7))
    pairs = list(itertools.combinations(range(size), 2))
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=9))
    matrix = np.zeros((size, size), int)
    for source, target in edges:
        matrix[source, target] = 1
    inner = draw(st.lists(st.sampled_from(space.OPERATIONS), min_size=size - 2, max_size=size - 2))
    return matrix, ["input", *inner, "output"]


def on_paths(matrix):
    """The vertices on a path from first to last, found by listing all paths."""
    last, found, paths = len(matrix) - 1, set(), [[0]]
    while paths:
        path = paths.pop()
        if path[-1] == last:
            found |= set(path)
        paths += [[*path, int(target)] for target in np.flatnonzero(matrix[path[-1]])]
    return sorted(found)


def text_of(matrix, labels):
    rows = ["".join(map(str, row[i + 1 :])) for i, row in enumerate(matrix.tolist()[:-1])]
    return "-".join(rows) + ":" + ",".join(labels)


def row_of(matrix, labels):
    """A genotype, entry by entry; it may have no path."""
    size = len(matrix)
    place = [*range(size - 1), 6]
    full = np.zeros((7, 7), int)
    full[np.ix_(place, place)] = matrix
    bits = [full[pair] for pair in itertools.combinations(range(7), 2)]
    inner = [space.OPERATIONS.index(label) for label in labels[1:-1]]
    return np.array([*bits, *inner, *[0] * (7 - size)], np.int32)


def test_a_genotype_is_the_upper_triangle_and_the_operations():
    row = space.parse(TEXT)
    assert row.dtype == np.int32
    # By rows of 6, 5, 4, 3, 2 and 1; the last of the text's vertices is the last of seven.
    rows = ("110000", "01001", "0001", "001", "00", "0")
    assert row[:21].tolist() == [int(bit) for bit in "".join(rows)]
    assert row[21:].tolist() == [1, 2, 0, 0, 0]


@given(cells())
@settings(deadline=None)
def test_text_matrix_and_genotype_name_the_same_cell(case):
    matrix, labels = case
    text, row = text_of(matrix, labels), row_of(matrix, labels)
    if not on_paths(matrix) and (len(labels) > 2 or matrix.any()):
        for read in (lambda: space.parse(text), lambda: space.from_matrix(matrix, labels)):
            assert refusal(read) == "cell: found no path from input to output, expected one"
    else:
        assert np.array_equal(space.parse(text), row)
        assert np.array_equal(space.from_matrix(matrix.tolist(), labels), row)
        assert np.array_equal(space.parse(space.format_cell(row)), row)
        assert space.parse(f"{text}@{space.module_hash(row)}").tolist() == row.tolist()
    assert np.array_equal(space.check_genotypes(row[None]), row[None])


@given(cells())
@settings(deadline=None)
def test_the_live_form_has_the_vertices_on_paths_in_order(case):
    matrix, labels = case
    row, kept = row_of(matrix, labels), on_paths(matrix)
    live = space.prune_dead(row)
    assert space.has_path(row[None]).tolist() == [bool(kept)]
    if not kept:
        assert not live.any()
        return
    expected = row_of(matrix[np.ix_(kept, kept)], [labels[vertex] for vertex in kept])
    assert np.array_equal(live, expected)
    assert space.module_hash(row) == space.module_hash(live)


@given(cells(), st.randoms())
@settings(deadline=None)
def test_isomorphic_cells_have_equal_hashes(case, random):
    matrix, labels = case
    inner = list(range(1, len(labels) - 1))
    random.shuffle(inner)
    order = [0, *inner, len(labels) - 1]
    other = matrix[np.ix_(order, order)]
    if not on_paths(matrix) or np.tril(other).any():
        return
    moved = space.from_matrix(other, [labels[vertex] for vertex in order])
    assert space.module_hash(moved) == space.module_hash(space.from_matrix(matrix, labels))


def test_hashes_are_the_benchmarks():
    for text, digest in HASHES.items():
        assert space.module_hash(space.parse(text)) == digest
        assert np.array_equal(space.parse(f"{text}@{digest}"), space.parse(text))
    assert len({space.module_hash(row) for row in space.sample(jax.random.key(0), 50)}) > 45


@needs_tables
def test_every_row_of_the_table_has_its_hash_and_round_trips():
    table = pd.read_csv(Path(SHARED) / "nasbench101.csv.gz", dtype=str)
    texts = table.adjacency + ":" + table.ops
    # A wrong hash would be refused.
    rows = np.stack([space.parse(text) for text in texts + "@" + table.hash])
    assert len(rows) == 15_081
    assert [space.format_cell(row) for row in rows] == texts.tolist()
    assert np.array_equal(space.prune_dead(rows), rows)


@needs_tables
def test_cells_as_they_were_drawn_have_the_live_form_of_the_table():
    table = pd.read_csv(Path(SHARED) / "nasbench101_zc_500.csv.gz", dtype=str)
    raw = table.raw_adjacency7 + ":" + table.raw_ops7 + "@" + table.hash
    live = [space.format_cell(space.prune_dead(space.parse(text))) for text in raw]
    assert live == (table.adjacency + ":" + table.ops).tolist()


def test_of_more_than_nine_edges_those_on_paths_count():
    # 12 edges as NASLib drew them, 9 without the vertex that leads nowhere.
    raw = f"111101-00011-0001-110-11-0:input,{POOL},{POOL},{C3},{C3},{C3},output"
    live = f"11111-0001-001-10-1:input,{POOL},{POOL},{C3},{C3},output"
    assert space.format_cell(space.parse(raw)) == live


def test_the_empty_cell_is_the_row_of_zeros():
    assert space.format_cell(np.zeros(26, int)) == "0:input,output"
    assert not space.parse("0:input,output").any()
    assert not space.has_path(np.zeros((1, 26), int)).any()


FORM = "expected the form ADJACENCY:OPERATIONS"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace(":", ""), FORM),
        (TEXT.replace("1100-", "110-"), FORM),
        (TEXT.replace("1100-", "1200-"), FORM),
        (TEXT.replace("-1:", ":"), FORM),
        ("0000000-000000-00000-0000-000-00-0:input,output", "found 8 vertices, expected 2..7"),
        (TEXT.replace(f",{POOL}", ""), "found 4 operations, expected 5, one per vertex"),
        (TEXT.replace(POOL, "avgpool"), "vertex 2: unknown operation 'avgpool', expected conv1x1"),
        (TEXT.replace("input", "output"), "found 'output' as the first operation, expected input"),
        (TEXT.replace("output", "input"), "found 'input' as the last operation, expected output"),
        (f"00-1:input,{C1},output", "found no path from input to output"),
        (f"0000-000-00-0:input,{C1},{C1},{C1},output", "found no path"),
        (
            f"111111-11111-1111-111-11-1:input,{C1},{C1},{C1},{C1},{C1},output",
            "found 21 edges, expected at most 9",
        ),
        (f"{TEXT}@", "found hash '', expected d3ce4b357bab991e98b34e3a8722b3bb"),
        (f"{TEXT}@{'0' * 32}", "expected d3ce4b357bab991e98b34e3a8722b3bb"),
    ],
)
def test_bad_text_is_refused_in_one_line(text, message):
    assert message in refusal(lambda: space.parse(text))


@pytest.mark.parametrize(
    ("matrix", "labels", "message"),
    [
        (np.zeros((2, 3), int), ["input", "output"], r"matrix: found shape (2, 3), expected a squ"),
        (np.zeros(4, int), ["input", "output"], "matrix: found shape (4,)"),
        (np.zeros((1, 1), int), ["input"], "found 1 vertices, expected 2..7"),
        (np.zeros((8, 8), int), ["input"] * 8, "found 8 vertices, expected 2..7"),
        ([[0, 2], [0, 0]], ["input", "output"], "found other entries, expected 0 and 1"),
        ([[0, np.nan], [0, 0]], ["input", "output"], "found other entries, expected 0 and 1"),
        ([["0", "1"], ["0", "0"]], ["input", "output"], "matrix: found"),
        ([[0, 1], [1, 0]], ["input", "output"], "found an edge from vertex 1 to 0, expected an up"),
        ([[1, 1], [0, 0]], ["input", "output"], "found an edge from vertex 0 to 0, expected an up"),
        ([[0, 1], [0, 0]], ["input"], "found 1 operations, expected 2"),
        ([[0, 1], [0, 0]], ["input", 3], "labels: found ['input', 3], expected a text"),
        ([[0, 1], [0, 0]], "io", "labels: found 'io', expected a text for each vertex"),
        ([[0, 1], [0, 0]], ["output"] * 2, "found 'output' as the first operation, expected input"),
    ],
)
def test_a_bad_matrix_is_refused_in_one_line(matrix, labels, message):
    assert message in refusal(lambda: space.from_matrix(matrix, labels))


def test_matrices_of_other_types_are_read():
    expected = space.parse(f"11-1:input,{C1},output")
    labels = ("input", C1, "output")
    for dtype in (bool, int, float, np.uint8):
        matrix = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype)
        assert np.array_equal(space.from_matrix(matrix, labels), expected)


FRAGMENTS = st.text(max_size=3) | st.sampled_from(
    [*":-@,01\n\0\u2028\ud800", "input", "output", *space.OPERATIONS, "1-", ":input,output"]
)


@given(st.one_of(spliced([TEXT], FRAGMENTS), st.lists(FRAGMENTS).map("".join)))
@settings(deadline=None, max_examples=200)
def test_any_text_is_a_cell_or_refused(text):
    refusal(lambda: space.parse(space.format_cell(space.parse(text))))


@given(values(st.integers(0, 2)) | arrays((), (2, 2), (3, 3), (26,)), values(st.just("input")))
@settings(deadline=None, max_examples=200)
def test_anything_is_a_cell_or_refused(value, labels):
    refusal(lambda: space.from_matrix(value, labels))
    refusal(lambda: space.parse(value))
    refusal(lambda: space.format_cell(value))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(26, int), "genotypes: found shape"),
        (np.zeros((1, 26)), "found dtype float64"),
        (np.full((1, 26), 3), "genotype 0, edge 0: found operation index 3, expected 0..2"),
        (np.eye(1, 26, 4, int) * 2, "genotype 0, entry 4 of the adjacency matrix: found 2"),
        (np.stack([np.zeros(26, int), np.ones(26, int)]), "genotype 1: found 21 edges, expected a"),
    ],
)
def test_bad_genotypes_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        space.check_genotypes(rows)


def test_samples_are_live_valid_and_spread_over_the_space():
    rows = space.sample(jax.random.key(0), 1000)
    assert np.array_equal(space.check_genotypes(rows), rows)
    assert np.array_equal(space.prune_dead(rows), rows)
    assert space.has_path(rows).all()
    assert len(np.unique(rows, axis=0)) == 1000
    sizes = [len(space.as_written(row)[1]) for row in rows]
    assert set(sizes) >= {3, 4, 5, 6, 7}
    # The first vertex' operation is uniform: a third of each, within five standard deviations.
    first = rows[np.array(sizes) > 2, 21]
    assert np.allclose(np.bincount(first) / len(first), 1 / 3, atol=0.08)


def test_a_cell_may_be_drawn_twice_only_if_it_is_said():
    again = space.sample(jax.random.key(1), 2000, replace=True)
    assert again.shape == (2000, 26)
    assert len(np.unique(again, axis=0)) < 2000


@pytest.mark.parametrize(
    ("number", "message"), [(0, "found 0, expected at least 1"), (423_625, "at most 423624 diff")]
)
def test_a_wrong_number_of_samples_is_refused(number, message):
    with pytest.raises(InputError, match=message):
        space.sample(jax.random.key(0), number)


def changes_of(row):
    """All valid rows at one change, by trying all."""
    found = set()
    for place in range(26):
        for value in range(2 if place < 21 else 3):
            other = row.copy()
            other[place] = value
            matrix = np.zeros((7, 7), int)
            matrix[np.triu_indices(7, 1)] = other[:21]
            vertex = place - 20
            if vertex > 0 and not (matrix[vertex].any() or matrix[:, vertex].any()):
                continue
            if on_paths(matrix) and matrix.sum() <= 9 and (other != row).any():
                found.add(tuple(other.tolist()))
    return found


@given(cells())
@settings(deadline=None, max_examples=30)
def test_neighbours_are_all_valid_cells_at_one_change(case):
    row = row_of(*case)
    found = space.neighbours(row)
    assert found.dtype == np.int32
    assert {tuple(other) for other in found.tolist()} == changes_of(row)
    assert len(found) == len(changes_of(row))


def test_mutations_are_all_neighbours_and_equally_likely():
    row = space.parse(TEXT)
    near = space.neighbours(row)
    children = space.mutate(jax.random.key(0), np.tile(row, (100 * len(near), 1)))
    found, times = np.unique(children, axis=0, return_counts=True)
    assert np.array_equal(found, np.unique(near, axis=0))
    # 100 of each on average: five standard deviations.
    assert (np.abs(times - 100) < 50).all()


def test_identity_is_exact_for_the_largest_row_too():
    rows = np.array([[1] * 21 + [2] * 5, [1] * 20 + [0] + [2] * 5, [0] * 26, [1] * 21 + [0] * 5])
    words = space.identity(rows)
    assert words.dtype == np.int32
    assert (words >= 0).all()
    assert len(np.unique(words)) == 4
