import os

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_inputs import arrays, spliced, values
from refusals import refusal

from epe_nas_jax import InputError, format_arch, parse_arch
from epe_nas_jax.spaces.nasbench201 import genotype as space

DATA = os.environ.get("EPE_NAS_JAX_DATA", "")
ARCH = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"

genotypes = st.lists(st.integers(0, 4), min_size=6, max_size=6)


def test_arch_string_lists_the_edges_node_by_node():
    assert parse_arch(ARCH).tolist() == [3, 0, 1, 4, 0, 2]
    assert parse_arch(ARCH).dtype == np.int32


def test_every_cell_round_trips_through_its_arch_string_and_code():
    cells = space.every_genotype()
    archs = [format_arch(cell) for cell in cells]
    assert len(set(archs)) == 15625
    assert np.array_equal([parse_arch(arch) for arch in archs], cells)
    assert np.array_equal(space.encode(cells), np.arange(15625))


@pytest.mark.parametrize(
    "arch",
    [
        "",
        ARCH[:-1],
        ARCH + "|",
        ARCH.replace("+", ""),
        ARCH.replace("none~0", "none~1"),
        ARCH.replace("|none~0|skip_connect~1|", "|skip_connect~1|none~0|"),
        ARCH.replace("|none~0|skip_connect~1|", "|skip_connect~1|"),
        " " + ARCH,
    ],
)
def test_malformed_arch_string_is_refused(arch):
    with pytest.raises(InputError, match="expected the form"):
        parse_arch(arch)


def test_unknown_operation_is_named():
    with pytest.raises(InputError, match="'max_pool_3x3'"):
        parse_arch(ARCH.replace("avg_pool", "max_pool"))


def test_arch_must_be_text():
    with pytest.raises(InputError, match="found int"):
        parse_arch(3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros(6, int), r"found shape \(6,\)"),
        (np.zeros((2, 5), int), r"found shape \(2, 5\)"),
        (np.zeros((1, 6)), "found dtype float64"),
        (np.array([[0, 1, 2, 3, 4, 5]]), "genotype 0, edge 5: found operation index 5"),
        (np.array([[0] * 6, [0, -1, 0, 0, 0, 0]]), "genotype 1, edge 1: found operation index -1"),
    ],
)
def test_bad_genotypes_are_refused(bad, message):
    with pytest.raises(InputError, match=message):
        space.check_genotypes(bad)


FRAGMENTS = st.sampled_from(
    [*"|~+0\n\0\x85\u2028\ud800", "none", "None", "none~0", "nor_conv_3x3", "|+|", "no ne", "{}"]
)


@given(st.text() | spliced([ARCH], FRAGMENTS | st.text(max_size=5)))
@settings(deadline=None, max_examples=200)
def test_any_text_is_a_cell_or_refused(text):
    def read():
        assert format_arch(parse_arch(text)) == text

    refusal(read)


@given(values(st.integers(0, 4)) | arrays((), (1,), (6,), (1, 6)))
@settings(deadline=None, max_examples=200)
def test_anything_is_a_genotype_or_refused(value):
    refusal(lambda: parse_arch(format_arch(value)))


def test_341_cells_have_no_path():
    assert np.sum(~space.has_path(space.every_genotype())) == 341


def reached(genotype):
    """Which node real operations reach from which, bool `[4, 4]`."""
    adjacency = np.eye(4, dtype=int)
    for (source, target), op in zip(space.EDGES, genotype, strict=True):
        adjacency[source, target] = op != 0
    return np.linalg.matrix_power(adjacency, 3) > 0


@given(genotypes)
def test_has_path_agrees_with_reachability(genotype):
    assert space.has_path(np.array(genotype)) == reached(genotype)[0, 3]


def test_there_are_9445_live_forms_one_of_them_empty():
    live = space.prune_dead(space.every_genotype())
    assert len(np.unique(live, axis=0)) == 9445
    assert np.sum(~live.any(axis=1)) == 341


@given(genotypes)
def test_live_form_keeps_the_operations_on_paths_and_no_others(genotype):
    is_reached = reached(genotype)
    on_a_path = [is_reached[0, source] & is_reached[target, 3] for source, target in space.EDGES]
    expected = np.where(on_a_path, genotype, 0)
    assert np.array_equal(space.prune_dead(np.array(genotype)), expected)


def test_there_are_6466_isomorphic_classes_those_of_nas_bench_201():
    structure = pytest.importorskip("xautodl.models.cell_searchs.genotypes").Structure
    cells = space.every_genotype()
    forms = [space.canonical_form(cell) for cell in cells]
    assert len(set(forms)) == 6466
    theirs = [
        structure.str2structure(format_arch(cell)).to_unique_str(consider_zero=True)
        for cell in cells
    ]
    assert len(set(theirs)) == len(set(zip(forms, theirs, strict=True))) == 6466


@pytest.mark.skipif(not DATA, reason="EPE_NAS_JAX_DATA does not name a folder with the table")
def test_isomorphic_classes_are_those_of_the_table():
    table = pd.read_csv(f"{DATA}/nasbench201.csv.gz", usecols=["arch", "iso_class"])
    forms = [space.canonical_form(parse_arch(arch)) for arch in table["arch"]]
    assert len(forms) == 15625
    assert len(set(forms)) == table["iso_class"].nunique() == 6466
    assert len(set(zip(forms, table["iso_class"], strict=True))) == 6466


def test_cells_of_one_form_compute_the_same():
    # Random maps that are not linear stand for the operations, the same on every edge.
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(5, 3, 3))
    cells = space.every_genotype()

    def apply(ops, node):
        ops = ops[:, None, None]
        real = np.tanh(maps[ops[:, 0, 0]] @ node)
        return np.where(ops == 0, 0, np.where(ops == 1, node, real))

    nodes = [np.broadcast_to(rng.normal(size=(3, 3)), (len(cells), 3, 3))]
    for node in range(1, 4):
        incoming = [
            apply(cells[:, edge], nodes[source])
            for edge, (source, target) in enumerate(space.EDGES)
            if target == node
        ]
        nodes.append(sum(incoming))
    # Rounding errors are below 1e-14; the outputs of different functions differ by far more.
    outputs = [output.tobytes() for output in np.round(nodes[-1], 8) + 0.0]
    forms = [space.canonical_form(cell) for cell in cells]
    assert len(set(zip(forms, outputs, strict=True))) == len(set(forms))
    # A sum of zeros, and sums in another order, are not seen to be equal.
    assert len(set(outputs)) == 4930


@given(genotypes)
def test_neighbours_differ_on_one_edge(genotype):
    others = space.neighbours(np.array(genotype))
    assert others.shape == (24, 6)
    assert (np.sum(others != np.array(genotype), axis=1) == 1).all()
    assert len({tuple(row) for row in others}) == 24


def test_neighbours_come_edge_by_edge_and_their_operations_increase():
    others = space.neighbours(np.array([3, 0, 1, 4, 0, 2]))
    assert others[:, 0].tolist() == [0, 1, 2, 4, *[3] * 20]
    assert others[4:8, 1].tolist() == [1, 2, 3, 4]
    assert others[-4:, 5].tolist() == [0, 1, 3, 4]


def test_mutations_are_the_neighbours_and_equally_likely():
    cell = np.array([3, 0, 1, 4, 0, 2])
    children = np.asarray(space.mutate(jax.random.key(0), np.tile(cell, (4800, 1))))
    assert children.dtype == np.int32
    found, times = np.unique(children, axis=0, return_counts=True)
    expected = {tuple(row) for row in space.neighbours(cell).tolist()}
    assert {tuple(row) for row in found.tolist()} == expected
    # 200 of each on average, with a standard deviation of 14: five of them.
    assert (np.abs(times - 200) < 70).all()


def test_sample_without_replacement_can_draw_the_whole_space():
    cells = space.sample(jax.random.key(0), space.NUM_CELLS)
    assert np.array_equal(np.sort(space.encode(cells)), np.arange(space.NUM_CELLS))


def test_sample_with_replacement_repeats_cells():
    codes = np.asarray(space.encode(space.sample(jax.random.key(0), 2000, replace=True)))
    # 2,000 draws from 15,625 repeat about 120 cells.
    assert len(set(codes.tolist())) < 2000


def test_sample_refuses_what_the_space_does_not_hold():
    with pytest.raises(InputError, match="at most 15625"):
        space.sample(jax.random.key(0), 15626)
    with pytest.raises(InputError, match="at least 1"):
        space.sample(jax.random.key(0), 0)
