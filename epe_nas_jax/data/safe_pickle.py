"""Reads arrays of numbers and plain containers from pickles, without running code of theirs.

A pickle can name any function and have it called. The unpickler here accepts only the five names
that pickled NumPy arrays use, and calls functions of its own for them: NumPy's functions trust the
shapes, types and addresses that a pickle gives.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from epe_nas_jax.errors import InputError


def load_arrays(name: str, content: bytes) -> dict[Any, Any]:
    """Reads a pickled dict of arrays and plain values, written by Python 2 or 3.

    Args:
      name: of the file, for messages.
      content: the pickle.

    Returns:
      The dict, its values that are arrays as NumPy's and its keys that are bytes as text. Arrays of
      bool, int, uint and float are read, in any layout. An array inside another value, such as a
      list, is not made into NumPy's.

    Raises:
      InputError: the bytes are no pickle, or a part of one; the pickle names another class or
        function, holds an array of objects or one whose shape does not fit its content, or a tuple
        in a tuple in a tuple, or its content is not a dict.
    """
    try:
        loaded = _ArrayUnpickler(name, content).load()
        if isinstance(loaded, dict):
            return {_as_text(key): _as_array(value) for key, value in loaded.items()}
    except InputError:
        raise
    # The unpickler can raise any exception on bytes that are no pickle.
    except Exception as error:
        raise InputError(f"{name}: not a readable pickle ({error})") from None
    raise InputError(f"{name}: found {type(_as_array(loaded)).__name__}, expected a dict")


class _Dtype:
    """What a pickled dtype becomes: a code, and which byte comes first."""

    def __init__(self, code: str | bytes, align: Any = False, copy: Any = False):
        del align, copy
        self._code, self._order = _as_text(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = _as_text(state[1])

    def of_numbers(self) -> np.dtype[Any]:
        """The NumPy dtype; never that of objects, whose arrays would be read as addresses."""
        dtype = np.dtype(self._order + self._code)
        if dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"an array of {dtype}")
        return dtype


class _Array:
    """What a pickled array becomes: a holder of a NumPy array, made from checked bytes."""

    array = np.zeros(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        self._fill(content, dtype, shape, "F" if is_fortran else "C")

    def _fill(self, content: bytes, dtype: _Dtype, shape: Any, order: Any) -> None:
        self.array = np.frombuffer(content, dtype.of_numbers()).reshape(shape, order=order)

    @classmethod
    def empty(cls, *_: Any) -> "_Array":
        """Replaces NumPy's `_reconstruct`, which leaves the rest to `__setstate__`."""
        return cls()

    @classmethod
    def from_buffer(cls, content: bytes, dtype: _Dtype, shape: Any, order: Any) -> "_Array":
        """Replaces NumPy's `_frombuffer`, which pickles of protocol 5 name."""
        array = cls()
        array._fill(content, dtype, shape, order)
        return array


def _shallow(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """Reads a tuple, but not one nested three deep: hashing a deeply nested one crashes Python."""

    def load_shallow(unpickler: Any) -> None:
        load(unpickler)
        inner = [item for item in unpickler.stack[-1] if isinstance(item, tuple)]
        if any(isinstance(item, tuple) for items in inner for item in items):
            raise pickle.UnpicklingError("a tuple in a tuple in a tuple")

    return load_shallow


class _ArrayUnpickler(pickle._Unpickler):
    """An unpickler that finds the classes and functions of `_FOUND` and no others.

    It extends Python's unpickler, which is no slower here: the one in C allocates as much memory as
    a pickle asks for.
    """

    dispatch = {  # noqa: RUF012
        **pickle._Unpickler.dispatch,
        # Python's own function for this code would allocate memory before it reads the content.
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
        **{
            code[0]: _shallow(pickle._Unpickler.dispatch[code[0]])
            for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
        },
    }

    def __init__(self, name: str, content: bytes):
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 has another name for the module that older pickles call numpy.core.
        found = _FOUND.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise InputError(
                f"{self._name}: names the class {module}.{name}, "
                "expected NumPy arrays and plain containers only"
            )
        return found


def _encode_latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"bytes as {encoding!r}")
    return text.encode("latin1")


# What is called for each name that a pickled array uses.
_FOUND = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array.empty,
    ("numpy.core.numeric", "_frombuffer"): _Array.from_buffer,
    # Python 3 writes bytes so in protocol 2.
    ("_codecs", "encode"): _encode_latin1,
}


def _as_text(value: Any) -> Any:
    """A value, as text if it is bytes: Python 2 wrote text as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _as_array(value: Any) -> Any:
    return value.array if isinstance(value, _Array) else value
