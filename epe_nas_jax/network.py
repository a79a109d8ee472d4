"""The NAS-Bench-201 network as Flax modules (Dong & Yang 2020, figure 1; NATS-Bench topology).

Stem, then three stages of equal cells at C, 2C and 4C channels with a residual reduction block
before the second and the third, then batch norm, ReLU, global average pool and a linear layer.
Batch norm always uses the statistics of the mini-batch: the network is scored untrained.

A genotype given as Python or NumPy ints is static: only its operations are built. A traced genotype
builds every operation's weights and chooses on the device. Both give the same numbers, because a
weight is drawn from a key folded from (layer, edge, operation) and from nothing else.

Shape legend: N images, H height and width, C channels, K classes, E = 6 edges.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax import ops
from epe_nas_jax.errors import InputError
from epe_nas_jax.genotype import EDGES, NUM_EDGES, NUM_NODES, OPERATIONS

Genotype = Sequence[int] | np.ndarray | jax.Array

_NUM_STAGES = 3
_KERNEL_SIZES = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}


class Network(nn.Module):
    """A network built from one cell; `init(key, images, genotype)` and `apply` as usual in Flax.

    Attributes:
      num_classes: K.
      channels: C, channels of the first stage.
      cells_per_stage: cells in each of the three stages.
      param_dtype: dtype of the weights.
    """

    num_classes: int
    channels: int = 16
    cells_per_stage: int = 5
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, genotype: Genotype) -> jax.Array:
        """Logits `[N, K]` of images `[N, H, H, 3]`; genotype is int `[E]`, static or traced.

        Raises:
          InputError: images are not square, floating and of a side divisible by 4.
        """
        check_images(images)
        # Drawn once at the root, so that no weight depends on a module's name.
        key = self.make_rng("params") if self.is_initializing() else None
        dtype = self.param_dtype

        x = Stem(self.channels, dtype, name="stem")(images, _fold(key, 0))
        layer = 1
        for stage in range(_NUM_STAGES):
            channels = self.channels * 2**stage
            if stage > 0:
                name = f"reduction_{stage - 1}"
                x = Reduction(channels, dtype, name=name)(x, _fold(key, layer))
                layer += 1
            kernels = _draw_candidates(key, layer, self.cells_per_stage, channels, dtype)
            for i in range(self.cells_per_stage):
                drawn = {name: kernel[i] for name, kernel in kernels.items()}
                name = f"cell_{stage * self.cells_per_stage + i}"
                x = Cell(dtype, name=name)(x, genotype, drawn)
            layer += self.cells_per_stage
        return Head(self.num_classes, dtype, name="head")(x, _fold(key, layer))


class Stem(nn.Module):
    """Convolution 3x3 and batch norm: `[N, H, H, 3]` to `[N, H, H, C]`."""

    channels: int
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, images: jax.Array, key: jax.Array | None) -> jax.Array:
        shape = (3, 3, images.shape[-1], self.channels)
        kernel = _draw(_fold(key, 0), shape, self.param_dtype)
        weights = ConvBN(shape, self.param_dtype, name="conv_bn")(kernel)
        return ops.batch_norm(ops.convolve(images, weights.kernel), weights.scale, weights.bias)


class Cell(nn.Module):
    """A searched cell, `[N, H, H, C]` to itself: every node is the sum of its incoming edges."""

    param_dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: jax.Array, genotype: Genotype, kernels: dict[str, jax.Array]
    ) -> jax.Array:
        nodes = [x]
        for target in range(1, NUM_NODES):
            incoming = []
            for edge, (source, edge_target) in enumerate(EDGES):
                if edge_target == target:
                    op = genotype[edge]
                    op = op if isinstance(op, jax.Array) else int(op)
                    weights = self._edge_weights(op, edge, kernels)
                    incoming.append(ops.apply_operation(op, nodes[source], weights))
            nodes.append(sum(incoming[1:], start=incoming[0]))
        return nodes[-1]

    def _edge_weights(
        self, op: int | jax.Array, edge: int, kernels: dict[str, jax.Array]
    ) -> ops.EdgeWeights:
        weights: dict[str, ops.ConvBN | None] = dict.fromkeys(kernels)
        for name, drawn in kernels.items():
            if isinstance(op, jax.Array) or OPERATIONS[op] == name:
                module = ConvBN(drawn.shape[1:], self.param_dtype, name=f"edge_{edge}_{name}")
                weights[name] = module(drawn[edge])
        return ops.EdgeWeights(**weights)


class Reduction(nn.Module):
    """Residual block that halves the size: `[N, H, H, C/2]` to `[N, H/2, H/2, C]`."""

    channels: int
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        def conv_bn(name: str, number: int, channels_in: int) -> ops.ConvBN:
            shape = (3, 3, channels_in, self.channels)
            kernel = _draw(_fold(key, number), shape, self.param_dtype)
            return ConvBN(shape, self.param_dtype, name=name)(kernel)

        y = ops.relu_conv_bn(x, conv_bn("conv_a", 0, x.shape[-1]), stride=2)
        y = ops.relu_conv_bn(y, conv_bn("conv_b", 1, self.channels))
        shape = (1, 1, x.shape[-1], self.channels)
        shortcut = _draw(_fold(key, 2), shape, self.param_dtype)
        return ops.convolve(_halve(x), self.param("shortcut", lambda _: shortcut)) + y


class Head(nn.Module):
    """Batch norm, ReLU, global average pool and linear layer: `[N, H, H, C]` to `[N, K]`."""

    num_classes: int
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        features = jnp.mean(nn.relu(ops.batch_norm(x, scale, bias)), axis=(1, 2))

        kernel = _draw(_fold(key, 0), (channels, self.num_classes), self.param_dtype)
        offset = _draw(_fold(key, 1), (self.num_classes,), self.param_dtype, fan_in=channels)
        kernel = self.param("classifier_kernel", lambda _: kernel)
        offset = self.param("classifier_bias", lambda _: offset)
        return features @ kernel + offset[None, :]


class ConvBN(nn.Module):
    """The weights of a convolution and of the batch norm behind it, given the drawn kernel."""

    shape: tuple[int, ...]
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, drawn: jax.Array) -> ops.ConvBN:
        channels = self.shape[-1:]
        return ops.ConvBN(
            kernel=self.param("kernel", lambda _: drawn),
            scale=self.param("scale", nn.initializers.ones, channels, self.param_dtype),
            bias=self.param("bias", nn.initializers.zeros, channels, self.param_dtype),
        )


def check_images(images: jax.Array | np.ndarray) -> None:
    """Checks that the network accepts images.

    Raises:
      InputError: not floating `[N, H, H, 3]` with H a multiple of 4.
    """
    if images.ndim != 4:
        raise InputError(f"images: found rank {images.ndim}, expected 4: [images, side, side, 3]")
    _, height, width, _ = images.shape
    if height != width or height % 4 or height == 0:
        raise InputError(
            f"images: found {height}x{width} pixels, expected a square with a side divisible by 4"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"images: found dtype {images.dtype}, expected floating point")


def _fold(key: jax.Array | None, number: int | jax.Array) -> jax.Array | None:
    return None if key is None else jax.random.fold_in(key, number)


def _draw(
    key: jax.Array | None, shape: tuple[int, ...], dtype: jnp.dtype, fan_in: int | None = None
) -> jax.Array:
    """PyTorch's default for convolutions and linear layers: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Zeros without a key: then the weights exist already and only their shape is of interest.
    """
    if key is None:
        return jnp.zeros(shape, dtype)
    bound = 1 / math.sqrt(fan_in or math.prod(shape[:-1]))
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _draw_candidates(
    key: jax.Array | None, first_layer: int, num_layers: int, channels: int, dtype: jnp.dtype
) -> dict[str, jax.Array]:
    """Every candidate's kernels in a stage, `[layers, E, h, w, C, C]`; one draw compiles fast."""
    kernels = {}
    for name, size in _KERNEL_SIZES.items():
        shape = (size, size, channels, channels)
        if key is None:
            kernels[name] = jnp.zeros((num_layers, NUM_EDGES, *shape), dtype)
            continue

        def draw(
            layer: jax.Array,
            edge: jax.Array,
            op: int = OPERATIONS.index(name),
            shape: tuple[int, ...] = shape,
        ) -> jax.Array:
            return _draw(_fold(_fold(_fold(key, layer), edge), op), shape, dtype)

        layers = first_layer + jnp.arange(num_layers)
        over_edges = jax.vmap(draw, (None, 0))
        kernels[name] = jax.vmap(over_edges, (0, None))(layers, jnp.arange(NUM_EDGES))
    return kernels


def _halve(x: jax.Array) -> jax.Array:
    """2x2 average at stride 2."""
    n, height, width, channels = x.shape
    return jnp.mean(x.reshape(n, height // 2, 2, width // 2, 2, channels), axis=(2, 4))
