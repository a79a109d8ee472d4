"""The operations of vertices and projections of a cell, and a cell that is known statically.

Each convolution of the benchmark is followed by batch norm and a ReLU (Ying et al. 2019, section
2.2). A vertex keeps the output of its batch norm, from which the backward pass can compute both,
and whatever reads the vertex applies the ReLU. For max pools this ReLU changes nothing: a maximum
of ReLU outputs is not negative.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from epe_nas_jax.spaces.layers import convolution
from epe_nas_jax.spaces.layers.batch_norm import normalise, normalise_cotangent
from epe_nas_jax.spaces.layers.conv_bn import ConvBN
from epe_nas_jax.spaces.layers.pooling import max_pool_3x3
from epe_nas_jax.spaces.layers.relu_agreement import relu_agreement
from epe_nas_jax.spaces.nasbench101.genotype import OPERATIONS
from epe_nas_jax.spaces.nasbench101.layout import Layout, widths

POOL = OPERATIONS.index("maxpool3x3")


class CellWeights(NamedTuple):
    """Weights of a cell with O channels; None for what is not built.

    Attributes:
      convolutions: for each convolution, by operation index, its weights for each inner vertex,
        from O channels to O: a vertex uses the leading channels of both.
      projections: weights of the projections of the input to each inner vertex, of whose output
        channels it uses the leading ones, and to the output.
    """

    convolutions: tuple[tuple[ConvBN | None, ...], ...]
    projections: tuple[ConvBN | None, ...]


def leading(weights: ConvBN, channels_in: int, channels: int) -> ConvBN:
    """The leading channels of weights, with the kernel rescaled to its number of inputs."""
    kernel = weights.kernel[:, :, :channels_in, :channels]
    gain = math.sqrt(weights.kernel.shape[2] / channels_in)
    return ConvBN(kernel * gain, weights.scale[:channels], weights.bias[:channels])


def conv_bn(x: jax.Array, weights: ConvBN) -> tuple[jax.Array, jax.Array]:
    """Applies convolution and batch norm: `[N, H, H, C]` to `[N, H, H, O]`.

    Returns:
      The output and the inverse deviation `[O]`.
    """
    return normalise(convolution.convolve(x, weights.kernel), weights.scale, weights.bias)


def conv_bn_relu_cotangent(
    weights: ConvBN, y: jax.Array, inverse_std: jax.Array, dy: jax.Array
) -> jax.Array:
    """The input's cotangent of `conv_bn` followed by a ReLU.

    Args:
      weights: weights of the convolution and batch norm.
      y: the output of `conv_bn`, `[N, H, H, O]`.
      inverse_std: the inverse deviation that `conv_bn` returned, `[O]`.
      dy: the cotangent of the ReLU's output.
    """
    dy = jnp.where(y <= 0, 0, dy)
    dz = normalise_cotangent(y, weights.scale, weights.bias, inverse_std, dy)
    return convolution.input_cotangent(weights.kernel, dz)


def no_agreement(x: jax.Array) -> jax.Array:
    """The agreement of no ReLUs: zeros, int32 `[N, N]`, for x of N images."""
    return jnp.zeros((len(x), len(x)), jnp.int32)


def static_cell(
    x: jax.Array, weights: CellWeights, layout: Layout, channels: int, *, counts_relus: bool
) -> tuple[jax.Array, jax.Array]:
    """Runs a cell that is known statically: `[N, H, H, C]` to `[N, H, H, O]`.

    Args:
      x: the input.
      weights: weights of the cell's operations.
      layout: the cell, in NumPy.
      channels: O.
      counts_relus: whether to count in how many ReLUs two images agree.

    Returns:
      The output, and these counts, int32 `[N, N]`.
    """
    channels_in, num_parts = x.shape[-1], max(int(layout.num_parts), 1)
    read: list[jax.Array] = []
    values: list[jax.Array] = []

    def project(number: int, width: int) -> list[jax.Array]:
        projection = weights.projections[number]
        if not layout.reads_input[number]:
            return []
        assert projection is not None
        read.append(conv_bn(x, leading(projection, channels_in, width))[0])
        return [nn.relu(read[-1])]

    for vertex in range(layout.num_vertices):
        width = int(widths(layout.ranks[vertex], num_parts, channels))
        sources = [values[i][..., :width] for i in range(vertex) if layout.edges[i, vertex]]
        inputs = [*sources, *project(vertex, width)]
        total = sum(inputs[1:], start=inputs[0])
        operation = int(layout.operations[vertex])
        if operation == POOL:
            values.append(max_pool_3x3(total))
        else:
            convolution_of_vertex = weights.convolutions[operation][vertex]
            assert convolution_of_vertex is not None
            read.append(conv_bn(total, leading(convolution_of_vertex, width, width))[0])
            values.append(nn.relu(read[-1]))
    parts = [value for value, is_part in zip(values, layout.is_part, strict=False) if is_part]
    y = jnp.concatenate(parts, axis=-1) if parts else jnp.zeros((*x.shape[:3], channels), x.dtype)
    y = sum(project(-1, channels), start=y)
    agreements = [relu_agreement(each) for each in read] if counts_relus else []
    return y, sum(agreements, start=no_agreement(x))
