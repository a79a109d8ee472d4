"""Seeds: where one becomes random numbers, it is checked first."""

import operator
from typing import Any

import jax
import numpy as np

from epe_nas_jax.errors import InputError

_MAX_SEED = 2**32 - 1


def check_seed(seed: Any, name: str = "seed") -> int:
    """A seed as Python's int.

    JAX reads 32 bits of an integer where it computes in 32 bits: a seed beyond them would give the
    numbers of another one.

    Args:
      seed: any integer type.
      name: what it is the seed of, for messages.

    Raises:
      InputError: no integer, or one outside 0..2^32 - 1.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number <= _MAX_SEED:
        raise InputError(f"{name}: found {seed!r}, expected a whole number in 0..{_MAX_SEED}")
    return number


def random_key(seed: Any, name: str = "seed") -> jax.Array:
    """The random key of a seed; raises as `check_seed`."""
    return jax.random.key(check_seed(seed, name))


def generator(seed: Any, name: str = "seed") -> np.random.Generator:
    """NumPy's generator of a seed; raises as `check_seed`."""
    return np.random.default_rng(check_seed(seed, name))
