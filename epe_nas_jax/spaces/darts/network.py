"""The DARTS network for CIFAR as Flax modules (Liu et al. 2019, section 3.1 and its released code).

Stem (convolution 3x3 and batch norm, 3C channels), then cells, each of which reads the outputs of
the two before it; the cells at 1/3 and 2/3 are reduction cells, which halve the size and double the
channels; batch norm, ReLU, global average pool and a linear layer. Batch norm always uses the
statistics of the mini-batch.

It is DARTS's evaluation network without auxiliary head and drop path, and with the last batch norm
and ReLU of xautodl's `NASNetonCIFAR`. DARTS has none (`last_activation=False`): there most cells
end in a batch norm, whose sum over the mini-batch no image changes, so that the summed logits of
such a network have a zero input Jacobian, and it has no EPE-NAS score.

Genotypes are static or traced, and weights drawn, as in `spaces.nasbench201.network`.
"""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import Cost, Genotype, SearchSpace
from epe_nas_jax.spaces.darts import cost, operations
from epe_nas_jax.spaces.darts.genotype import CELL_EDGES, NODES, NUM_CELL_EDGES, OPERATIONS
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.layers import convolution
from epe_nas_jax.spaces.layers.batch_norm import normalise
from epe_nas_jax.spaces.layers.checks import check_images
from epe_nas_jax.spaces.layers.conv_bn import ConvBN, ConvBNParams, relu_conv_bn
from epe_nas_jax.spaces.layers.gradient_probes import ENTROPY, SIZE, probe
from epe_nas_jax.spaces.layers.init import draw_layers, scale_to_fan_in

# Number of an operation's first drawn tensor on an edge, and kernel size. Tensor 0: skip_connect's.
_SEPARABLE = {
    "sep_conv_3x3": (1, 3),
    "sep_conv_5x5": (5, 5),
    "dil_conv_3x3": (9, 3),
    "dil_conv_5x5": (11, 5),
}
_TENSORS_PER_EDGE = 13
# A convolution before the edges sees up to 4C channels, as many as 4 drawn tensors are for.
_TENSORS_PER_PREPROCESSING = 4
_FIRST_EDGE_TENSOR = 2 * _TENSORS_PER_PREPROCESSING
_TENSORS_PER_LAYER = _FIRST_EDGE_TENSOR + _TENSORS_PER_EDGE * NUM_CELL_EDGES


class DartsNetwork(nn.Module):
    """A network built from a pair of cells; `init(key, images, genotype)` and `apply` as in Flax.

    Attributes:
      num_classes: K.
      channels: C, channels of the first cells' nodes; even.
      num_cells: number of cells, at least 3.
      last_activation: batch norm and ReLU before the pooling; without them a score is noise.
      param_dtype: dtype of the weights.
    """

    num_classes: int
    channels: int = 36
    num_cells: int = 20
    last_activation: bool = True
    param_dtype: jnp.dtype = jnp.float32

    @property
    def space(self) -> SearchSpace:
        """The search space of the cells."""
        return DARTS

    @property
    def group_work(self) -> None:
        """No operation runs by groups of fixed size."""
        return None

    def activation_count(self, batch_shape: tuple[int, ...]) -> float:
        """How many numbers a score keeps for the backward pass, for images `[N, H, H, 3]`."""
        # A cell's inputs, preprocessed inputs, nodes and output; stages as in `network`.
        per_pixel = 24 * self.channels * self.num_cells / 3 * (1 + 1 / 2 + 1 / 4)
        return batch_shape[0] * batch_shape[1] * batch_shape[2] * per_pixel

    def cost(
        self, genotypes: np.ndarray, *, side: int, image_channels: int = 3, live: bool = False
    ) -> Cost:
        """Parameters and FLOPs of the networks of cells `[A, E]`, for images of side H."""
        sizes = cost.Sizes(self.channels, self.num_cells, self.num_classes, self.last_activation)
        return cost.count(genotypes, sizes, side=side, image_channels=image_channels, live=live)

    @nn.compact
    def __call__(self, images: jax.Array, genotype: Genotype) -> jax.Array:
        """Logits `[N, K]` of images `[N, H, H, 3]`; genotype is int `[E]`, static or traced.

        Raises:
          InputError: images are not square, floating and of a side divisible by 4; channels are
            odd, or there are fewer than 3 cells.
        """
        check_images(images)
        if self.channels % 2 or self.channels < 2:
            raise InputError(f"channels: found {self.channels}, expected an even number")
        if self.num_cells < 3:
            raise InputError(f"number of cells: found {self.num_cells}, expected at least 3")
        key = self.make_rng("params") if self.is_initializing() else None
        dtype = self.param_dtype

        def draw(layer: int, num_layers: int, size: int) -> jax.Array:
            return draw_layers(key, layer, num_layers, _TENSORS_PER_LAYER, size, dtype)

        shape = (3, 3, images.shape[-1], cost.STEM_MULTIPLIER * self.channels)
        kernel = scale_to_fan_in(draw(0, 1, 9 * shape[2] * shape[3])[0, 0], shape)
        kernel, scale, bias = ConvBNParams(shape, dtype, name="stem")(kernel)
        before = last = normalise(convolution.convolve(images, kernel), scale, bias)[0]

        starts = (0, self.num_cells // 3, 2 * self.num_cells // 3, self.num_cells)
        for stage, (start, stop) in enumerate(itertools.pairwise(starts)):
            channels = self.channels * 2**stage
            drawn = draw(1 + start, stop - start, channels * max(channels, 25))
            for i in range(start, stop):
                cell = DartsCell(channels, stage > 0 and i == start, dtype, name=f"cell_{i}")
                before, last = last, cell(before, last, genotype, drawn[i - start])
                if stage < 2:
                    last = probe(self, ENTROPY, last)
        last = probe(self, SIZE, last)

        if self.last_activation:
            size = last.shape[-1:]
            scale = self.param("last_scale", nn.initializers.ones, size, dtype)
            bias = self.param("last_bias", nn.initializers.zeros, size, dtype)
            last = nn.relu(normalise(last, scale, bias)[0])
        features = jnp.mean(last, axis=(1, 2))
        width = features.shape[-1]
        drawn = draw(1 + self.num_cells, 1, width * self.num_classes)[0]
        kernel = scale_to_fan_in(drawn[0], (width, self.num_classes))
        offset = scale_to_fan_in(drawn[1], (self.num_classes,), fan_in=width)
        kernel = self.param("classifier_kernel", lambda _: kernel)
        offset = self.param("classifier_bias", lambda _: offset)
        return features @ kernel + offset[None, :]


class DartsCell(nn.Module):
    """A normal or reduction cell: the outputs of the two cells before it to `[N, H, H, 4C]`.

    Attributes:
      channels: C, channels of a node.
      is_reduction: whether it halves the size.
      param_dtype: dtype of the weights.
    """

    channels: int
    is_reduction: bool
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, before: jax.Array, last: jax.Array, genotype: Genotype, drawn: jax.Array
    ) -> jax.Array:
        nodes = [self._preprocess(0, before, last, drawn), self._preprocess(1, last, last, drawn)]
        first = NUM_CELL_EDGES if self.is_reduction else 0
        for node in NODES:
            incoming = []
            for edge, (source, target) in enumerate(CELL_EDGES):
                if target == node:
                    op = genotype[first + edge]
                    op = op if isinstance(op, jax.Array) else int(op)
                    stride = 2 if self.is_reduction and source < 2 else 1
                    start = _FIRST_EDGE_TENSOR + edge * _TENSORS_PER_EDGE
                    weights = self._edge_weights(op, edge, stride, drawn[start:])
                    incoming.append(operations.apply_operation(op, nodes[source], weights, stride))
            nodes.append(sum(incoming[1:], start=incoming[0]))
        return jnp.concatenate([nodes[node] for node in NODES], axis=-1)

    def _preprocess(
        self, number: int, x: jax.Array, last: jax.Array, drawn: jax.Array
    ) -> jax.Array:
        """An input brought to the cell's channels, and to the size of the last output."""
        start = number * _TENSORS_PER_PREPROCESSING
        joined = drawn[start : start + _TENSORS_PER_PREPROCESSING].reshape(-1)
        weights = self._pointwise(f"preprocess_{number}", x.shape[-1], joined)
        if x.shape[1] != last.shape[1]:
            return operations.factorized_reduce(x, weights)
        return relu_conv_bn(x, weights)[0]

    def _edge_weights(
        self, op: int | jax.Array, edge: int, stride: int, drawn: jax.Array
    ) -> operations.DartsEdgeWeights:
        def is_built(name: str) -> bool:
            return isinstance(op, jax.Array) or OPERATIONS[op] == name

        def separable(name: str, number: int, size: int) -> operations.SeparableConvBN:
            return self._separable(f"edge_{edge}_{name}", size, drawn[number : number + 2])

        skip_connect = None
        if stride == 2 and is_built("skip_connect"):
            skip_connect = self._pointwise(f"edge_{edge}_skip_connect", self.channels, drawn[0])
        weights: dict[str, Any] = dict.fromkeys(_SEPARABLE)
        for name, (number, size) in _SEPARABLE.items():
            if is_built(name) and name.startswith("sep"):
                weights[name] = (
                    separable(f"{name}_0", number, size),
                    separable(f"{name}_1", number + 2, size),
                )
            elif is_built(name):
                weights[name] = separable(name, number, size)
        return operations.DartsEdgeWeights(skip_connect, **weights)

    def _separable(self, name: str, size: int, drawn: jax.Array) -> operations.SeparableConvBN:
        depthwise = scale_to_fan_in(drawn[0], (size, size, 1, self.channels))
        depthwise = self.param(f"{name}_depthwise", lambda _: depthwise)
        return operations.SeparableConvBN(depthwise, self._pointwise(name, self.channels, drawn[1]))

    def _pointwise(self, name: str, channels_in: int, drawn: jax.Array) -> ConvBN:
        shape = (1, 1, channels_in, self.channels)
        return ConvBNParams(shape, self.param_dtype, name=name)(scale_to_fan_in(drawn, shape))
