"""Counts parameters and FLOPs of a micro cell's network, exactly as published tables; NumPy only.

A multiply-add of a convolution or the classifier counts as one, batch norm as 2 per value, ReLU as
1 per value; sums and biases count nothing. The global average pool of a side h counts (h + 1)^2 per
channel, as in NASLib's counter (`spaces.nasbench201.cost`).
"""

from typing import NamedTuple

import numpy as np

from epe_nas_jax.spaces.base import Cost
from epe_nas_jax.spaces.transnas_micro.genotype import (
    EDGES,
    KERNEL_SIZES,
    MODULES,
    OPERATIONS,
    PRODUCT,
    prune_dead,
)

_BATCH_NORM, _RELU = 2, 1


class Sizes(NamedTuple):
    """The sizes of a network around a cell.

    Attributes:
      channels: C of the stem's output.
      cells_per_module: cells in each of the five modules.
      num_classes: K.
      last_activation: whether batch norm and ReLU come before the global pool.
    """

    channels: int
    cells_per_module: int
    num_classes: int
    last_activation: bool


def halved(side: int) -> int:
    """The side of an image after a stride of 2; a single pixel stays one."""
    return (side + 1) // 2


def count(
    genotypes: np.ndarray,
    sizes: Sizes,
    *,
    side: int,
    image_channels: int = 3,
    live: bool = False,
) -> Cost:
    """Counts parameters, as in the benchmark's tables, and FLOPs of one image's forward pass.

    Args:
      genotypes: the cells, int `[A, E]`.
      sizes: sizes of the network.
      side: H.
      image_channels: channels of the images.
      live: leave out operations on no path from input to output, as `genotype.prune_dead`; the
        tables count them.

    Raises:
      InputError: genotypes are not integers `[A, E]` in range.
    """
    cells = PRODUCT.check(genotypes)
    cells = prune_dead(cells) if live else cells
    channels, half, side = sizes.channels, sizes.channels // 2, halved(side)
    params = np.full(len(cells), 9 * image_channels * half + 2 * half, np.int64)
    flops = np.full(len(cells), side**2 * half * (9 * image_channels + _BATCH_NORM + _RELU))
    side = halved(side)
    params += 9 * half * channels + 2 * channels
    flops += side**2 * channels * (9 * half + _BATCH_NORM)
    for module in MODULES:
        for number in range(sizes.cells_per_module):
            halves = module == "4" and number == 0
            for edge, (source, _) in enumerate(EDGES):
                # Edges that do not leave the first node have the cell's output side and channels.
                inner = (2 * channels, halved(side), False)
                place = inner if halves and source > 0 else (channels, side, halves)
                table = np.array([_operation(name, *place) for name in OPERATIONS])
                params += table[cells[:, edge], 0]
                flops += table[cells[:, edge], 1]
            if halves:
                channels, side = 2 * channels, halved(side)
    if sizes.last_activation:
        params += 2 * channels
        flops += channels * side**2 * (_BATCH_NORM + _RELU)
    params += (channels + 1) * sizes.num_classes
    flops += channels * (side + 1) ** 2 + channels * sizes.num_classes
    return Cost(params, flops)


def _operation(name: str, channels: int, side: int, halves: bool) -> tuple[int, int]:
    """Parameters and FLOPs of an operation on `[side, side, channels]`."""
    if name == "none" or (name == "skip_connect" and not halves):
        return 0, 0
    outputs = 2 * channels if halves else channels
    values = outputs * (halved(side) if halves else side) ** 2
    inputs = channels * KERNEL_SIZES.get(name, 1) ** 2
    flops = _RELU * channels * side**2 + values * (inputs + _BATCH_NORM)
    return outputs * (inputs + 2), flops
