"""Genotypes of NAS-Bench-301: pairs of DARTS cells in which a node may read another one twice.

Text and genotype, int32 `[28]`, are those of `spaces.darts`; but the value of an edge may also
stand for two operations that both read the edge's source (`spaces.darts.edges`). Such edges come
from texts only: random cells have none of them.
"""

import jax
import numpy as np

from epe_nas_jax.arrays import as_array
from epe_nas_jax.spaces.darts import genotype as cells
from epe_nas_jax.spaces.darts.edges import NUM_VALUES
from epe_nas_jax.spaces.darts.text import read_genotype, write_genotype


def parse_genotype(text: str) -> np.ndarray:
    """Reads a genotype's text; nothing in it is executed.

    Args:
      text: the cells as NAS-Bench-301 writes them. A pair with none means no edge.

    Returns:
      The genotype, int32 `[E]`.

    Raises:
      InputError: the text does not have this form, names an unknown operation, has another number
        of edges, or a node reads itself or a later node.
    """
    return read_genotype(text, may_read_twice=True)


def format_genotype(genotype: np.ndarray | jax.Array) -> str:
    """Writes a genotype, int `[E]`, as text, with the inputs of a node ordered by source.

    Missing inputs of a node are written as none, from the first sources that it does not read: the
    source of a none is not stored.

    Raises:
      InputError: the genotype is not one of the space.
    """
    return write_genotype(check_genotypes(np.asarray(as_array(genotype, "genotype"))[None])[0])


def check_genotypes(genotypes: np.ndarray | jax.Array) -> np.ndarray:
    """Checks that rows are genotypes of the space.

    Args:
      genotypes: integers `[A, E]` on the host.

    Returns:
      The genotypes as int32 `[A, E]`.

    Raises:
      InputError: wrong rank, shape or dtype, a value out of range, or a node with more than two
        inputs.
    """
    return cells.check_genotypes(genotypes, NUM_VALUES)


def identity(genotypes: np.ndarray | jax.Array) -> np.ndarray:
    """The exact identity of genotypes, int `[A, E]`: int32 `[A, W]`, W = 6."""
    return cells.identity(genotypes, bits=(NUM_VALUES - 1).bit_length())
