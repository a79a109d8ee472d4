import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_inputs import arrays, values
from refusals import refusal

from epe_nas_jax import InputError
from epe_nas_jax.spaces.base import check_num_samples, check_rows, genotypes_of
from epe_nas_jax.spaces.table import SPACES


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), max_size=5))
def test_rows_of_any_integers_in_range_become_int32(rows):
    for dtype in (np.int8, np.int64, np.uint8):
        array = np.array(rows, dtype).reshape(-1, 3)
        checked = check_rows(array, 3, 4)
        assert checked.dtype == np.int32
        assert np.array_equal(checked, array)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(3, int), r"genotypes: found shape \(3,\), expected \[cells, 3\]"),
        (np.zeros((2, 4), int), r"genotypes: found shape \(2, 4\), expected \[cells, 3\]"),
        (np.zeros((1, 3)), "genotypes: found dtype float64, expected integers"),
        (np.zeros((1, 3), bool), "genotypes: found dtype bool, expected integers"),
        ([[0, 1, 4]], "genotype 0, edge 2: found operation index 4, expected 0..3"),
        ([[0, 1, 2], [3, -1, 4]], "genotype 1, edge 1: found operation index -1, expected 0..3"),
    ],
)
def test_other_rows_are_refused_by_the_first_that_is_wrong(rows, message):
    with pytest.raises(InputError, match=message):
        check_rows(rows, 3, 4)


CELLS = {name: entry.space.format([0] * entry.space.num_edges) for name, entry in SPACES.items()}


@given(
    values(st.sampled_from([*CELLS.values()]), st.integers(0, 4))
    | arrays((), (0,), (6,), (0, 6), (2, 6), (28,), (0, 28), (2, 28))
)
@settings(deadline=None, max_examples=200)
def test_cells_of_any_kind_are_genotypes_or_refused(cells):
    for entry in SPACES.values():

        def read(space=entry.space):
            rows = genotypes_of(cells, space)
            assert rows.dtype == np.int32
            assert rows.shape[1:] == (space.num_edges,)

        refusal(read)


class Length:
    """Has a length and nothing else."""

    def __len__(self):
        return 3


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("cells", [dict, list, Length(), object(), {1: 2}, iter("a"), b"a"])
def test_what_holds_no_cells_is_refused(name, cells):
    assert "expected" in refusal(lambda: genotypes_of(cells, SPACES[name].space))


@pytest.mark.parametrize("name", SPACES)
def test_texts_may_be_in_any_container(name):
    space, cell = SPACES[name].space, CELLS[name]
    texts = np.array([cell])
    for cells in (cell, [cell], (cell,), {cell}, {cell: 1}, texts, pd.Series(texts, index=[7])):
        assert genotypes_of(cells, space).tolist() == [[0] * space.num_edges]
    for cells in ([], (), {}, np.zeros(0), jnp.zeros(0)):
        assert genotypes_of(cells, space).shape == (0, space.num_edges)


def test_a_space_that_can_be_listed_gives_no_more_different_cells_than_it_has():
    space = SPACES["nasbench201"].space
    check_num_samples(space, 15625, replace=False)
    check_num_samples(space, 15626, replace=True)
    with pytest.raises(InputError, match="number of samples: found 15626, expected at most 15625"):
        check_num_samples(space, 15626, replace=False)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("replace", [False, True])
def test_no_cells_cannot_be_drawn_from_any_space(name, replace):
    check_num_samples(SPACES[name].space, 1, replace=replace)
    for number in (0, 10**7 + 1):
        message = rf"number of samples: found {number}, expected 1\.\.10000000"
        with pytest.raises(InputError, match=message):
            check_num_samples(SPACES[name].space, number, replace=replace)


def test_a_space_that_is_too_large_to_list_has_enough_cells():
    check_num_samples(SPACES["darts"].space, 10**7, replace=False)
