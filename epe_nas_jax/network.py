"""The NAS-Bench-201 network as Flax modules (Dong & Yang 2020, figure 1; NATS-Bench topology).

Stem, then three stages of equal cells at C, 2C and 4C channels with a residual reduction block
before the second and the third, then batch norm, ReLU, global average pool and a linear layer.
Batch norm uses the statistics of the mini-batch, with which a network is scored untrained and is
trained; what was trained is evaluated with their running averages, the collection `batch_stats`.

With `mutable=["relus"]`, `apply` returns beside the logits in how many ReLUs each two images agree:
a collection of counts, int32 `[N, N]`, one for every node or layer that ReLUs read. Probes of the
gradient (`probes`) sit behind the cells of all stages but the last, and behind the last cell.

A genotype given as Python or NumPy ints is static: only its operations are built. A traced genotype
builds every operation's weights and chooses on the device. Both give the same numbers, because a
weight is drawn from a key folded from (layer, edge, operation) and from nothing else.

Shape legend: N images, H height and width, C channels, K classes, E = 6 edges.
"""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from epe_nas_jax import convolution, ops
from epe_nas_jax import genotype as space
from epe_nas_jax.errors import InputError
from epe_nas_jax.genotype import EDGES, KERNEL_SIZES, NUM_EDGES, NUM_NODES, OPERATIONS
from epe_nas_jax.probes import ENTROPY, SIZE, probe

Genotype = Sequence[int] | np.ndarray | jax.Array

_NUM_STAGES = 3
# Share of a mini-batch's statistics in a running average.
_MOMENTUM = 0.1
_TENSORS_PER_LAYER = NUM_EDGES * len(KERNEL_SIZES)


class Network(nn.Module):
    """A network built from one cell; `init(key, images, genotype)` and `apply` as usual in Flax.

    Running averages are kept where the variables have them. `init(..., use_running_average=True)`
    makes them, `apply(..., mutable=["batch_stats"])` moves them towards the mini-batch's statistics
    and `apply(..., use_running_average=True)` normalises by them.

    Attributes:
      num_classes: K.
      channels: C, channels of the first stage.
      cells_per_stage: cells in each of the three stages.
      param_dtype: dtype of the weights.
      batch_norm: False leaves it out, as `synflow` does. Then what stem, cells and blocks put out
        is divided by its maximum, which keeps it finite, and with `mutable=["log_scales"]` `apply`
        returns the logarithms of the divisors beside the logits.
    """

    num_classes: int
    channels: int = 16
    cells_per_stage: int = 5
    param_dtype: jnp.dtype = jnp.float32
    batch_norm: bool = True

    @property
    def space(self) -> ModuleType:
        """The search space of the cell."""
        return space

    def kept_values(self, batch_shape: tuple[int, ...]) -> float:
        """How many numbers a score keeps for the backward pass, for images `[N, H, H, 3]`."""
        # A cell keeps 6 edges and 3 nodes; stages of half the side and twice the channels halve.
        kept = 9 * self.cells_per_stage * (1 + 1 / 2 + 1 / 4)
        return kept * math.prod(batch_shape[:3]) * self.channels

    @nn.compact
    def __call__(
        self, images: jax.Array, genotype: Genotype, *, use_running_average: bool = False
    ) -> jax.Array:
        """Logits `[N, K]` of images.

        Args:
          images: `[N, H, H, 3]`.
          genotype: the cell, int `[E]`, static or traced.
          use_running_average: normalise by running averages; the genotype must be static.

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
        for stage in range(_NUM_STAGES):
            channels = self.channels * 2**stage
            # The stem or reduction block that leads to the stage, then its cells.
            num_layers = 1 + self.cells_per_stage
            size = 9 * channels * max(channels, images.shape[-1])
            drawn = draw_layers(key, layer, num_layers, _TENSORS_PER_LAYER, size, dtype)
            if stage == 0:
                x = Stem(channels, dtype, norm, name="stem")(x, drawn[0])
            else:
                x = Reduction(channels, dtype, norm, name=f"reduction_{stage - 1}")(x, drawn[0])
            x = x if self.batch_norm else self._divide_by_maximum(x)
            for i in range(self.cells_per_stage):
                name = f"cell_{stage * self.cells_per_stage + i}"
                x = Cell(dtype, norm, name=name)(x, genotype, drawn[1 + i])
                x = x if self.batch_norm else self._divide_by_maximum(x)
                # In the last stage the gradient is that of the head, of one direction a class.
                if stage < _NUM_STAGES - 1:
                    x = probe(self, ENTROPY, x)
            layer += num_layers
        x = probe(self, SIZE, x)
        size = (channels + 1) * self.num_classes
        drawn = draw_layers(key, layer, 1, _TENSORS_PER_LAYER, size, dtype)
        return Head(self.num_classes, dtype, norm, name="head")(x, drawn[0])

    def _divide_by_maximum(self, x: jax.Array) -> jax.Array:
        """Divides x by a constant and tells its logarithm; zeros stay zeros."""
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
        module = ConvBN(shape, self.param_dtype, name="conv_bn")
        weights = module(kernel)
        norm = _norm_of(module, self.norm)
        return norm(convolution.convolve(images, weights.kernel), weights.scale, weights.bias)[0]


class Cell(nn.Module):
    """A searched cell, `[N, H, H, C]` to itself: every node is the sum of its incoming edges."""

    param_dtype: jnp.dtype
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, genotype: Genotype, drawn: jax.Array) -> jax.Array:
        nodes = [x]
        for target in range(1, NUM_NODES):
            incoming = []
            for edge, (source, edge_target) in enumerate(EDGES):
                if edge_target == target:
                    op = genotype[edge]
                    op = op if isinstance(op, jax.Array) else int(op)
                    incoming.append(self._apply_edge(edge, op, nodes[source], drawn))
            nodes.append(sum(incoming[1:], start=incoming[0]))
        for source in range(NUM_NODES - 1):
            edges = [edge for edge in range(NUM_EDGES) if EDGES[edge][0] == source]
            num_relus = sum(_has_relu(genotype[edge]) for edge in edges)
            _tell_relus(self, f"relus_{source}", nodes[source], num_relus)
        return nodes[-1]

    def _apply_edge(
        self, edge: int, op: int | jax.Array, x: jax.Array, drawn: jax.Array
    ) -> jax.Array:
        channels = x.shape[-1]
        weights: dict[str, ops.ConvBN | None] = dict.fromkeys(KERNEL_SIZES)
        norm: ops.Normalise = ops.without_norm if self.norm == "none" else ops.normalise
        for number, (name, size) in enumerate(KERNEL_SIZES.items()):
            is_static = not isinstance(op, jax.Array)
            if not is_static or OPERATIONS[op] == name:
                kernel = scale_to_fan_in(drawn[2 * edge + number], (size, size, channels, channels))
                module = ConvBN(kernel.shape, self.param_dtype, name=f"edge_{edge}_{name}")
                weights[name] = module(kernel)
                norm = _norm_of(module, self.norm) if is_static else norm
        return ops.apply_operation(op, x, ops.EdgeWeights(**weights), norm)


class Reduction(nn.Module):
    """Residual block that halves the size: `[N, H, H, C/2]` to `[N, H/2, H/2, C]`."""

    channels: int
    param_dtype: jnp.dtype
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, drawn: jax.Array) -> jax.Array:
        def relu_conv_bn(name: str, number: int, x: jax.Array, stride: int) -> jax.Array:
            shape = (3, 3, x.shape[-1], self.channels)
            module = ConvBN(shape, self.param_dtype, name=name)
            weights = module(scale_to_fan_in(drawn[number], shape))
            return ops.relu_conv_bn(x, weights, stride, _norm_of(module, self.norm))[0]

        _tell_relus(self, "relus_a", x)
        y = relu_conv_bn("conv_a", 0, x, stride=2)
        _tell_relus(self, "relus_b", y)
        y = relu_conv_bn("conv_b", 1, y, stride=1)
        shape = (1, 1, x.shape[-1], self.channels)
        shortcut = scale_to_fan_in(drawn[2], shape)
        return convolution.convolve(_halve(x), self.param("shortcut", lambda _: shortcut)) + y


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
        x, _ = _norm_of(self, self.norm)(x, scale, bias)
        _tell_relus(self, "relus", x)
        features = jnp.mean(nn.relu(x), axis=(1, 2))

        kernel = scale_to_fan_in(drawn[0], (channels, self.num_classes))
        offset = scale_to_fan_in(drawn[1], (self.num_classes,), fan_in=channels)
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


def _norm_of(module: nn.Module, kind: str) -> ops.Normalise:
    """The batch norm of a module: by the `"minibatch"`, by the `"average"`, or `"none"` at all.

    Where the module has running averages (`mean`, `var`), a mini-batch moves them: as in PyTorch by
    a tenth of the way to its statistics, of which the variance is the unbiased one. They start from
    mean 0 and variance 1.
    """
    if kind == "none":
        return ops.without_norm
    use_running_average = kind == "average"

    def norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
        if use_running_average and module.is_initializing():
            module.put_variable("batch_stats", "mean", jnp.zeros_like(bias))
            module.put_variable("batch_stats", "var", jnp.ones_like(scale))
        if use_running_average:
            average: list[jax.Array] = [
                module.get_variable("batch_stats", name) for name in ("mean", "var")
            ]
            return ops.normalise(x, scale, bias, (average[0], average[1]))
        moments = ops.batch_moments(x)
        if module.is_mutable_collection("batch_stats") and not module.is_initializing():
            size = math.prod(x.shape[:3])
            new = {"mean": moments[0], "var": moments[1] * size / (size - 1)}
            for name, value in new.items():
                old: jax.Array = module.get_variable("batch_stats", name)
                module.put_variable("batch_stats", name, old + _MOMENTUM * (value - old))
        return ops.normalise(x, scale, bias, moments)

    return norm


def _has_relu(op: int | jax.Array) -> Any:
    """1 for an operation that starts with a ReLU, 0 for another."""
    return sum(op == OPERATIONS.index(name) for name in KERNEL_SIZES)


def _tell_relus(module: nn.Module, name: str, x: jax.Array, num_relus: int | jax.Array = 1) -> None:
    """Tells the agreement of some ReLUs that all read x, `[N, H, W, C]`."""
    if module.is_initializing() or not module.is_mutable_collection("relus"):
        return
    none = jnp.zeros((len(x), len(x)), jnp.int32)
    count = jnp.asarray(num_relus, jnp.int32)
    agreement = lax.cond(count > 0, ops.relu_agreement, lambda _: none, lax.stop_gradient(x))
    module.sow("relus", name, count * agreement)


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


def draw_layers(
    key: jax.Array | None,
    first_layer: int,
    num_layers: int,
    num_tensors: int,
    size: int,
    dtype: jnp.dtype,
) -> jax.Array:
    """U(-1, 1) for the weights of some layers, `[layers, tensors, size]`.

    Every tensor has its own key, folded from its number. All are drawn in one call, since each call
    takes a compiler a second. Without a key the weights exist already, and zeros stand for them.
    """
    shape = (num_layers, num_tensors, size)
    if key is None:
        return jnp.zeros(shape, dtype)

    def draw(number: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, number), (size,), dtype, -1, 1)

    first, count = first_layer * num_tensors, num_layers * num_tensors
    return jax.vmap(draw)(first + jnp.arange(count)).reshape(shape)


def scale_to_fan_in(
    drawn: jax.Array, shape: tuple[int, ...], fan_in: int | None = None
) -> jax.Array:
    """PyTorch's default for convolutions and linear layers: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Args:
      drawn: U(-1, 1), at least as many as the shape takes.
      shape: of the weights, inputs before outputs.
      fan_in: inputs of an output, if the shape does not tell.
    """
    bound = 1 / math.sqrt(fan_in or math.prod(shape[:-1]))
    return bound * drawn[: math.prod(shape)].reshape(shape)


def _halve(x: jax.Array) -> jax.Array:
    """2x2 average at stride 2."""
    n, height, width, channels = x.shape
    return jnp.mean(x.reshape(n, height // 2, 2, width // 2, 2, channels), axis=(2, 4))
