import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epe_nas_jax import InputError
from epe_nas_jax.spaces.product import Product

SPACE = Product(3, 4)


def test_every_row_is_listed_once_in_the_order_of_its_code():
    every = SPACE.every()
    assert every.dtype == np.int32
    assert every.tolist() == [list(row) for row in itertools.product(range(4), repeat=3)]
    assert SPACE.size == len(every)


@given(st.integers(1, 6), st.integers(2, 8), st.data())
@settings(deadline=None, max_examples=50)
def test_code_and_row_are_each_others_inverse(num_entries, num_choices, data):
    space = Product(num_entries, num_choices)
    row = data.draw(
        st.lists(st.integers(0, num_choices - 1), min_size=num_entries, max_size=num_entries)
    )
    code = space.encode(np.array([row]))
    assert code.dtype == np.int32
    assert code[0] == int("".join(map(str, row)), num_choices)
    assert space.decode(code).tolist() == [row]
    assert space.identity(np.array([row])).tolist() == [code.tolist()]


@given(st.integers(1, 6), st.integers(2, 8), st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=50)
def test_neighbours_are_all_rows_at_one_change(num_entries, num_choices, seed):
    space = Product(num_entries, num_choices)
    row = np.random.default_rng(seed).integers(0, num_choices, num_entries)
    before = row.copy()
    found = space.neighbours(row)
    assert np.array_equal(row, before)
    assert found.dtype == np.int32
    assert np.array_equal(space.check(found), found)
    assert found.shape == (num_entries * (num_choices - 1), num_entries)
    assert len(np.unique(found, axis=0)) == len(found)
    assert (np.sum(found != row, axis=1) == 1).all()


def test_mutations_are_the_neighbours_and_equally_likely():
    row = np.array([3, 0, 2])
    children = np.asarray(SPACE.mutate(jax.random.key(0), np.tile(row, (1800, 1))))
    assert children.dtype == np.int32
    found, times = np.unique(children, axis=0, return_counts=True)
    assert np.array_equal(found, np.unique(SPACE.neighbours(row), axis=0))
    # 200 of each on average, with a standard deviation of 13: five of them.
    assert (np.abs(times - 200) < 67).all()


def test_samples_can_be_the_whole_space_or_repeat():
    all_rows = SPACE.sample(jax.random.key(0), 64)
    assert all_rows.dtype == np.int32
    assert np.array_equal(np.sort(SPACE.encode(all_rows)), np.arange(64))
    drawn = SPACE.sample(jax.random.key(0), 640, replace=True)
    _, times = np.unique(drawn, axis=0, return_counts=True)
    # 10 of each on average, with a standard deviation of 3.1: five of them.
    assert len(times) == 64
    assert (np.abs(times - 10) < 16).all()


@pytest.mark.parametrize(
    ("num_cells", "replace", "message"),
    [
        (0, False, "number of samples: found 0, expected at least 1"),
        (0, True, "number of samples: found 0, expected at least 1"),
        (65, False, "number of samples: found 65, expected at most 64 different cells"),
    ],
)
def test_samples_that_there_are_not_are_refused(num_cells, replace, message):
    with pytest.raises(InputError, match=message):
        SPACE.sample(jax.random.key(0), num_cells, replace=replace)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(3, int), r"found shape \(3,\), expected \[cells, 3\]"),
        (np.zeros((1, 3)), "found dtype float64"),
        (np.array([[0, 4, 0]]), "genotype 0, edge 1: found operation index 4, expected 0..3"),
    ],
)
def test_rows_of_another_space_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        SPACE.check(rows)
