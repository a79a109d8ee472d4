"""The micro search space of TransNAS-Bench-101: cells as text and as genotypes.

A cell has 4 nodes and 6 edges; each edge has one of 4 operations (Duan et al. 2021, section 3.1).
The two names of a cell:

* text: ``64-41414-a_bc_def``, as the benchmark writes it: 64 channels of the stem, the skeleton of
  five modules that all micro cells share, and an operation's digit for every edge in `EDGES` order;
* genotype: ``int32[6]``, these six digits.

E is 6 here.
"""

import re
import reprlib

import jax
import numpy as np

from epe_nas_jax.arrays import as_array
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.product import Product

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
KERNEL_SIZES = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NUM_NODES = 4
# A digit a module: 4 halves the side and doubles the channels, 1 keeps both.
MODULES = "41414"
PRODUCT = Product(len(EDGES), len(OPERATIONS))

_SKELETON = f"64-{MODULES}"
_FORM = f"{_SKELETON}-a_bc_def with digits 0..{len(OPERATIONS) - 1}"
_PATTERN = re.compile(r"([0-9]+-[0-9]+)-([0-3])_([0-3]{2})_([0-3]{3})")
# The four ways through a cell, as indices of their edges.
_WAYS = ([3], [0, 4], [1, 5], [0, 2, 5])
# Time of each operation on a CPU core, roughly.
_RELATIVE_WORK = np.array([1, 1, 3, 9])


def parse(text: str) -> np.ndarray:
    """Reads a cell's text.

    Args:
      text: the cell as TransNAS-Bench-101 writes it.

    Returns:
      Its genotype, int32 `[E]`.

    Raises:
      InputError: the text is not of the form, or of another skeleton than 64-41414.
    """
    if not isinstance(text, str):
        raise InputError(f"cell: found {type(text).__name__}, expected a str like {_FORM}")
    match = _PATTERN.fullmatch(text)
    if not match:
        raise InputError(f"cell {reprlib.repr(text)}: expected the form {_FORM}")
    skeleton, *digits = match.groups()
    if skeleton != _SKELETON:
        raise InputError(
            f"cell {reprlib.repr(text)}: found the skeleton {reprlib.repr(skeleton)}, expected "
            f"{_SKELETON}, the only one of micro cells"
        )
    return np.array([int(digit) for digit in "".join(digits)], np.int32)


def format_cell(genotype: np.ndarray | jax.Array) -> str:
    """Writes a genotype, int `[E]`, as text.

    Raises:
      InputError: the genotype is not 6 operation indices.
    """
    row = PRODUCT.check(np.asarray(as_array(genotype, "genotype"))[None])[0]
    return "{}-{}_{}{}_{}{}{}".format(_SKELETON, *row)


def prune_dead(genotypes: np.ndarray) -> np.ndarray:
    """Genotypes, int `[..., E]`, with every operation on no path from input to output set to none.

    Such an operation changes neither the output nor the input Jacobian: what comes from a node
    without inputs is zero at the initial weights, batch norm's offset being zero.
    """
    rows = np.asarray(genotypes)
    is_real = rows != 0
    is_live = np.zeros(rows.shape, bool)
    for way in _WAYS:
        is_live[..., way] |= np.all(is_real[..., way], axis=-1, keepdims=True)
    return np.where(is_live, rows, 0)


def has_path(genotypes: np.ndarray) -> np.ndarray:
    """Whether real operations lead from input to output: bool `[...]` of genotypes `[..., E]`."""
    return np.any(prune_dead(genotypes) != 0, axis=-1)


def relative_work(genotypes: np.ndarray) -> np.ndarray:
    """How long genotypes, int `[A, E]`, take to score, in any unit: `[A]`."""
    return _RELATIVE_WORK[genotypes].sum(axis=1)
