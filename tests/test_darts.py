import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epe_nas_jax import InputError, darts, format_genotype, parse_genotype

TEXT = darts.DARTS_V2
KNOWN = ("DARTS_V1", "DARTS_V2", "PC_DARTS", "P_DARTS", "GDAS")


@st.composite
def genotypes(draw):
    """A pair of cells as pairs of (operation, source), two a node, and as 28 operation indices."""
    cells, row = [], []
    for _ in range(2):
        pairs = []
        edge_ops = dict.fromkeys(darts.CELL_EDGES, 0)
        for node in darts.NODES:
            sources = draw(st.permutations(range(node)))[:2]
            for source in sources:
                op = draw(st.integers(0, 7))
                pairs.append((darts.OPERATIONS[op], source))
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
    row = parse_genotype(getattr(darts, name))
    assert np.count_nonzero(row) == 16
    assert np.array_equal(darts.live_form(row), row)


def test_samples_are_valid_different_and_have_every_operation_and_source():
    rows = np.asarray(darts.sample(jax.random.key(0), 500))
    assert np.array_equal(darts.check_genotypes(rows), rows)
    assert (np.count_nonzero(rows, axis=1) == 16).all()
    assert len(np.unique(rows, axis=0)) == 500
    counts = np.stack([np.sum(rows == op, axis=0) for op in range(1, 8)])
    assert (counts > 0).all()
    # An edge into node n is there with probability 2 / n.
    for edge, (_, node) in enumerate(darts.CELL_EDGES):
        assert np.isclose(counts[:, edge].sum() / 500, 2 / node, atol=0.1)


def test_codes_are_not_negative_and_tell_cells_apart():
    codes = darts.encode(darts.sample(jax.random.key(1), 1000))
    assert codes.dtype == np.int32
    assert codes.min() >= 0
    assert len(np.unique(codes)) == 1000


def test_edges_from_an_empty_node_are_dead():
    row = np.zeros((1, 28), int)
    row[0, darts.CELL_EDGES.index((2, 3))] = 3
    row[0, darts.CELL_EDGES.index((3, 4))] = 4
    row[0, darts.CELL_EDGES.index((0, 4))] = 5
    row[0, 14] = 1
    live = darts.live_form(row)
    assert np.flatnonzero(live).tolist() == [darts.CELL_EDGES.index((0, 4)), 14]


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
        ((TEXT, ""), "expected the form"),
    ],
)
def test_bad_text_is_named_in_one_line_and_never_run(change, message, capsys):
    with pytest.raises(InputError, match=message) as error:
        parse_genotype(TEXT.replace(*change))
    assert "\n" not in str(error.value)
    assert not capsys.readouterr().out


def test_anything_but_text_is_refused():
    with pytest.raises(InputError, match="expected the form"):
        parse_genotype(None)


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
        darts.check_genotypes(rows)


def test_sampling_no_cells_is_refused():
    with pytest.raises(InputError, match="number of samples: found 0"):
        darts.sample(jax.random.key(0), 0)
