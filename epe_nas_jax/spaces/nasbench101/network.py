"""The NAS-Bench-101 network as Flax modules (Ying et al. 2019, section 2.2 and figure 1).

Stem (convolution 3x3, batch norm, ReLU), then three stacks of equal cells at C, 2C and 4C channels
with a 2x2 max pool before the second and the third, then the global mean and a linear layer. The
first cell of a stack brings the channels to those of the stack. Batch norm always uses the
statistics of the mini-batch.

ReLUs and gradients are measured as in `spaces.nasbench201.network`.

A genotype is static or traced, as in `spaces.nasbench201.network`. Both are brought to the live
form: a vertex on no path is never built. A vertex's kernel is drawn for as many channels as the
stack has; the vertex uses the leading ones, rescaled to its number of inputs.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import Cost, Genotype, SearchSpace
from epe_nas_jax.spaces.layers.checks import check_images
from epe_nas_jax.spaces.layers.classifier import classify
from epe_nas_jax.spaces.layers.conv_bn import ConvBN, ConvBNParams
from epe_nas_jax.spaces.layers.gradient_probes import ENTROPY, SIZE, probe
from epe_nas_jax.spaces.layers.init import draw_layers, scale_to_fan_in
from epe_nas_jax.spaces.layers.relu_agreement import COLLECTION, sow_relu_agreement
from epe_nas_jax.spaces.nasbench101 import cost
from epe_nas_jax.spaces.nasbench101.branch import Plan, plan_of
from epe_nas_jax.spaces.nasbench101.genotype import (
    KERNEL_SIZES,
    NUM_INNER,
    OPERATIONS,
    check_genotypes,
)
from epe_nas_jax.spaces.nasbench101.layout import MOST_PARTS, Layout, layout_of
from epe_nas_jax.spaces.nasbench101.operations import CellWeights, conv_bn, static_cell
from epe_nas_jax.spaces.nasbench101.pooling import halve_by_maximum
from epe_nas_jax.spaces.nasbench101.space import NASBENCH101
from epe_nas_jax.spaces.nasbench101.traced_cell import traced_cell

# Kernels of a cell: 3x3, one per vertex; 1x1, one per vertex, and the projections, one more.
_WIDE_TENSORS, _NARROW_TENSORS = NUM_INNER, 2 * NUM_INNER + 1


class NasBench101Network(nn.Module):
    """The network of a NAS-Bench-101 cell, a Flax module called with images and a genotype.

    Attributes:
      num_classes: K.
      channels: C, channels of the stem and the first stack, at least 4; in the benchmark 128.
      cells_per_stage: cells in each of the three stacks.
      param_dtype: dtype of the weights.

    Examples:
      >>> network = epe_nas_jax.NasBench101Network(num_classes=10)
      >>> genotype = network.space.parse("11-1:input,conv3x3-bn-relu,output")
      >>> network.cost(genotype[None], side=32).params
      array([11051402])
    """

    num_classes: int
    channels: int = 128
    cells_per_stage: int = 3
    param_dtype: jnp.dtype = jnp.float32

    @property
    def space(self) -> SearchSpace:
        """The search space of the cell."""
        return NASBENCH101

    @property
    def group_work(self) -> None:
        """None: no operation runs by groups of fixed size."""
        return None

    def activation_count(self, batch_shape: tuple[int, ...]) -> float:
        """How many numbers are kept for the backward pass of a score, for images `[N, H, H, 3]`."""
        # A cell keeps 5 vertices and its input. Each stack has half the side and twice the
        # channels, so half the numbers of the stack before.
        kept = (NUM_INNER + 1) * self.cells_per_stage * (1 + 1 / 2 + 1 / 4)
        return kept * math.prod(batch_shape[:3]) * self.channels

    def cost(
        self, genotypes: np.ndarray, *, side: int, image_channels: int = 3, live: bool = False
    ) -> Cost:
        """Parameters and FLOPs of the networks of cells `[A, E]`, for images of side H.

        Both are those of the live form for any value of `live`: nothing else is built.
        """
        del live
        sizes = cost.Sizes(self.channels, self.cells_per_stage, self.num_classes)
        return cost.count(genotypes, sizes, side=side, image_channels=image_channels)

    @nn.compact
    def __call__(self, images: jax.Array, genotype: Genotype) -> jax.Array:
        """Logits `[N, K]` of images `[N, H, H, 3]`; genotype is int `[E]`, static or traced.

        Raises:
          InputError: images are not square, floating and of a side divisible by 4; there are fewer
            than 4 channels; or a static genotype is not one of the space.
        """
        check_images(images)
        if self.channels < MOST_PARTS:
            raise InputError(f"channels: found {self.channels}, expected at least {MOST_PARTS}")
        layout = _layout_of(genotype)
        # Drawn at the root, so that no weight depends on a module's name.
        keys = (
            jax.random.split(self.make_rng("params"), 3) if self.is_initializing() else [None] * 3
        )
        last = self.channels * 2 ** (cost.NUM_STAGES - 1)
        size = max(9 * images.shape[-1] * self.channels, last * self.num_classes)
        ends = draw_layers(keys[0], 0, 1, 3, size, self.param_dtype)[0]

        shape = (3, 3, images.shape[-1], self.channels)
        stem = ConvBNParams(shape, self.param_dtype, name="stem")
        x, _ = conv_bn(images, stem(scale_to_fan_in(ends[0], shape)))
        sow_relu_agreement(self, "relus", x)
        x = nn.relu(x)
        for stage in range(cost.NUM_STAGES):
            x = halve_by_maximum(x) if stage else x
            channels, first = self.channels * 2**stage, stage * self.cells_per_stage
            wide, narrow = (
                draw_layers(key, first, self.cells_per_stage, tensors, size, self.param_dtype)
                for key, tensors, size in (
                    (keys[1], _WIDE_TENSORS, 9 * channels**2),
                    (keys[2], _NARROW_TENSORS, channels**2),
                )
            )
            for i in range(self.cells_per_stage):
                cell = Cell(channels, self.param_dtype, name=f"cell_{first + i}")
                x = cell(x, layout, wide[i], narrow[i])
                # The last stack's gradient comes from the head and has one direction per class.
                if stage < cost.NUM_STAGES - 1:
                    x = probe(self, ENTROPY, x)
        x = probe(self, SIZE, x)
        return classify(self, jnp.mean(x, axis=(1, 2)), self.num_classes, ends[1:])


class Cell(nn.Module):
    """A searched cell, `[N, H, H, C]` to `[N, H, H, O]`.

    Attributes:
      channels: O.
      param_dtype: dtype of the weights.
    """

    channels: int
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: jax.Array, layout: Layout | Plan, wide: jax.Array, narrow: jax.Array
    ) -> jax.Array:
        counts_relus = self.is_mutable_collection(COLLECTION) and not self.is_initializing()
        weights = self._weights(x.shape[-1], layout, wide, narrow)
        if isinstance(layout, Plan):
            y, agreement = traced_cell(x, weights, layout, counts_relus)
        else:
            y, agreement = static_cell(x, weights, layout, self.channels, counts_relus=counts_relus)
        if counts_relus:
            self.sow(COLLECTION, "relus", agreement)
        return y

    def _weights(
        self, channels_in: int, layout: Layout | Plan, wide: jax.Array, narrow: jax.Array
    ) -> CellWeights:
        """The weights of a static cell's operations, or of every operation for a traced cell."""

        def weights_of(
            name: str, drawn: jax.Array, size: int, channels_in: int, is_built: bool
        ) -> ConvBN | None:
            shape = (size, size, channels_in, self.channels)
            if not is_built:
                return None
            params = ConvBNParams(shape, self.param_dtype, name=name)
            return params(scale_to_fan_in(drawn, shape))

        drawn = {1: narrow[:NUM_INNER], 3: wide}
        convolutions = tuple(
            tuple(
                weights_of(
                    f"vertex_{vertex + 1}_{name}",
                    drawn[size][vertex],
                    size,
                    self.channels,
                    _has_convolution(layout, vertex, OPERATIONS.index(name)),
                )
                for vertex in range(NUM_INNER)
            )
            for name, size in KERNEL_SIZES.items()
        )
        projections = tuple(
            weights_of(
                f"projection_{number + 1}",
                narrow[NUM_INNER + number],
                1,
                channels_in,
                isinstance(layout, Plan) or bool(layout.reads_input[number]),
            )
            for number in range(NUM_INNER + 1)
        )
        return CellWeights(convolutions, projections)


def _layout_of(genotype: Genotype) -> Layout | Plan:
    """The layout of a static genotype, or the plan of a genotype with traced entries."""
    is_traced = isinstance(genotype, jax.Array)
    if is_traced or any(isinstance(entry, jax.Array) for entry in genotype):
        return plan_of(layout_of(jnp.asarray(genotype, jnp.int32), jnp))
    return layout_of(check_genotypes(np.asarray(genotype)[None])[0])


def _has_convolution(layout: Layout | Plan, vertex: int, operation: int) -> bool:
    """Whether a static cell has a convolution at an inner vertex; a traced cell may have any."""
    if isinstance(layout, Plan):
        return True
    return vertex < layout.num_vertices and bool(layout.operations[vertex] == operation)
