"""The NAS-Bench-201 network as Flax modules (Dong & Yang 2020, figure 1; NATS-Bench topology).

Stem, then three stages of equal cells at C, 2C and 4C channels with a residual reduction block
before the second and the third, then batch norm, ReLU, global average pool and a linear layer.
Batch norm uses the statistics of the mini-batch, in scoring and in training; trained networks are
evaluated with running averages of them, the collection `batch_stats`.

With `mutable=["relus"]`, `apply` also returns in how many ReLUs two images agree: a collection of
counts, int32 `[N, N]`, one for every node or layer that ReLUs read. Gradient probes
(`gradient_probes`) measure after every cell of all stages except the last, and after the last cell.

A genotype given as Python or NumPy ints is static: only its operations are built. A traced genotype
builds the weights of every operation and chooses on the device. Both give the same numbers, because
the key of a weight is folded from (layer, edge, operation) and from nothing else.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from epe_nas_jax.spaces.base import Cost, EdgeGroups, Genotype, SearchSpace
from epe_nas_jax.spaces.layers import convolution
from epe_nas_jax.spaces.layers.batch_norm import Normalise, norm_of, normalise, without_norm
from epe_nas_jax.spaces.layers.checks import check_images
from epe_nas_jax.spaces.layers.classifier import classify
from epe_nas_jax.spaces.layers.conv_bn import ConvBN, ConvBNParams, relu_conv_bn
from epe_nas_jax.spaces.layers.gradient_probes import ENTROPY, SIZE, probe
from epe_nas_jax.spaces.layers.init import draw_layers, scale_to_fan_in
from epe_nas_jax.spaces.layers.pooling import halve
from epe_nas_jax.spaces.layers.relu_agreement import sow_relu_agreement
from epe_nas_jax.spaces.nasbench201 import cost, operations
from epe_nas_jax.spaces.nasbench201.cost import NUM_STAGES
from epe_nas_jax.spaces.nasbench201.genotype import (
    EDGES,
    KERNEL_SIZES,
    NUM_EDGES,
    NUM_NODES,
    OPERATIONS,
)
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

_TENSORS_PER_LAYER = NUM_EDGES * len(KERNEL_SIZES)


class NasBench201Network(nn.Module):
    """The network of a NAS-Bench-201 cell, a Flax module called with images and a genotype.

    Running averages are kept where the variables have them. `init(..., use_running_average=True)`
    makes them, `apply(..., mutable=["batch_stats"])` moves them towards the mini-batch's statistics
    and `apply(..., use_running_average=True)` normalises by them.

    Attributes:
      num_classes: K.
      channels: C, channels of the first stage.
      cells_per_stage: cells in each of the three stages.
      param_dtype: dtype of the weights.
      batch_norm: False leaves it out, as `synflow` does. Then the outputs of stem, cells and blocks
        are divided by their maximum, which keeps them finite, and with `mutable=["log_scales"]`
        `apply` also returns the logarithms of the divisors.

    Examples:
      >>> network = epe_nas_jax.NasBench201Network(num_classes=3, channels=4, cells_per_stage=1)
      >>> cell = (2, 0, 0, 0, 1, 0)
      >>> variables = jax.jit(network.init, static_argnums=2)(jax.random.key(0), images, cell)
      >>> jax.jit(network.apply, static_argnums=2)(variables, images, cell).shape
      (8, 3)
      >>> epe_nas_jax.NasBench201Network(num_classes=10).cost(np.array([[3] * 6]), side=32).params
      array([1531546])
    """

    num_classes: int
    channels: int = 16
    cells_per_stage: int = 5
    param_dtype: jnp.dtype = jnp.float32
    batch_norm: bool = True

    @property
    def space(self) -> SearchSpace:
        """The search space of the cell."""
        return NASBENCH201

    @property
    def sizes(self) -> cost.Sizes:
        """The sizes of the network."""
        return cost.Sizes(self.channels, self.cells_per_stage, self.num_classes)

    @property
    def group_work(self) -> tuple[int, ...] | None:
        """For each operation, how long it takes per cell of its group on one edge."""
        return operations.GROUP_WORK if self.batch_norm else None

    def activation_count(self, batch_shape: tuple[int, ...]) -> float:
        """How many numbers are kept for the backward pass of a score, for images `[N, H, H, 3]`."""
        # A cell keeps 6 edges and 3 nodes. Each stage has half the side and twice the channels, so
        # half the numbers of the stage before.
        kept = 9 * self.cells_per_stage * (1 + 1 / 2 + 1 / 4)
        return kept * math.prod(batch_shape[:3]) * self.channels

    def cost(
        self, genotypes: np.ndarray, *, side: int, image_channels: int = 3, live: bool = False
    ) -> Cost:
        """Parameters and FLOPs of the networks of cells `[A, E]`, for images of side H."""
        return Cost(
            cost.parameters(genotypes, self.sizes, image_channels=image_channels, live=live),
            cost.flops(genotypes, self.sizes, side=side, image_channels=image_channels, live=live),
        )

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        genotype: Genotype,
        *,
        use_running_average: bool = False,
        groups: tuple[EdgeGroups, ...] | None = None,
        activation_dtype: str | None = None,
    ) -> jax.Array:
        """Logits `[N, K]` of images.

        Args:
          images: `[N, H, H, 3]`.
          genotype: the cell, int `[E]`, static or traced.
          use_running_average: normalise by running averages; the genotype must be static.
          groups: groups of the operations of each edge, for cells under a `jax.vmap`, as in
            `operations.apply_operation`; None: by loops.
          activation_dtype: dtype of the outputs of stem, cells and blocks; None: that of the
            images.

        Raises:
          InputError: images are not square, floating and of a side divisible by 4.
        """
        check_images(images)
        # Drawn once at the root, so that no weight depends on a module's name.
        key = self.make_rng("params") if self.is_initializing() else None
        dtype = self.param_dtype
        norm = "average" if use_running_average else "minibatch"
        norm = norm if self.batch_norm else "none"

        layer = 0
        x = images
        for stage in range(NUM_STAGES):
            channels = self.channels * 2**stage
            # The stem or reduction block that leads to the stage, then its cells.
            num_layers = 1 + self.cells_per_stage
            size = 9 * channels * max(channels, images.shape[-1])
            drawn = draw_layers(key, layer, num_layers, _TENSORS_PER_LAYER, size, dtype)
            if stage == 0:
                # Computed again in the backward pass: the output of many cells is large to keep.
                stem = nn.remat(Stem) if groups else Stem
                x = stem(channels, dtype, norm, name="stem")(x, drawn[0])
                x = x.astype(activation_dtype or x.dtype)
            else:
                x = Reduction(channels, dtype, norm, name=f"reduction_{stage - 1}")(x, drawn[0])
            x = x if self.batch_norm else self._divide_by_maximum(x)
            for i in range(self.cells_per_stage):
                name = f"cell_{stage * self.cells_per_stage + i}"
                x = Cell(dtype, norm, name=name)(x, genotype, drawn[1 + i], groups)
                x = x if self.batch_norm else self._divide_by_maximum(x)
                # The last stage's gradient comes from the head and has one direction per class.
                if stage < NUM_STAGES - 1:
                    x = probe(self, ENTROPY, x)
            layer += num_layers
        x = probe(self, SIZE, x).astype(images.dtype)
        size = (channels + 1) * self.num_classes
        drawn = draw_layers(key, layer, 1, _TENSORS_PER_LAYER, size, dtype)
        return Head(self.num_classes, dtype, norm, name="head")(x, drawn[0])

    def _divide_by_maximum(self, x: jax.Array) -> jax.Array:
        """Divides x by a constant and sows the constant's logarithm; zeros stay zeros."""
        largest = lax.stop_gradient(jnp.max(jnp.abs(x)))
        largest = jnp.where(largest > 0, largest, 1)
        if not self.is_initializing():
            self.sow("log_scales", "log_scale", jnp.log(largest))
        return x / largest


class Stem(nn.Module):
    """Convolution 3x3 and batch norm: `[N, H, H, 3]` to `[N, H, H, C]`."""

    channels: int
    param_dtype: jnp.dtype
    norm: str

    @nn.compact
    def __call__(self, images: jax.Array, drawn: jax.Array) -> jax.Array:
        shape = (3, 3, images.shape[-1], self.channels)
        kernel = scale_to_fan_in(drawn[0], shape)
        module = ConvBNParams(shape, self.param_dtype, name="conv_bn")
        weights = module(kernel)
        norm = norm_of(module, self.norm)
        return norm(convolution.convolve(images, weights.kernel), weights.scale, weights.bias)[0]


class Cell(nn.Module):
    """A searched cell of `[N, H, H, C]`: every node is the sum of its incoming edges."""

    param_dtype: jnp.dtype
    norm: str

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        genotype: Genotype,
        drawn: jax.Array,
        groups: tuple[EdgeGroups, ...] | None = None,
    ) -> jax.Array:
        nodes = [_in_memory(x) if groups else x]
        for target in range(1, NUM_NODES):
            incoming = []
            for edge, (source, edge_target) in enumerate(EDGES):
                if edge_target == target:
                    op = genotype[edge]
                    op = op if isinstance(op, jax.Array) else int(op)
                    shared = groups[edge] if groups else None
                    incoming.append(self._apply_edge(edge, op, nodes[source], drawn, shared))
            node = sum(incoming[1:], start=incoming[0])
            nodes.append(_in_memory(node) if groups else node)
        for source in range(NUM_NODES - 1):
            edges = [edge for edge in range(NUM_EDGES) if EDGES[edge][0] == source]
            num_relus = sum(_has_relu(genotype[edge]) for edge in edges)
            sow_relu_agreement(self, f"relus_{source}", nodes[source], num_relus)
        return nodes[-1]

    def _apply_edge(
        self,
        edge: int,
        op: int | jax.Array,
        x: jax.Array,
        drawn: jax.Array,
        groups: EdgeGroups | None,
    ) -> jax.Array:
        channels = x.shape[-1]
        weights: dict[str, ConvBN | None] = dict.fromkeys(KERNEL_SIZES)
        norm: Normalise = without_norm if self.norm == "none" else normalise
        for number, (name, size) in enumerate(KERNEL_SIZES.items()):
            is_static = not isinstance(op, jax.Array)
            if not is_static or OPERATIONS[op] == name:
                kernel = scale_to_fan_in(drawn[2 * edge + number], (size, size, channels, channels))
                module = ConvBNParams(kernel.shape, self.param_dtype, name=f"edge_{edge}_{name}")
                weights[name] = module(kernel)
                norm = norm_of(module, self.norm) if is_static else norm
        edge_weights = operations.EdgeWeights(**weights)
        return operations.apply_operation(op, x, edge_weights, norm, groups)


class Reduction(nn.Module):
    """Residual block that halves the size: `[N, H, H, C/2]` to `[N, H/2, H/2, C]`."""

    channels: int
    param_dtype: jnp.dtype
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, drawn: jax.Array) -> jax.Array:
        def conv(name: str, number: int, x: jax.Array, stride: int) -> jax.Array:
            shape = (3, 3, x.shape[-1], self.channels)
            module = ConvBNParams(shape, self.param_dtype, name=name)
            weights = module(scale_to_fan_in(drawn[number], shape))
            return relu_conv_bn(x, weights, stride, norm_of(module, self.norm))[0]

        sow_relu_agreement(self, "relus_a", x)
        y = conv("conv_a", 0, x, stride=2)
        sow_relu_agreement(self, "relus_b", y)
        y = conv("conv_b", 1, y, stride=1)
        shape = (1, 1, x.shape[-1], self.channels)
        shortcut = scale_to_fan_in(drawn[2], shape)
        return convolution.convolve(halve(x), self.param("shortcut", lambda _: shortcut)) + y


class Head(nn.Module):
    """Batch norm, ReLU, global average pool and linear layer: `[N, H, H, C]` to `[N, K]`."""

    num_classes: int
    param_dtype: jnp.dtype
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, drawn: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        x, _ = norm_of(self, self.norm)(x, scale, bias)
        sow_relu_agreement(self, "relus", x)
        features = jnp.mean(nn.relu(x), axis=(1, 2))
        return classify(self, features, self.num_classes, drawn)


def _in_memory(x: jax.Array) -> jax.Array:
    """Makes the compiler compute x, and its cotangent, once and not again in every group."""
    return lax.optimization_barrier(x)  # type: ignore[no-untyped-call]


def _has_relu(op: int | jax.Array) -> Any:
    """1 for an operation that starts with a ReLU, 0 for another."""
    return sum(op == OPERATIONS.index(name) for name in KERNEL_SIZES)
