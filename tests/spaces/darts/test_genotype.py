import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_inputs import arrays, spliced, values
from refusals import refusal

from epe_nas_jax import InputError, format_genotype, parse_genotype
from epe_nas_jax.spaces.darts import genotype as space
from epe_nas_jax.spaces.darts import published
from epe_nas_jax.spaces.darts.edges import CELL_EDGES, NODES, OPERATIONS

TEXT = published.DARTS_V2
KNOWN = ("DARTS_V1", "DARTS_V2", "PC_DARTS", "P_DARTS", "GDAS")


@st.composite
def genotypes(draw):
    """A pair of cells as pairs of (operation, source), two a node, and as 28 operation indices."""
    cells, row = [], []
    for _ in range(2):
        pairs = []
        edge_ops = dict.fromkeys(CELL_EDGES, 0)
        for node in NODES:
            sources = draw(st.permutations(range(node)))[:2]
            for source in sources:
                op = draw(st.integers(0, 7))
                pairs.append((OPERATIONS[op], source))
                edge_ops[source, node] = op
        cells.append(pairs)
        row += edge_ops.values()
    return cells, np.array(row)


@given(genotypes())
def test_text_and_genotype_are_each_others_inverse(case):
    (normal, reduce), row = case
    text = (
        f"Genotype(normal={normal}, normal_concat=range(2, 6), reduce={reduce}, "
        "reduce_concat=[2, 3, 4, 5])"
    )
    assert np.array_equal(parse_genotype(text), row)
    written = format_genotype(row)
    assert np.array_equal(parse_genotype(written), row)
    assert format_genotype(parse_genotype(written)) == written


def test_text_is_written_as_darts_writes_it():
    ordered = TEXT.replace(
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0)",
        "('skip_connect', 0), ('sep_conv_3x3', 1), ('skip_connect', 0)",
    )
    ordered = ordered.replace(
        "('skip_connect', 2), ('max_pool_3x3', 1)", "('max_pool_3x3', 1), ('skip_connect', 2)"
    )
    assert format_genotype(parse_genotype(TEXT)) == ordered


@pytest.mark.parametrize("name", KNOWN)
def test_known_genotype_has_two_edges_a_node_and_no_none(name):
    row = parse_genotype(getattr(published, name))
    assert np.count_nonzero(row) == 16
    assert np.array_equal(space.prune_dead(row), row)


def test_samples_are_valid_different_and_have_every_operation_and_source():
    rows = np.asarray(space.sample(jax.random.key(0), 500))
    assert np.array_equal(space.check_genotypes(rows), rows)
    assert (np.count_nonzero(rows, axis=1) == 16).all()
    assert len(np.unique(rows, axis=0)) == 500
    counts = np.stack([np.sum(rows == op, axis=0) for op in range(1, 8)])
    assert (counts > 0).all()
    # An edge into node n is there with probability 2 / n.
    for edge, (_, node) in enumerate(CELL_EDGES):
        assert np.isclose(counts[:, edge].sum() / 500, 2 / node, atol=0.1)


def test_a_cell_may_be_drawn_twice_only_if_it_is_said(monkeypatch):
    # As if the space had five cells.
    few = np.eye(5, 28, dtype=np.int32)

    def draw(key, num_cells):
        seed = int(jax.random.key_data(key)[-1])
        return few[np.random.default_rng(seed).integers(0, 5, num_cells)]

    monkeypatch.setattr(space, "_draw", draw)
    assert len(np.unique(space.sample(jax.random.key(0), 5), axis=0)) == 5
    again = space.sample(jax.random.key(0), 10, replace=True)
    assert np.array_equal(again, draw(jax.random.key(0), 10))
    assert len(np.unique(again, axis=0)) <= 5


def test_identities_are_not_negative_and_differ_where_cells_do():
    words = space.identity(space.sample(jax.random.key(1), 1000))
    assert words.dtype == np.int32
    assert words.min() >= 0
    assert len(np.unique(words, axis=0)) == 1000


@given(genotypes(), genotypes(), st.integers(0, 27))
def test_identity_is_exact(case, other, edge):
    row, other = case[1], other[1]
    # Also of a row that differs on one edge only.
    near = row.copy()
    near[edge] = (near[edge] + 1) % 8
    rows = np.stack([row, other, near, row])
    words = space.identity(rows)
    assert words.dtype == np.int32
    assert (words >= 0).all()
    assert np.array_equal(words[0], words[3])
    assert not np.array_equal(words[0], words[2])
    assert np.array_equal(words[0], words[1]) == np.array_equal(row, other)
    # The operations can be read off it again.
    numbers = [sum(int(w) << 30 * i for i, w in enumerate(of_cell)) for of_cell in words]
    assert [[n >> 3 * e & 7 for e in range(28)] for n in numbers] == rows.tolist()


def reads_of(row):
    """What every node of both cells reads: a set of (source, operation), 8 of them."""
    reads = []
    for cell in np.reshape(row, (2, 14)):
        for node in NODES:
            edges = [(s, op) for (s, n), op in zip(CELL_EDGES, cell, strict=True) if n == node]
            reads.append(frozenset((source, int(op)) for source, op in edges if op))
    return tuple(reads)


def is_one_change(before, after):
    """Whether one edge has another operation or another source, or a node has one edge more."""
    lost, new = before - after, after - before
    if not lost:
        return len(new) == 1
    if len(lost) != 1 or len(new) != 1:
        return False
    (source, op), (other_source, other_op) = *lost, *new
    return (source == other_source) != (op == other_op)


def all_reads(node):
    """Everything that a node may read: at most two earlier nodes, by any operations."""
    some = [frozenset({(source, op)}) for source in range(node) for op in range(1, 8)]
    pairs = [a | b for a in some for b in some if min(a)[0] < min(b)[0]]
    return [frozenset(), *some, *pairs]


ALL_READS = {node: all_reads(node) for node in NODES}


@given(genotypes())
@settings(deadline=None, max_examples=20)
def test_neighbours_are_all_valid_cells_at_one_change(case):
    _, row = case
    found = space.neighbours(row)
    assert np.array_equal(space.check_genotypes(found), found)
    assert found.dtype == np.int32
    reads = reads_of(row)
    expected = {
        (*reads[:i], after, *reads[i + 1 :])
        for i, before in enumerate(reads)
        for after in ALL_READS[NODES[i % 4]]
        if is_one_change(before, after)
    }
    assert len(found) == len(expected)
    assert {reads_of(other) for other in found} == expected


def test_a_full_genotype_has_120_neighbours_and_is_a_neighbour_of_each():
    for row in space.sample(jax.random.key(2), 3):
        found = space.neighbours(row)
        assert found.shape == (120, 28)
        assert len(np.unique(found, axis=0)) == 120
        assert (np.count_nonzero(found, axis=1) == 16).all()
        for other in found:
            assert row.tolist() in space.neighbours(other).tolist()


@given(st.lists(genotypes(), min_size=1, max_size=5), st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=20)
def test_a_mutation_is_a_neighbour(cases, seed):
    rows = np.stack([row for _, row in cases])
    before = rows.copy()
    children = space.mutate(jax.random.key(seed), rows)
    assert np.array_equal(rows, before)
    assert children.shape == rows.shape
    assert children.dtype == np.int32
    for row, child in zip(rows, children, strict=True):
        assert child.tolist() in space.neighbours(row).tolist()


def test_mutations_are_all_neighbours_and_equally_likely():
    row = space.sample(jax.random.key(3), 1)[0]
    children = space.mutate(jax.random.key(0), np.tile(row, (3600, 1)))
    found, times = np.unique(children, axis=0, return_counts=True)
    assert np.array_equal(found, np.unique(space.neighbours(row), axis=0))
    # 30 of each on average, with a standard deviation of 5.5: five of them.
    assert (np.abs(times - 30) < 28).all()


def reached(cell):
    """Nodes of a cell, 14 operations, that an input reaches, found by walking from the inputs."""
    nodes = {0, 1}
    for _ in NODES:
        nodes |= {
            target
            for (source, target), op in zip(CELL_EDGES, cell, strict=True)
            if op and source in nodes
        }
    return nodes


@given(genotypes(), st.lists(st.booleans(), min_size=28, max_size=28))
def test_live_form_and_path_are_those_of_a_walk_from_the_inputs(case, kept):
    # Half of the edges taken away, so that nodes without any are common.
    row = case[1] * np.array(kept)
    live = space.prune_dead(row)
    expected = [
        op if source in reached(cell) else 0
        for cell in row.reshape(2, 14)
        for (source, _), op in zip(CELL_EDGES, cell, strict=True)
    ]
    assert live.tolist() == expected
    assert np.array_equal(space.prune_dead(live), live)
    assert space.has_path(row[None]).tolist() == [len(reached(row[:14])) > 2]


def test_edges_from_an_empty_node_are_dead():
    row = np.zeros((1, 28), int)
    row[0, CELL_EDGES.index((2, 3))] = 3
    row[0, CELL_EDGES.index((3, 4))] = 4
    row[0, CELL_EDGES.index((0, 4))] = 5
    row[0, 14] = 1
    live = space.prune_dead(row)
    assert np.flatnonzero(live).tolist() == [CELL_EDGES.index((0, 4)), 14]


# Python reads it, but does not write so many digits.
HUGE = "0x" + 5000 * "f"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("'sep_conv_3x3', 0", "'sep_conv_7x7', 0"), "normal, node 2: unknown operation"),
        ((", ('dil_conv_3x3', 2)]", "]"), "normal: found 7 edges, expected 8"),
        (("'dil_conv_3x3', 2", "'dil_conv_3x3', 5"), "normal, node 5: reads node 5"),
        (("'dil_conv_3x3', 2", "'dil_conv_3x3', 6"), "normal, node 5: reads node 6"),
        (("'dil_conv_3x3', 2", "'dil_conv_3x3', -1"), "normal, node 5: reads node -1"),
        (("'dil_conv_3x3', 2", "'dil_conv_3x3', 0"), "normal, node 5: reads node 0 twice"),
        (("'dil_conv_3x3', 2", "'dil_conv_3x3', 2.0"), "normal, node 5: found"),
        (("normal_concat=[2, 3, 4, 5]", "normal_concat=[4, 5]"), "normal_concat: found"),
        (("normal_concat=[2, 3, 4, 5]", "normal_concat=range(10**12)"), "expected the form"),
        (("normal_concat=[2, 3, 4, 5]", "normal_concat=range(2, 999999999)"), "normal_concat"),
        (("normal_concat", "concat"), "genotype: found fields"),
        (("'dil_conv_3x3'", "print('run')"), "expected the form"),
        (("Genotype", "dict"), "expected the form"),
        ((")]", ")"), "expected the form"),
        (("normal_concat=[2, 3, 4, 5]", f"normal_concat=[{HUGE}]"), "expected the form"),
        (("normal_concat=[2, 3, 4, 5]", f"normal_concat=range(2, {HUGE})"), "expected the form"),
        (("'dil_conv_3x3', 2", f"'dil_conv_3x3', -{HUGE}"), "expected the form"),
        (("normal_concat=[2, 3, 4, 5]", "normal_concat='a\\nb'"), r"found 'a\\nb', expected"),
        (("'dil_conv_3x3'", repr("x" * 10**6)), r"unknown operation 'x+\.\.\.x+', expected none"),
        (("reduce=", "normal=[], reduce="), "genotype: found fields .'normal', 'normal_concat', '"),
        ((TEXT, ""), "expected the form"),
    ],
)
def test_bad_text_is_named_in_one_line_and_never_run(change, message, capsys):
    with pytest.raises(InputError, match=message) as error:
        parse_genotype(TEXT.replace(*change))
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 300
    assert not capsys.readouterr().out


def test_anything_but_text_is_refused():
    # The last is a number that Python does not write either.
    for value in (None, TEXT.encode(), [TEXT], 10**5000):
        found = type(value).__name__
        with pytest.raises(InputError, match=f"genotype: found {found}, expected the form Genoty"):
            parse_genotype(value)


FRAGMENTS = st.text(max_size=3) | st.sampled_from(
    [
        *"()[]{},=:.*-\"'\\#@\n\0\f\u2028\ud800",
        *("[2, 3, 4, 5]", "range(10**12)", f"range(2, {HUGE})", "range()", "range(2, 6, 0)", HUGE),
        *("[" * 300, "(" * 90, "-" * 2000, "not " * 2000, "1" * 5000, "1e999", "1j", "True", "..."),
        *("lambda: 0", "(x := 1)", "*[1]", "**{}", "f'{1}'", "f'''{", "b'a'", "{[1]: 2}", "{1, 2}"),
        *("'a\\nb'", "'\u2028'", "'\\ud800'", "'\\q'", "'\\N{x}'", "1is 2", "await x", '"""'),
        *("Genotype(", "normal=", "normal=[],", "('skip_connect', 0)", "'sep_conv_3x3'", ", "),
    ]
)
VALUES = st.recursive(
    FRAGMENTS, lambda inner: st.lists(inner, max_size=4).map(", ".join).map("[{}]".format)
)


@given(st.one_of(spliced([TEXT], FRAGMENTS), st.lists(FRAGMENTS).map("".join)))
@settings(deadline=None, max_examples=200)
def test_any_text_is_a_genotype_or_refused(text):
    refusal(lambda: format_genotype(parse_genotype(text)))


@given(VALUES)
@settings(deadline=None, max_examples=200)
def test_any_value_in_the_place_of_another_is_read_or_refused(value):
    for place in ("[2, 3, 4, 5]", "('dil_conv_3x3', 2)", "'dil_conv_3x3'", "2)]"):
        text = TEXT.replace(place, value + place[2:] if place == "2)]" else value)
        refusal(lambda text=text: parse_genotype(text))


@given(values(st.integers(0, 7)) | arrays((), (28,), (1, 28)))
@settings(deadline=None, max_examples=200)
def test_anything_is_written_or_refused(value):
    refusal(lambda: parse_genotype(format_genotype(value)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(28, int), "genotypes: found shape"),
        (np.zeros((1, 14), int), "genotypes: found shape"),
        (np.zeros((1, 28)), "genotypes: found dtype float64"),
        (np.full((1, 28), 8), "genotype 0, edge 0: found operation index 8, expected 0..7"),
        (np.array([[0] * 16 + [1] * 3 + [0] * 9]), "genotype 0, reduce, node 3: found 3 edges"),
    ],
)
def test_bad_genotypes_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        space.check_genotypes(rows)


def test_sampling_no_cells_is_refused():
    with pytest.raises(InputError, match="number of samples: found 0"):
        space.sample(jax.random.key(0), 0)
