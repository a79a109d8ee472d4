"""Reads arrays of NumPy, JAX, PyTorch or any other library, and nested lists."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.errors import InputError, type_of

Array = np.ndarray | jax.Array

# Formats to which GPUs and TPUs may round the factors of products, the finest first.
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")


def as_array(values: Any, name: str) -> Array:
    """Reads values as a NumPy or JAX array; arrays of these two are returned unchanged.

    Args:
      values: an array of any library that NumPy (`__array__`) or JAX (DLPack) can read, or nested
        lists of numbers or of such arrays.
      name: what the values are, for error messages.

    Raises:
      InputError: neither library can read the values, or they are not numbers.

    Examples:
      >>> from epe_nas_jax.arrays import as_array
      >>> as_array([[0, 1, 2], [3, 4, 5]], "labels").shape
      (2, 3)
    """
    if isinstance(values, np.ndarray):
        return values
    if isinstance(values, jax.Array):
        if jnp.issubdtype(values.dtype, jax.dtypes.extended):
            raise InputError(f"{name}: found {values.dtype}, expected an array of numbers")
        return values
    # Each library raises its own errors for arrays that it cannot hand over.
    try:
        array: Array = np.asarray(values)
    except Exception as error:
        # PyTorch hands over bfloat16 and arrays on a GPU by DLPack only.
        array = _by_dlpack(values, name, error)
    if array.dtype.kind in "OUS":
        raise InputError(f"{name}: found {type_of(values)}, expected an array of numbers")
    return array


def in_float32(array: Array) -> Array:
    """Converts floating point to the dtype of the computation: float32 for float16 and bfloat16.

    float64 stays where JAX has it enabled, and becomes float32 elsewhere. Arrays that are not
    floating point are returned unchanged.
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    is_wide = array.dtype.itemsize >= np.dtype(np.float64).itemsize
    dtype = jax.dtypes.canonicalize_dtype(np.float64 if is_wide else np.float32)
    return array if array.dtype == dtype else array.astype(dtype)


def is_integer(array: Array) -> bool:
    """Whether an array holds integers; NumPy counts its `timedelta64` among them, we do not."""
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
