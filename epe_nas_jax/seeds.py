"""Checks seeds, and makes random keys and generators from them."""

import operator
from typing import Any

import jax
import numpy as np

from epe_nas_jax.errors import InputError

_MAX_SEED = 2**32 - 1


def check_seed(seed: Any, name: str = "seed") -> int:
    """Checks a seed and returns it as a Python int.

    JAX reads only 32 bits of a seed where it computes in 32 bits: a larger seed would give the same
    random numbers as a smaller one.

    Args:
      seed: a seed of any integer type.
      name: the seed's name in error messages.

    Raises:
      InputError: the seed is not an integer, or is outside 0..2^32 - 1.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number <= _MAX_SEED:
        raise InputError(f"{name}: found {seed!r}, expected a whole number in 0..{_MAX_SEED}")
    return number


def random_key(seed: Any, name: str = "seed") -> jax.Array:
    """Makes the JAX random key of a seed.

    Args:
      seed: an integer in 0..2^32 - 1.
      name: the seed's name in error messages.

    Raises:
      InputError: the seed is not an integer, or is out of range.

    Examples:
      >>> from epe_nas_jax.seeds import random_key
      >>> random_key(0) == jax.random.key(0)
      Array(True, dtype=bool)
      >>> random_key(-1)
      Traceback (most recent call last):
      ...
      epe_nas_jax.errors.InputError: seed: found -1, expected a whole number in 0..4294967295
    """
    return jax.random.key(check_seed(seed, name))


def generator(seed: Any, name: str = "seed") -> np.random.Generator:
    """Makes the NumPy random generator of a seed.

    Args:
      seed: an integer in 0..2^32 - 1.
      name: the seed's name in error messages.

    Raises:
      InputError: the seed is not an integer, or is out of range.

    Examples:
      >>> from epe_nas_jax.seeds import generator
      >>> generator(0).permutation(5).shape
      (5,)
    """
    return np.random.default_rng(check_seed(seed, name))
