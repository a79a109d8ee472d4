"""Arrays as users have them: of NumPy, JAX, PyTorch or any other library, or nested lists."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.errors import InputError, type_of

Array = np.ndarray | jax.Array

# What GPUs and TPUs may round the factors of products to, the finest first.
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")


def as_array(values: Any, name: str) -> Array:
    """Values as an array of NumPy's or JAX's; arrays of these two are returned as they are.

    >>> as_array(torch.zeros(2, 3), "images").shape
    (2, 3)

    Args:
      values: an array of any library that NumPy (`__array__`) or JAX (DLPack) can read, or nested
        lists of numbers or of such arrays.
      name: what it is, for messages.

    Raises:
      InputError: neither can read it, or it holds no numbers.
    """
    if isinstance(values, np.ndarray):
        return values
    if isinstance(values, jax.Array):
        if jnp.issubdtype(values.dtype, jax.dtypes.extended):
            raise InputError(f"{name}: found {values.dtype}, expected an array of numbers")
        return values
    # Each library has errors of its own for what it cannot hand over.
    try:
        array: Array = np.asarray(values)
    except Exception as error:
        # PyTorch hands its bfloat16, and what lies on a GPU, over by DLPack only.
        array = _by_dlpack(values, name, error)
    if array.dtype.kind in "OUS":
        raise InputError(f"{name}: found {type_of(values)}, expected an array of numbers")
    return array


def in_float32(array: Array) -> Array:
    """Floating point as JAX computes it here: float16 and bfloat16 as float32.

    float64 stays where JAX has it enabled, and is float32 elsewhere. What is no floating point is
    returned as it is.
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    is_wide = array.dtype.itemsize >= np.dtype(np.float64).itemsize
    dtype = jax.dtypes.canonicalize_dtype(np.float64 if is_wide else np.float32)
    return array if array.dtype == dtype else array.astype(dtype)


def is_integer(array: Array) -> bool:
    """Whether an array holds whole numbers; spans of time, which NumPy counts in, are none."""
    return jnp.issubdtype(array.dtype, jnp.integer) and array.dtype.kind != "m"


def _by_dlpack(values: Any, name: str, error: Exception) -> Array:
    try:
        return jnp.from_dlpack(values)
    except Exception as dlpack_error:
        reason = dlpack_error if hasattr(values, "__dlpack__") else error
        raise InputError(
            f"{name}: found {type_of(values)} that cannot be read as an array "
            f"({reason}), expected numbers"
        ) from None
