"""The size search space of NATS-Bench: the channels of five layers, as text and as genotypes.

One cell is fixed, and each of five layers has 8, 16, ... or 64 channels (Dong et al. 2021, section
3.2): the cells of the first stage, a reduction block, the cells of the second stage, another block,
and the cells of the third stage. The two names of a choice:

* text: ``c1:c2:c3:c4:c5``, the channels, as NATS-Bench writes it;
* genotype: ``int32[5]``, 0 for 8 channels to 7 for 64.

What is called a cell elsewhere in the package is such a choice here; E is 5.
"""

import reprlib

import jax
import numpy as np

from epe_nas_jax.arrays import as_array
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.product import Product

NUM_LAYERS = 5
NUM_WIDTHS = 8
PRODUCT = Product(NUM_LAYERS, NUM_WIDTHS)

_STEP = 8
_WIDTHS = {str(_STEP * (index + 1)): index for index in range(NUM_WIDTHS)}
_FORM = f"c1:c2:c3:c4:c5 with channels {', '.join(_WIDTHS)}"


def parse(text: str) -> np.ndarray:
    """Reads the channels' text.

    Args:
      text: the channels as NATS-Bench writes them.

    Returns:
      Their genotype, int32 `[E]`.

    Raises:
      InputError: the text does not have this form, or a number of channels is not a choice.
    """
    if not isinstance(text, str):
        raise InputError(f"channels: found {type(text).__name__}, expected a str like {_FORM}")
    widths = text.split(":", NUM_LAYERS)
    if len(widths) != NUM_LAYERS:
        raise InputError(f"channels {reprlib.repr(text)}: expected the form {_FORM}")
    for width in widths:
        if width not in _WIDTHS:
            raise InputError(
                f"channels {reprlib.repr(text)}: found {reprlib.repr(width)}, expected the form "
                f"{_FORM}"
            )
    return np.array([_WIDTHS[width] for width in widths], np.int32)


def format_channels(genotype: np.ndarray | jax.Array) -> str:
    """Writes a genotype, int `[E]`, as text.

    Raises:
      InputError: the genotype is not 5 indices of channels.
    """
    row = PRODUCT.check(np.asarray(as_array(genotype, "genotype"))[None])[0]
    return ":".join(str(_STEP * (index + 1)) for index in row)


def has_path(genotypes: np.ndarray) -> np.ndarray:
    """Returns True for all genotypes, `[..., E]` to bool `[...]`: every network has a path."""
    return np.ones(np.shape(genotypes)[:-1], bool)


def relative_work(genotypes: np.ndarray) -> np.ndarray:
    """How long genotypes, int `[A, E]`, take to score, in any unit: `[A]`."""
    first, block, second, other_block, third = np.asarray(genotypes, np.int64).T + 1
    # Weights times pixels; each stage has a quarter of the pixels of the stage before.
    work = 16 * 5 * first**2
    work += 4 * (block * (first + block) + second * (2 * block + 3 * second))
    return work + other_block * (second + other_block) + third * (2 * other_block + 3 * third)
