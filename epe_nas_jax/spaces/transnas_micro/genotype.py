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
from epe_nas_jax.spaces import four_nodes
from epe_nas_jax.spaces.product import Product

# Those of NAS-Bench-201 except its pool.
OPERATIONS = four_nodes.OPERATIONS[:4]
KERNEL_SIZES = four_nodes.KERNEL_SIZES
EDGES = four_nodes.EDGES
NUM_NODES = four_nodes.NUM_NODES
# One digit per module: 4 halves the side and doubles the channels, 1 keeps both.
MODULES = "41414"
PRODUCT = Product(len(EDGES), len(OPERATIONS))

prune_dead = four_nodes.prune_dead
has_path = four_nodes.has_path
relative_work = four_nodes.relative_work

_SKELETON = f"64-{MODULES}"
_FORM = f"{_SKELETON}-a_bc_def with digits 0..{len(OPERATIONS) - 1}"
_PATTERN = re.compile(r"([0-9]+-[0-9]+)-([0-3])_([0-3]{2})_([0-3]{3})")


def parse(text: str) -> np.ndarray:
    """Reads the text of a TransNAS-Bench-101 micro cell.

    Args:
      text: the cell as TransNAS-Bench-101 writes it.

    Returns:
      Its genotype, int32 `[E]`.

    Raises:
      InputError: the text does not have this form, or its skeleton is not 64-41414.
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
