"""The network of NATS-Bench's size space as Flax modules (Dong et al. 2021, section 3.2).

It is the network of NAS-Bench-201 (stem, three stages of cells, two residual blocks that halve the
side, batch norm, ReLU, global average pool, linear layer) with a fixed cell, the best of
NAS-Bench-201, and a chosen number of channels in each of five layers. The stem has the channels of
the first layer. Where a cell's input has another number of channels than the cell, its skip is a
pointwise convolution with batch norm. Batch norm always uses the statistics of the mini-batch.

A static genotype builds the network with its own channels. A traced one builds the widest network
and masks it (`operations`): then the variables are the same for all genotypes, and weights are
scaled to the actual number of inputs when they are used. Both give the same numbers, and static
weights are the first of those of the widest network.

ReLUs and gradients are measured as in `spaces.nasbench201.network`, without masked channels.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.spaces.base import Cost, Genotype, SearchSpace
from epe_nas_jax.spaces.layers import convolution
from epe_nas_jax.spaces.layers.checks import check_images
from epe_nas_jax.spaces.layers.classifier import classify
from epe_nas_jax.spaces.layers.conv_bn import ConvBN, ConvBNParams
from epe_nas_jax.spaces.layers.gradient_probes import ENTROPY, SIZE, probe
from epe_nas_jax.spaces.layers.init import draw_layers, scale_to_fan_in
from epe_nas_jax.spaces.layers.pooling import halve
from epe_nas_jax.spaces.layers.relu_agreement import sow_relu_agreement
from epe_nas_jax.spaces.nats_sss import cost, operations
from epe_nas_jax.spaces.nats_sss.genotype import NUM_LAYERS, NUM_WIDTHS
from epe_nas_jax.spaces.nats_sss.operations import Width
from epe_nas_jax.spaces.nats_sss.space import NATS_SSS

# Source and target of each 3x3 convolution of the fixed cell. A skip leads from node 0 to node 3.
_CONVOLUTIONS = ((0, 1), (0, 2), (1, 2), (1, 3), (2, 3))
_SKIP_TENSOR = len(_CONVOLUTIONS)
_TENSORS_PER_LAYER = _SKIP_TENSOR + 1


class NatsSssNetwork(nn.Module):
    """The network of NATS-Bench's size space, a Flax module called with images and a genotype.

    Attributes:
      num_classes: K.
      channels: C, the fewest channels of a layer, and the step to the next choice, up to 8C.
      cells_per_stage: cells in each of the three stages.
      param_dtype: dtype of the weights.

    Examples:
      >>> network = epe_nas_jax.NatsSssNetwork(num_classes=10)
      >>> genotype = network.space.parse("8:16:32:32:64")
      >>> genotype.tolist()
      [0, 1, 3, 3, 7]
      >>> network.cost(genotype[None], side=32).params
      array([215234])
    """

    num_classes: int
    channels: int = 8
    cells_per_stage: int = 1
    param_dtype: jnp.dtype = jnp.float32

    @property
    def space(self) -> SearchSpace:
        """The search space of the channels."""
        return NATS_SSS

    @property
    def group_work(self) -> None:
        """None: no operation runs by groups of fixed size."""
        return None

    def activation_count(self, batch_shape: tuple[int, ...]) -> float:
        """How many numbers are kept for the backward pass of a score, for images `[N, H, H, 3]`."""
        # A cell keeps 5 convolutions' outputs and 3 nodes, and a skip with batch norm 3 arrays.
        # The stem and the head keep 3 and 4 arrays, a block 4 and its input at the halved side.
        stages = 11 * self.cells_per_stage * (1 + 1 / 4 + 1 / 16)
        kept = 3 + stages + 5 * (1 / 4 + 1 / 16) + 4 / 16
        return kept * math.prod(batch_shape[:3]) * NUM_WIDTHS * self.channels

    def cost(
        self, genotypes: np.ndarray, *, side: int, image_channels: int = 3, live: bool = False
    ) -> Cost:
        """Parameters and FLOPs of the networks of cells `[A, E]`, for images of side H.

        The value of `live` makes no difference: no network has dead operations.
        """
        del live
        sizes = cost.Sizes(self.channels, self.cells_per_stage, self.num_classes)
        return cost.count(genotypes, sizes, side=side, image_channels=image_channels)

    @nn.compact
    def __call__(self, images: jax.Array, genotype: Genotype) -> jax.Array:
        """Logits `[N, K]` of images `[N, H, H, 3]`; genotype is int `[E]`, static or traced.

        Raises:
          InputError: images are not square, floating and of a side divisible by 4.
        """
        check_images(images)
        drawn = self._draw(images.shape[-1])
        widths = self._widths(genotype)
        dtype, largest = self.param_dtype, NUM_WIDTHS * self.channels

        x = Stem(largest, dtype, name="stem")(images, widths[0], drawn[0])
        before, number = widths[0], 1
        for layer, width in enumerate(widths):
            if layer % 2:
                block = Reduction(largest, dtype, name=f"reduction_{layer // 2}")
                x = block(x, before, width, drawn[number])
                before, number = width, number + 1
                continue
            for i in range(self.cells_per_stage):
                cell = Cell(largest, dtype, name=f"cell_{layer // 2 * self.cells_per_stage + i}")
                x = cell(x, before, width, drawn[number])
                # The last stage's gradient comes from the head and has one direction per class.
                if layer < NUM_LAYERS - 1:
                    x = width.mask(probe(self, ENTROPY, x))
                before, number = width, number + 1
        x = before.mask(probe(self, SIZE, x))
        return Head(self.num_classes, dtype, name="head")(x, before, drawn[number])

    def _draw(self, image_channels: int) -> jax.Array:
        """Draws U(-1, 1) for all weights, `[layers, tensors, size]`."""
        # Drawn once at the root, so that no weight depends on a module's name.
        key = self.make_rng("params") if self.is_initializing() else None
        largest = NUM_WIDTHS * self.channels
        size = largest * max(9 * largest, 9 * image_channels, self.num_classes)
        num_layers = 4 + 3 * self.cells_per_stage
        return draw_layers(key, 0, num_layers, _TENSORS_PER_LAYER, size, self.param_dtype)

    def _widths(self, genotype: Genotype) -> list[Width]:
        """The widths of the five layers, traced if any entry of the genotype is."""
        if any(isinstance(index, jax.Array) for index in genotype):
            largest = NUM_WIDTHS * self.channels
            indices = jnp.asarray(genotype, jnp.int32)
            return [Width(self.channels * (indices[i] + 1), largest) for i in range(NUM_LAYERS)]
        used = [self.channels * (int(index) + 1) for index in genotype]
        return [Width(width, width) for width in used]


def _kernel(drawn: jax.Array, side: int, inputs: Width, outputs: Width, largest: int) -> jax.Array:
    """A kernel `[side, side, C, O]`: the first channels of the kernel of the largest width."""
    shape = (side, side, max(inputs.built, largest), largest)
    kernel = scale_to_fan_in(drawn, shape, fan_in=side**2 * inputs.built)
    return kernel[:, :, : inputs.built, : outputs.built]


class Stem(nn.Module):
    """Convolution 3x3 and batch norm: `[N, H, H, 3]` to `[N, H, H, C]`."""

    largest: int
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, images: jax.Array, outputs: Width, drawn: jax.Array) -> jax.Array:
        inputs = Width(images.shape[-1], images.shape[-1])
        kernel = _kernel(drawn[0], 3, inputs, outputs, self.largest)
        weights = ConvBNParams(kernel.shape, self.param_dtype, name="conv_bn")(kernel)
        return operations.conv_bn(images, weights, inputs, outputs)


class Cell(nn.Module):
    """The fixed cell, `[N, H, H, C]` to `[N, H, H, O]`: a node is the sum of its edges."""

    largest: int
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, inputs: Width, outputs: Width, drawn: jax.Array) -> jax.Array:
        nodes: list[jax.Array] = [x]
        widths = [inputs, outputs, outputs]
        for target in (1, 2, 3):
            incoming = [
                self._convolve(number, nodes[source], widths[source], outputs, drawn)
                for number, (source, end) in enumerate(_CONVOLUTIONS)
                if end == target
            ]
            nodes.append(sum(incoming[1:], start=incoming[0]))
        for source, width in enumerate(widths):
            num_relus = sum(start == source for start, _ in _CONVOLUTIONS)
            _sow_relus(self, f"relus_{source}", nodes[source], width, num_relus)
        return nodes[-1] + self._skip(x, inputs, outputs, drawn[_SKIP_TENSOR])

    def _convolve(
        self, number: int, x: jax.Array, inputs: Width, outputs: Width, drawn: jax.Array
    ) -> jax.Array:
        weights = self._weights(f"conv_{number}", drawn[number], 3, inputs, outputs)
        return operations.relu_conv_bn(x, weights, inputs, outputs)

    def _skip(self, x: jax.Array, inputs: Width, outputs: Width, drawn: jax.Array) -> jax.Array:
        """The input or, where its width differs, a convolution of it; a traced width needs both."""
        if inputs is outputs or (not inputs.is_masked and inputs == outputs):
            return x
        weights = self._weights("skip", drawn, 1, inputs, outputs)
        y = operations.conv_bn(x, weights, inputs, outputs)
        return jnp.where(inputs.used == outputs.used, x, y) if inputs.is_masked else y

    def _weights(
        self, name: str, drawn: jax.Array, side: int, inputs: Width, outputs: Width
    ) -> ConvBN:
        kernel = _kernel(drawn, side, inputs, outputs, self.largest)
        return ConvBNParams(kernel.shape, self.param_dtype, name=name)(kernel)


class Reduction(nn.Module):
    """Residual block that halves the size: `[N, H, H, C]` to `[N, H/2, H/2, O]`."""

    largest: int
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, inputs: Width, outputs: Width, drawn: jax.Array) -> jax.Array:
        def conv(name: str, number: int, x: jax.Array, inputs: Width, stride: int) -> jax.Array:
            kernel = _kernel(drawn[number], 3, inputs, outputs, self.largest)
            weights = ConvBNParams(kernel.shape, self.param_dtype, name=name)(kernel)
            return operations.relu_conv_bn(x, weights, inputs, outputs, stride)

        _sow_relus(self, "relus_a", x, inputs)
        y = conv("conv_a", 0, x, inputs, stride=2)
        _sow_relus(self, "relus_b", y, outputs)
        y = conv("conv_b", 1, y, outputs, stride=1)
        kernel = _kernel(drawn[2], 1, inputs, outputs, self.largest)
        shortcut = convolution.convolve(halve(x), self.param("shortcut", lambda _: kernel))
        return y + outputs.mask(inputs.fan_in_factor(x.dtype) * shortcut)


class Head(nn.Module):
    """Batch norm, ReLU, global average pool and linear layer: `[N, H, H, C]` to `[N, K]`."""

    num_classes: int
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, width: Width, drawn: jax.Array) -> jax.Array:
        size = (width.built,)
        scale = self.param("scale", nn.initializers.ones, size, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, size, self.param_dtype)
        x = operations.batch_norm(x, scale, bias, width)
        _sow_relus(self, "relus", x, width)
        features = jnp.mean(nn.relu(x), axis=(1, 2))
        logits = classify(self, features, self.num_classes, drawn)
        return width.fan_in_factor(x.dtype) * logits


def _sow_relus(
    module: nn.Module, name: str, x: jax.Array, width: Width, num_relus: int = 1
) -> None:
    """Sows the agreement of ReLUs that read `[N, H, H, C]`, without masked channels."""
    num_absent = width.num_absent * math.prod(x.shape[1:3])
    sow_relu_agreement(module, name, x, num_relus, num_absent)
