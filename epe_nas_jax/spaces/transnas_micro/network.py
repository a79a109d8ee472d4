"""The TransNAS-Bench-101 network of micro cells as Flax modules (Duan et al. 2021, section 3.1).

Stem (two convolutions 3x3 of stride 2 with batch norms, a ReLU between them) to C channels at a
quarter of the side; five modules of equal cells, of which the first, the third and the fifth halve
the side and double the channels in their first cell; batch norm, ReLU, global average pool and a
linear layer, the benchmark's head for its classification tasks. Batch norm always uses the
statistics of the mini-batch.

The benchmark's network has no batch norm and ReLU before the global pool
(`last_activation=False`). There every cell ends in sums of batch norms, whose sum over the
mini-batch no image changes, so that the summed logits have a zero input Jacobian, and no cell has
an EPE-NAS score.

Genotypes may be static or traced, and weights are drawn and ReLUs and gradients measured, as in
`spaces.nasbench201.network`.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import Cost, Genotype, SearchSpace
from epe_nas_jax.spaces.layers import convolution
from epe_nas_jax.spaces.layers.batch_norm import normalise
from epe_nas_jax.spaces.layers.checks import check_images
from epe_nas_jax.spaces.layers.classifier import classify
from epe_nas_jax.spaces.layers.conv_bn import ConvBN, ConvBNParams, relu_conv_bn
from epe_nas_jax.spaces.layers.gradient_probes import ENTROPY, SIZE, probe
from epe_nas_jax.spaces.layers.init import draw_layers, scale_to_fan_in
from epe_nas_jax.spaces.layers.relu_agreement import sow_relu_agreement
from epe_nas_jax.spaces.transnas_micro import cost, operations
from epe_nas_jax.spaces.transnas_micro.genotype import (
    EDGES,
    KERNEL_SIZES,
    MODULES,
    NUM_NODES,
    OPERATIONS,
)
from epe_nas_jax.spaces.transnas_micro.space import TRANSNAS_MICRO

_HALVES = "4"
# Where the weights of an operation start in an edge's tensor, in units of C times O.
_STARTS = {"nor_conv_3x3": 0, "nor_conv_1x1": 9, "skip_connect": 10}
_UNITS_PER_EDGE = 11


class TransNasMicroNetwork(nn.Module):
    """The network of a TransNAS-Bench-101 micro cell, called with images and a genotype.

    Attributes:
      num_classes: K.
      channels: C, channels of the stem's output; even.
      cells_per_module: cells in each of the five modules.
      last_activation: batch norm and ReLU before the pooling; without them a score is noise.
      param_dtype: dtype of the weights.

    Examples:
      >>> network = epe_nas_jax.TransNasMicroNetwork(num_classes=75)
      >>> genotype = network.space.parse("64-41414-3_02_123")
      >>> genotype.tolist()
      [3, 0, 2, 1, 2, 3]
      >>> network.cost(genotype[None], side=256).params
      array([15744363])
    """

    num_classes: int
    channels: int = 64
    cells_per_module: int = 2
    last_activation: bool = True
    param_dtype: jnp.dtype = jnp.float32

    @property
    def space(self) -> SearchSpace:
        """The search space of the cell."""
        return TRANSNAS_MICRO

    @property
    def group_work(self) -> None:
        """None: no operation runs by groups of fixed size."""
        return None

    def activation_count(self, batch_shape: tuple[int, ...]) -> float:
        """How many numbers are kept for the backward pass of a score, for images `[N, H, H, 3]`."""
        # A cell keeps 6 edges and 3 nodes; half the side and twice the channels halve the numbers.
        # The stem keeps two inputs of batch norm, a ReLU's of two units, and an output.
        kept = 6 + 9 * self.cells_per_module * (1 / 2 + 1 / 2 + 1 / 4 + 1 / 4 + 1 / 8)
        return kept * math.prod(batch_shape[:3]) / 16 * self.channels

    def cost(
        self, genotypes: np.ndarray, *, side: int, image_channels: int = 3, live: bool = False
    ) -> Cost:
        """Parameters and FLOPs of the networks of cells `[A, E]`, for images of side H."""
        sizes = cost.Sizes(
            self.channels, self.cells_per_module, self.num_classes, self.last_activation
        )
        return cost.count(genotypes, sizes, side=side, image_channels=image_channels, live=live)

    @nn.compact
    def __call__(self, images: jax.Array, genotype: Genotype) -> jax.Array:
        """Logits `[N, K]` of images `[N, H, H, 3]`; genotype is int `[E]`, static or traced.

        Raises:
          InputError: images are not square, floating and of a side that the strides divide, or
            channels are odd.
        """
        check_images(images)
        _check_side(images.shape[1])
        if self.channels % 2 or self.channels < 2:
            raise InputError(f"channels: found {self.channels}, expected an even number")
        # Drawn once at the root, so that no weight depends on a module's name.
        key = self.make_rng("params") if self.is_initializing() else None
        dtype = self.param_dtype

        size = 9 * self.channels * max(self.channels, images.shape[-1])
        drawn = draw_layers(key, 0, 1, len(EDGES), size, dtype)[0]
        x = Stem(self.channels, dtype, name="stem")(images, drawn)
        layer = 1
        for module, code in enumerate(MODULES):
            channels = x.shape[-1] * (2 if code == _HALVES else 1)
            size = _UNITS_PER_EDGE * channels**2
            drawn = draw_layers(key, layer, self.cells_per_module, len(EDGES), size, dtype)
            for number in range(self.cells_per_module):
                halves = code == _HALVES and number == 0
                cell = Cell(halves, dtype, name=f"cell_{layer - 1 + number}")
                x = cell(x, genotype, drawn[number])
                # The last module's gradient comes from the head and has one direction per class.
                if module < len(MODULES) - 1:
                    x = probe(self, ENTROPY, x)
            layer += self.cells_per_module
        x = probe(self, SIZE, x)
        drawn = draw_layers(key, layer, 1, len(EDGES), x.shape[-1] * self.num_classes, dtype)
        return Head(self.num_classes, self.last_activation, dtype, name="head")(x, drawn[0])


def _check_side(side: int) -> None:
    """Checks that every stride of 2 is applied to an even side or a single pixel.

    Raises:
      InputError: the strides of the stem and of three modules do not divide the side.
    """
    if side % 32 and side not in (4, 8, 16):
        raise InputError(
            f"images: found {side}x{side} pixels, expected a side divisible by 32, or 4, 8 or 16"
        )


class Stem(nn.Module):
    """Two convolutions of stride 2: `[N, H, H, 3]` to `[N, H/4, H/4, C]`."""

    channels: int
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, images: jax.Array, drawn: jax.Array) -> jax.Array:
        half = self.channels // 2
        shapes = (3, 3, images.shape[-1], half), (3, 3, half, self.channels)
        first, second = (
            ConvBNParams(shape, self.param_dtype, name=f"conv_bn_{number}")(
                scale_to_fan_in(drawn[number], shape)
            )
            for number, shape in enumerate(shapes)
        )
        x = convolution.convolve(images, first.kernel, 2)
        x = normalise(x, first.scale, first.bias)[0]
        sow_relu_agreement(self, "relus", x)
        return relu_conv_bn(x, second, stride=2)[0]


class Cell(nn.Module):
    """A searched cell: every node is the sum of its incoming edges.

    From `[N, H, H, C]` to the same shape, or where it halves to `[N, H/2, H/2, O]` with O = 2C.
    """

    halves: bool
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, genotype: Genotype, drawn: jax.Array) -> jax.Array:
        nodes = [x]
        for target in range(1, NUM_NODES):
            incoming = []
            for edge, (source, end) in enumerate(EDGES):
                if end == target:
                    op = genotype[edge]
                    op = op if isinstance(op, jax.Array) else int(op)
                    incoming.append(self._apply_edge(edge, op, nodes[source], drawn[edge]))
            nodes.append(sum(incoming[1:], start=incoming[0]))
        for source in range(NUM_NODES - 1):
            names = self._operations_with_relu(source)
            num_relus = sum(
                genotype[edge] == OPERATIONS.index(name)
                for edge in range(len(EDGES))
                if EDGES[edge][0] == source
                for name in names
            )
            sow_relu_agreement(self, f"relus_{source}", nodes[source], num_relus)
        return nodes[-1]

    def _operations_with_relu(self, source: int) -> tuple[str, ...]:
        """Names of the operations on a node's edges that start with a ReLU and have weights."""
        return tuple(_STARTS) if self.halves and source == 0 else tuple(KERNEL_SIZES)

    def _apply_edge(
        self, edge: int, op: int | jax.Array, x: jax.Array, drawn: jax.Array
    ) -> jax.Array:
        source = EDGES[edge][0]
        halves = self.halves and source == 0
        channels = x.shape[-1]
        channels_out = 2 * channels if halves else channels
        weights: dict[str, ConvBN | None] = dict.fromkeys(_STARTS)
        for name in self._operations_with_relu(source):
            if isinstance(op, jax.Array) or OPERATIONS[op] == name:
                size = KERNEL_SIZES.get(name, 1)
                shape = (size, size, channels, channels_out)
                own = drawn[_STARTS[name] * channels * channels_out :]
                module = ConvBNParams(shape, self.param_dtype, name=f"edge_{edge}_{name}")
                weights[name] = module(scale_to_fan_in(own, shape))
        return operations.apply_operation(op, x, operations.EdgeWeights(**weights), halves)


class Head(nn.Module):
    """Batch norm, ReLU, global average pool and linear layer: `[N, H, H, C]` to `[N, K]`."""

    num_classes: int
    last_activation: bool
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, drawn: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        if self.last_activation:
            scale = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
            bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
            x = normalise(x, scale, bias)[0]
            sow_relu_agreement(self, "relus", x)
            x = nn.relu(x)
        features = jnp.mean(x, axis=(1, 2))
        return classify(self, features, self.num_classes, drawn)
