import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import torch

from epe_nas_jax import InputError
from epe_nas_jax.arrays import as_array, in_float32, is_integer

ROWS = [[0.5, 1.0], [-2.0, 3.0]]


@pytest.mark.parametrize(
    "values",
    [
        ROWS,
        tuple(map(tuple, ROWS)),
        np.array(ROWS),
        np.array(ROWS, np.float16),
        np.array(ROWS, ">f4"),
        jnp.array(ROWS),
        jnp.array(ROWS, jnp.bfloat16),
        torch.tensor(ROWS),
        torch.tensor(ROWS, dtype=torch.float64),
        torch.tensor(ROWS, dtype=torch.float16),
        torch.tensor(ROWS, dtype=torch.bfloat16),
        list(torch.tensor(ROWS)),
        [np.array(row) for row in ROWS],
        pd.DataFrame(ROWS),
        memoryview(np.array(ROWS)),
    ],
    ids=lambda values: type(values).__name__,
)
def test_arrays_of_any_library_are_read(values):
    array = as_array(values, "images")
    assert isinstance(array, np.ndarray | jax.Array)
    assert np.array_equal(np.asarray(array, np.float64), ROWS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0], [2.0, 3.0]], "found a list that cannot be read as an array"),
        (torch.zeros(2, requires_grad=True), r"found a Tensor .*tensor.detach\(\)"),
        (torch.zeros(2, device="meta"), "found a Tensor that cannot be read"),
        (torch.zeros(2, 2).to_sparse(), "found a Tensor that cannot be read"),
        (["a", "b"], "found a list, expected an array of numbers"),
        ("text", "found a str, expected an array of numbers"),
        (None, "found a NoneType, expected an array of numbers"),
        ({"x": 1}, "found a dict, expected an array of numbers"),
        (jax.random.key(0), r"found key<fry>, expected an array of numbers"),
        ((i for i in range(3)), "found a generator, expected an array of numbers"),
    ],
)
def test_what_is_no_array_is_refused_in_one_line(values, message):
    with pytest.raises(InputError, match=f"^images: {message}") as caught:
        as_array(values, "images")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("dtype", ["float16", jnp.bfloat16, "float32", "float64", "longdouble"])
def test_floating_point_is_computed_in_32_bits_or_in_64_where_jax_has_them(dtype, x64):
    array = np.array(ROWS).astype(dtype)
    with jax.enable_x64(x64):
        found = in_float32(array)
        # A warning of JAX's that it cuts the dtype off would be an error here.
        assert jnp.asarray(found).dtype == found.dtype
    is_wide = array.dtype.itemsize >= 8
    assert found.dtype == (np.float64 if x64 and is_wide else np.float32)
    assert np.array_equal(found, ROWS)


def test_integers_are_left_as_they_are_and_spans_of_time_are_none():
    for dtype in (np.int8, np.uint64):
        array = np.arange(3).astype(dtype)
        assert in_float32(array) is array
        assert is_integer(array)
    for array in (np.arange(3).astype("m8[s]"), np.arange(3).astype("M8[s]"), np.zeros(3)):
        assert not is_integer(array)
