import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epe_nas_jax.spaces.layers.static_groups import group_rows, put_back

IDENTITY, NONE = 0, 1
OPERATIONS = {2: lambda x: x + 10, 3: lambda x: 2 * x}


def run(branch, x, capacities):
    groups = group_rows(jnp.asarray(branch), capacities, IDENTITY)
    results = [
        OPERATIONS[number](jnp.take(x, rows, axis=0))
        for number, rows in zip(capacities, groups.rows, strict=True)
    ]
    assert [len(rows) for rows in groups.rows] == list(capacities.values())
    return np.asarray(put_back(groups, results, x))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.data())
@settings(deadline=None, max_examples=30)
def test_every_row_gets_its_branch_whatever_room_is_left(branch, data):
    branch = np.array(branch, np.int32)
    x = np.arange(2.0 * len(branch)).reshape(-1, 2) + 1
    capacities = {
        number: data.draw(st.integers(max(1, np.sum(branch == number)), len(branch)))
        for number in OPERATIONS
    }
    functions = {IDENTITY: lambda x: x, NONE: lambda x: 0 * x, **OPERATIONS}
    expected = [functions[number](row) for number, row in zip(branch, x, strict=True)]
    assert np.array_equal(run(branch, x, capacities), expected)


def test_rows_beyond_the_room_are_nan_and_no_others():
    branch, x = np.array([2, 3, 2, 0, 2, 1]), np.ones((6, 1))
    found = run(branch, x, {2: 2, 3: 1})
    assert np.array_equal(found[:, 0], [11, 2, 11, 1, np.nan, 0], equal_nan=True)


@pytest.mark.parametrize("num_rows", [4, 8])
def test_the_program_has_no_loop_and_is_as_long_for_any_number_of_rows(num_rows):
    def program(num_rows):
        capacities = {2: num_rows // 2, 3: num_rows // 2}
        branch, x = jnp.zeros(num_rows, jnp.int32), jnp.zeros((num_rows, 3))
        return jax.jit(lambda b, x: put_back(group_rows(b, capacities, IDENTITY), [x, x], x)).lower(
            branch, x
        )

    text = program(num_rows).as_text()
    assert "stablehlo.while" not in text
    assert text.count("\n") == program(2).as_text().count("\n")
