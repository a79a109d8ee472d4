"""Counts parameters and FLOPs of a cell's network, exactly as published tables; NumPy only.

C is the number of channels of the first stage.
"""

from typing import NamedTuple

import numpy as np

from epe_nas_jax.spaces.nasbench201.genotype import (
    KERNEL_SIZES,
    OPERATIONS,
    check_genotypes,
    prune_dead,
)

NUM_STAGES = 3


class Sizes(NamedTuple):
    """The sizes of a network around a cell.

    Attributes:
      channels: C.
      cells_per_stage: cells in each of the three stages.
      num_classes: K.
    """

    channels: int
    cells_per_stage: int
    num_classes: int


class _Uses(NamedTuple):
    """On how many edges cells have each operation, int64 `[A]` each."""

    conv_1x1: np.ndarray
    conv_3x3: np.ndarray
    pool: np.ndarray


def parameters(
    genotypes: np.ndarray, sizes: Sizes, *, image_channels: int = 3, live: bool = False
) -> np.ndarray:
    """The number of trainable parameters, as in NAS-Bench-201's tables.

    Convolutions have no bias; batch norm has a scale and an offset per channel.

    Args:
      genotypes: the cells, int `[A, E]`.
      sizes: sizes of the network.
      image_channels: channels of the images.
      live: leave out operations on no path from input to output, as `genotype.prune_dead`; the
        tables count them.

    Returns:
      int64 `[A]`.

    Raises:
      InputError: genotypes are not integers `[A, E]` in range.
    """
    channels, cells_per_stage, num_classes = sizes
    uses = _uses(genotypes, live=live)
    first, last = channels, channels * 2 ** (NUM_STAGES - 1)
    # Stem; last batch norm and classifier.
    total = 9 * image_channels * first + 2 * first + 2 * last + (last + 1) * num_classes
    for stage in range(NUM_STAGES):
        c = channels * 2**stage
        cell = uses.conv_1x1 * (c * c + 2 * c) + uses.conv_3x3 * (9 * c * c + 2 * c)
        total = total + cells_per_stage * cell
        if stage:
            # Reduction block: two 3x3 convolutions with batch norm, the first from C/2 channels,
            # and a 1x1 convolution from C/2 channels.
            half = c // 2
            total = total + (9 * half * c + 2 * c) + (9 * c * c + 2 * c) + half * c
    return total


def flops(
    genotypes: np.ndarray,
    sizes: Sizes,
    *,
    side: int,
    image_channels: int = 3,
    live: bool = False,
) -> np.ndarray:
    """FLOPs of one image's forward pass, as NASLib counts them in NAS-Bench-Suite-Zero's tables.

    A multiply-add of a convolution or the classifier counts as one, batch norm as 2 per value, ReLU
    as 1 per value, a 3x3 average pool as 9 and a 2x2 one as 4 per output value. Sums and biases
    count nothing. The global average pool of a side h counts (h + 1)^2 per channel, because the
    counter of the tables assumes a window that is one pixel too large. NAS-Bench-201's own counter
    counts only convolutions and the classifier.

    Args:
      genotypes: the cells, int `[A, E]`.
      sizes: sizes of the network.
      side: H, divisible by 4.
      image_channels: channels of the images.
      live: leave out operations on no path from input to output, as `genotype.prune_dead`; the
        tables count them.

    Returns:
      int64 `[A]`.

    Raises:
      InputError: genotypes are not integers `[A, E]` in range.
    """
    channels, cells_per_stage, num_classes = sizes
    uses = _uses(genotypes, live=live)
    batch_norm, relu = 2, 1
    total = channels * side**2 * (9 * image_channels + batch_norm)
    for stage in range(NUM_STAGES):
        c, width = channels * 2**stage, side // 2**stage
        values = c * width**2
        cell = (
            uses.conv_1x1 * (relu + c + batch_norm)
            + uses.conv_3x3 * (relu + 9 * c + batch_norm)
            + uses.pool * 9
        )
        total = total + cells_per_stage * values * cell
        if stage:
            # The block's first ReLU sees C/2 channels at twice the width: 2 per value here. The 2x2
            # pool has C/2 output channels: 4 / 2 per value.
            half = c // 2
            first = 2 * relu + 9 * half + batch_norm
            second = relu + 9 * c + batch_norm
            total = total + values * (first + second + 4 // 2 + half)
    # c, width and values are those of the last stage.
    return total + values * (batch_norm + relu) + c * (width + 1) ** 2 + c * num_classes


def _uses(genotypes: np.ndarray, *, live: bool) -> _Uses:
    cells = check_genotypes(genotypes)
    cells = prune_dead(cells) if live else cells
    names = (*KERNEL_SIZES, "avg_pool_3x3")
    return _Uses(*[np.sum(cells == OPERATIONS.index(name), axis=1) for name in names])
