"""Counts parameters and FLOPs of the network of DARTS cells; NumPy only.

A multiply-add of a convolution or the classifier counts as one, batch norm as 2 per value, ReLU as
1 per value, a 3x3 pool as 9 per output value, the global pool as 1 per input value; sums and biases
count nothing. `spaces.nasbench201.cost` counts in the same way, except for the global pool.

In networks whose batch norms have no scale and offset, these count 1 per value, and the global pool
of a side h counts (h + 1)^2 per channel, as in the tables of NAS-Bench-301's networks.
"""

import itertools
from typing import NamedTuple

import numpy as np

from epe_nas_jax.spaces.base import Cost
from epe_nas_jax.spaces.darts.edges import (
    CELL_EDGES,
    NODES,
    NUM_CELL_EDGES,
    OPERATIONS,
    OPERATIONS_OF,
)
from epe_nas_jax.spaces.darts.genotype import prune_dead

STEM_MULTIPLIER = 3

_BATCH_NORM, _PLAIN_NORM, _RELU, _POOL = 2, 1, 1, 9


class Sizes(NamedTuple):
    """The sizes of a network around a pair of cells.

    Attributes:
      channels: C.
      num_cells: number of cells.
      num_classes: K.
      last_activation: whether batch norm and ReLU come before the global pool.
      plain_norm: as `DartsNetwork.plain_norm`.
    """

    channels: int
    num_cells: int
    num_classes: int
    last_activation: bool
    plain_norm: bool = False


def count(
    genotypes: np.ndarray,
    sizes: Sizes,
    *,
    side: int,
    image_channels: int = 3,
    live: bool = False,
) -> Cost:
    """Counts parameters, and FLOPs of one image's forward pass.

    Args:
      genotypes: the cells, checked, int `[A, E]`.
      sizes: sizes of the network.
      side: H.
      image_channels: channels of the images.
      live: leave out operations that read a node without edges, as `genotype.prune_dead`.
    """
    cells = (prune_dead(genotypes) if live else genotypes).reshape(-1, 2, NUM_CELL_EDGES)
    width = STEM_MULTIPLIER * sizes.channels
    params = np.full(len(cells), 9 * image_channels * width + 2 * width, np.int64)
    stem = 9 * image_channels + _BATCH_NORM
    flops = np.full(len(cells), side**2 * width * stem, np.int64)
    # Channels and side of the outputs of the last two cells.
    before = last = (width, side)
    starts = (0, sizes.num_cells // 3, 2 * sizes.num_cells // 3, sizes.num_cells)
    for stage, (start, stop) in enumerate(itertools.pairwise(starts)):
        channels = sizes.channels * 2**stage
        for number in range(start, stop):
            is_reduction = stage > 0 and number == start
            for width, its_side in (before, last):
                params += width * channels + 2 * channels
                flops += _RELU * width * its_side**2
                flops += channels * last[1] ** 2 * (width + _BATCH_NORM)
            edges = _edges(channels, last[1], is_reduction, sizes.plain_norm)
            which = cells[:, int(is_reduction)]
            for edge, (of_params, of_flops) in enumerate(edges):
                params += of_params[which[:, edge]]
                flops += of_flops[which[:, edge]]
            out_side = last[1] // 2 if is_reduction else last[1]
            before, last = last, (len(NODES) * channels, out_side)
    width, side = last
    if sizes.last_activation:
        params += 2 * width
        flops += width * side**2 * (_BATCH_NORM + _RELU)
    params += (width + 1) * sizes.num_classes
    flops += width * (side + sizes.plain_norm) ** 2 + width * sizes.num_classes
    return Cost(params, flops)


def _edges(
    channels: int, side: int, is_reduction: bool, plain_norm: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For every edge, the parameters and the FLOPs of each of its values, int64 `[values]`."""

    def table(side: int, stride: int) -> np.ndarray:
        rows = [_operation(name, channels, side, stride, plain_norm) for name in OPERATIONS]
        return np.array(rows, np.int64)[OPERATIONS_OF].sum(axis=1).T

    normal, reducing, halved = table(side, 1), table(side, 2), table(side // 2, 1)
    edges = []
    for source, _ in CELL_EDGES:
        own = normal
        if is_reduction:
            own = reducing if source < NODES[0] else halved
        edges.append((own[0], own[1]))
    return edges


def _operation(
    name: str, channels: int, side: int, stride: int, plain_norm: bool
) -> tuple[int, int]:
    """Parameters and FLOPs of an operation on `[side, side, channels]`."""
    values_in, values = channels * side**2, channels * (side // stride) ** 2
    norm = _PLAIN_NORM if plain_norm else _BATCH_NORM
    norm_params = 0 if plain_norm else 2 * channels
    pointwise = channels**2 + norm_params, values * (channels + norm)
    if name == "none" or (name == "skip_connect" and stride == 1):
        return 0, 0
    if name == "skip_connect":
        return pointwise[0], _RELU * values_in + pointwise[1]
    if name.endswith("pool_3x3"):
        return 0, (_POOL + (_PLAIN_NORM if plain_norm else 0)) * values
    taps = int(name[-1]) ** 2
    params = taps * channels + pointwise[0]
    after_depthwise = taps * values + pointwise[1]
    if name.startswith("dil"):
        return params, _RELU * values_in + after_depthwise
    return 2 * params, _RELU * (values_in + values) + 2 * after_depthwise
