"""Counts parameters and FLOPs of the network of NAS-Bench-101 cells, as published; NumPy only.

Both are those of the live form: the benchmark builds nothing else.
"""

from typing import Any, NamedTuple

import numpy as np

from epe_nas_jax.spaces.base import Cost
from epe_nas_jax.spaces.nasbench101.genotype import KERNEL_SIZES, OPERATIONS, check_genotypes
from epe_nas_jax.spaces.nasbench101.layout import layout_of, widths

NUM_STAGES = 3

_BATCH_NORM_AND_RELU, _POOL, _HALVING = 3, 9, 4


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


def count(genotypes: np.ndarray, sizes: Sizes, *, side: int, image_channels: int = 3) -> Cost:
    """Counts parameters, and FLOPs of one image's forward pass.

    Parameters are those of NAS-Bench-101's table. FLOPs are those that NASLib counts for
    NAS-Bench-Suite-Zero: a multiply-add of a convolution or the linear layer counts as one, batch
    norm as 2 per value, ReLU as 1 per value, a 3x3 pool as 9 and a 2x2 one as 4 per output value;
    sums, biases and the global mean count nothing.

    Args:
      genotypes: the cells, int `[A, E]`.
      sizes: sizes of the network.
      side: H, divisible by 4.
      image_channels: channels of the images.

    Raises:
      InputError: the rows are not genotypes of the space.
    """
    rows = check_genotypes(genotypes)
    channels = sizes.channels
    params, flops = _convolutions(3, image_channels, channels, side)
    total = np.full(len(rows), params, np.int64), np.full(len(rows), flops, np.int64)
    for stage in range(NUM_STAGES):
        wide, width = channels * 2**stage, side // 2**stage
        for number in range(sizes.cells_per_stage):
            is_first = number == 0
            channels_in = wide // 2 if stage and is_first else wide
            params, flops = _of_cell(rows, channels_in, wide, width)
            halving = _HALVING * channels_in * width**2 if stage and is_first else 0
            total = total[0] + params, total[1] + flops + halving
    last = channels * 2 ** (NUM_STAGES - 1)
    return Cost(
        total[0] + (last + 1) * sizes.num_classes,
        total[1] + last * sizes.num_classes,
    )


def _of_cell(
    rows: np.ndarray, channels_in: int, channels: int, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and FLOPs of a cell, int64 `[A]` each."""
    layout = layout_of(rows)
    num_parts = np.maximum(layout.num_parts, 1)[:, None]
    is_there = np.arange(layout.operations.shape[1]) < layout.num_vertices[:, None]
    wide = widths(layout.ranks, num_parts, channels).astype(np.int64) * is_there
    params, flops = np.zeros((2, len(rows)), np.int64)
    for name, size in KERNEL_SIZES.items():
        own = wide * (layout.operations == OPERATIONS.index(name))
        of_params, of_flops = _convolutions(size, own, own, side)
        params, flops = params + of_params.sum(axis=1), flops + of_flops.sum(axis=1)
    pooled = wide * (layout.operations == OPERATIONS.index("maxpool3x3"))
    flops = flops + _POOL * side**2 * pooled.sum(axis=1)
    whole = np.full((len(rows), 1), channels)
    projected = np.concatenate([wide, whole], axis=1) * layout.reads_input
    of_params, of_flops = _convolutions(1, channels_in, projected, side)
    return params + of_params.sum(axis=1), flops + of_flops.sum(axis=1)


def _convolutions(size: int, channels_in: Any, channels: Any, side: int) -> tuple[Any, Any]:
    """Parameters and FLOPs of a convolution with batch norm and ReLU, for ints or arrays."""
    weights = size**2 * channels_in * channels
    return weights + 2 * channels, side**2 * (weights + _BATCH_NORM_AND_RELU * channels)
