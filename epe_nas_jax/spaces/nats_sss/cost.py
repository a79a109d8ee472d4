"""Counts parameters and FLOPs of networks of NATS-Bench's size space; NumPy only.

As for NAS-Bench-201 (`spaces.nasbench201.cost`), a multiply-add of a convolution or the classifier
counts as one, batch norm as 2 per value, ReLU as 1 per value, a 2x2 pool as 4 per output value, the
global pool of a side h as (h + 1)^2 per channel; sums and biases count nothing.
"""

from typing import NamedTuple

import numpy as np

from epe_nas_jax.spaces.base import Cost
from epe_nas_jax.spaces.nats_sss.genotype import PRODUCT

_BATCH_NORM, _RELU, _POOL = 2, 1, 4


class Sizes(NamedTuple):
    """The sizes of a network.

    Attributes:
      channels: C, the fewest channels of a layer, and the step to the next choice.
      cells_per_stage: cells in each of the three stages.
      num_classes: K.
    """

    channels: int
    cells_per_stage: int
    num_classes: int


def count(genotypes: np.ndarray, sizes: Sizes, *, side: int, image_channels: int = 3) -> Cost:
    """Counts parameters, and FLOPs of one image's forward pass.

    Args:
      genotypes: int `[A, E]`.
      sizes: sizes of the network.
      side: H, divisible by 4.
      image_channels: channels of the images.

    Raises:
      InputError: genotypes are not integers `[A, E]` in range.
    """
    widths = sizes.channels * (PRODUCT.check(genotypes).astype(np.int64).T + 1)
    before = widths[0]
    total = _conv(9, np.full_like(before, image_channels), before, side)
    total = total + _batch_norm(before, side)
    for layer, width in enumerate(widths):
        if layer % 2:
            total = total + _reduction(before, width, side)
            side //= 2
            before = width
        else:
            for _ in range(sizes.cells_per_stage):
                total = total + _cell(before, width, side)
                before = width
    params, flops = total + _batch_norm(before, side) + _relu(before, side)
    params = params + (before + 1) * sizes.num_classes
    flops = flops + before * (side + 1) ** 2 + before * sizes.num_classes
    return Cost(params, flops)


# Each function below returns parameters and FLOPs, int64 `[2, A]`.


def _cell(inputs: np.ndarray, outputs: np.ndarray, side: int) -> np.ndarray:
    """Two convolutions of the cell's input, three of nodes, and a skip."""
    convs = 2 * _relu_conv_bn(inputs, outputs, side) + 3 * _relu_conv_bn(outputs, outputs, side)
    skip = _conv(1, inputs, outputs, side) + _batch_norm(outputs, side)
    return convs + np.where(inputs == outputs, 0, skip)


def _reduction(inputs: np.ndarray, outputs: np.ndarray, side: int) -> np.ndarray:
    """A residual block that halves the side of its input."""
    half = side // 2
    first = _relu(inputs, side) + _conv(9, inputs, outputs, half) + _batch_norm(outputs, half)
    pool = np.stack([0 * inputs, _POOL * half**2 * inputs])
    return first + _relu_conv_bn(outputs, outputs, half) + pool + _conv(1, inputs, outputs, half)


def _relu_conv_bn(inputs: np.ndarray, outputs: np.ndarray, side: int) -> np.ndarray:
    return _relu(inputs, side) + _conv(9, inputs, outputs, side) + _batch_norm(outputs, side)


def _conv(taps: int, inputs: np.ndarray, outputs: np.ndarray, side: int) -> np.ndarray:
    """A convolution whose output has the given side."""
    weights = taps * inputs * outputs
    return np.stack([weights, side**2 * weights])


def _batch_norm(channels: np.ndarray, side: int) -> np.ndarray:
    return np.stack([2 * channels, _BATCH_NORM * side**2 * channels])


def _relu(channels: np.ndarray, side: int) -> np.ndarray:
    return np.stack([0 * channels, _RELU * side**2 * channels])
