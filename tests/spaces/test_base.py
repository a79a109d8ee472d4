import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epe_nas_jax import InputError
from epe_nas_jax.spaces.base import check_num_samples, check_rows
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
    with pytest.raises(InputError, match="number of samples: found 0, expected at least 1"):
        check_num_samples(SPACES[name].space, 0, replace=replace)


def test_a_space_that_is_too_large_to_list_has_enough_cells():
    check_num_samples(SPACES["darts"].space, 10**9, replace=False)
