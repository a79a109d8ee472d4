"""Layers with as many channels as a genotype says: built so wide, or masked to it on the device.

With a static genotype a layer has its own channels and nothing else. With a traced one every layer
is built at the largest width. Channels that are not there are zeros behind each batch norm, whose
scale and offset are zeros there: neither they nor their gradients reach any other channel, whatever
a kernel has in their place. No kernel depends on the genotype, so that under `jax.vmap` the
networks share dense convolutions.

On CPUs, where networks run one after another, a convolution runs on the first quarter of the
channels, or on the first two or three quarters, if they contain all that are there.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from epe_nas_jax.spaces.layers import convolution
from epe_nas_jax.spaces.layers.batch_norm import (
    BATCH_NORM_EPSILON,
    batch_moments,
    normalise_cotangent,
    per_channel,
)
from epe_nas_jax.spaces.layers.conv_bn import ConvBN
from epe_nas_jax.spaces.layers.grouped_switch import (
    grouped_switch,
    is_differentiated,
    values_of,
)

_PARTS = 4


class Width(NamedTuple):
    """How many channels something has.

    Attributes:
      used: how many there are; a Python int is static, an array is traced.
      built: how many arrays have; the further ones are zeros.
    """

    used: int | jax.Array
    built: int

    @property
    def is_masked(self) -> bool:
        """Whether arrays have channels that are not there."""
        return isinstance(self.used, jax.Array)

    @property
    def num_absent(self) -> int | jax.Array:
        """How many channels of an array are not there."""
        return self.built - self.used

    def mask(self, x: jax.Array) -> jax.Array:
        """An array `[..., C]`, with zeros for channels that are not there."""
        if not self.is_masked:
            return x
        is_there = jnp.arange(self.built) < self.used
        return x * is_there.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))

    def fan_in_factor(self, dtype: jnp.dtype) -> jax.Array:
        """By how much weights that read the channels that there are exceed those drawn for all."""
        return jnp.sqrt(self.built / jnp.asarray(self.used, dtype))


def relu_conv_bn(
    x: jax.Array, weights: ConvBN, inputs: Width, outputs: Width, stride: int = 1
) -> jax.Array:
    """ReLU, convolution, batch norm: `[N, H, H, C]` to `[N, H/stride, H/stride, O]`.

    Args:
      x: the input, zeros in channels that are not there.
      weights: drawn for the channels as built.
      inputs: of x.
      outputs: of the result.
      stride: of the convolution.
    """
    factor = inputs.fan_in_factor(x.dtype)
    weights = _masked(weights, outputs)
    largest = max(inputs.built, outputs.built)
    if not (inputs.is_masked or outputs.is_masked):
        return _forward(largest, stride, x, weights, factor)[0]
    used = jnp.maximum(jnp.asarray(inputs.used), jnp.asarray(outputs.used))
    part = jnp.sum(used > jnp.asarray(_sizes(largest)[:-1]), dtype=jnp.int32)
    return _traced_relu_conv_bn(part, x, weights, factor, stride)


def conv_bn(x: jax.Array, weights: ConvBN, inputs: Width, outputs: Width) -> jax.Array:
    """Convolution and batch norm, as `relu_conv_bn`."""
    z = convolution.convolve(x, weights.kernel)
    return _normalise(z, _masked(weights, outputs), inputs.fan_in_factor(x.dtype))[0]


def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, width: Width) -> jax.Array:
    """Batch norm of `[N, H, H, C]`."""
    weights = ConvBN(jnp.zeros((0,), x.dtype), width.mask(scale), width.mask(bias))
    return _normalise(x, weights, jnp.ones((), x.dtype))[0]


def _masked(weights: ConvBN, outputs: Width) -> ConvBN:
    kernel, scale, bias = weights
    return ConvBN(kernel, outputs.mask(scale), outputs.mask(bias))


def _normalise(z: jax.Array, weights: ConvBN, factor: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Batch norm of `factor` times z, and what turns z into normalised values, `[O]`."""
    mean, variance = batch_moments(z)
    inverse_std = factor * lax.rsqrt(factor**2 * variance + BATCH_NORM_EPSILON)
    gain = per_channel(inverse_std * weights.scale)
    return (z - per_channel(mean)) * gain + per_channel(weights.bias), inverse_std


def _sizes(built: int) -> tuple[int, ...]:
    """On how many channels a convolution may run."""
    return tuple(math.ceil(built * part / _PARTS) for part in range(1, _PARTS + 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _traced_relu_conv_bn(
    part: jax.Array, x: jax.Array, weights: ConvBN, factor: jax.Array, stride: int
) -> jax.Array:
    return _run_part(_forward, stride, part, x, weights, factor)[0]


def _traced_relu_conv_bn_fwd(
    part: Any, x: Any, weights: Any, factor: Any, stride: int
) -> tuple[jax.Array, Any]:
    by_hand = not is_differentiated(weights)
    part, x, weights, factor = values_of((part, x, weights, factor))
    y, inverse_std = _run_part(_forward, stride, part, x, weights, factor)
    return y, (part, x, weights, factor, (y, inverse_std) if by_hand else ())


def _traced_relu_conv_bn_bwd(stride: int, residuals: Any, dy: Any) -> tuple[Any, ...]:
    part, x, weights, factor, kept = residuals
    if isinstance(dy, jax.custom_derivatives.SymbolicZero):
        return None, jnp.zeros_like(x), None, None
    if not kept:
        largest = max(weights.kernel.shape[2:])
        _, vjp = jax.vjp(lambda x, w: _forward(largest, stride, x, w, factor)[0], x, weights)
        return None, *vjp(dy), None
    dx = _run_part(_backward, stride, part, x, weights, *kept, dy)
    return None, dx, jax.tree.map(jnp.zeros_like, weights), None


_traced_relu_conv_bn.defvjp(_traced_relu_conv_bn_fwd, _traced_relu_conv_bn_bwd, symbolic_zeros=True)


def _run_part(run: Any, stride: int, part: jax.Array, *operands: Any) -> Any:
    """Runs on a part of the channels on CPUs, and on all elsewhere."""
    _, weights = operands[:2]
    parts = [functools.partial(run, size, stride) for size in _sizes(max(weights.kernel.shape[2:]))]
    return lax.platform_dependent(
        part,
        operands,
        cpu=lambda part, operands: grouped_switch(part, parts, *operands),
        default=lambda _, operands: parts[-1](*operands),
    )


def _forward(
    size: int, stride: int, x: jax.Array, weights: ConvBN, factor: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The output on the first `size` channels, zeros behind, and the inverse deviation `[O]`."""
    kernel, scale, bias = weights
    first = ConvBN(kernel[:, :, :size, :size], scale[:size], bias[:size])
    z = convolution.convolve(nn.relu(x[..., :size]), first.kernel, stride)
    y, inverse_std = _normalise(z, first, factor)
    return _fill(y, len(scale)), _fill(inverse_std, len(scale))


def _backward(
    size: int,
    stride: int,
    x: jax.Array,
    weights: ConvBN,
    y: jax.Array,
    inverse_std: jax.Array,
    dy: jax.Array,
) -> jax.Array:
    """The input's cotangent on the first `size` channels, zeros behind."""
    kernel, scale, bias = weights
    dz = normalise_cotangent(
        y[..., :size], scale[:size], bias[:size], inverse_std[:size], dy[..., :size]
    )
    dx = convolution.input_cotangent(kernel[:, :, :size, :size], dz, stride)
    return _fill(jnp.where(x[..., :size] <= 0, 0, dx), x.shape[-1])


def _fill(x: jax.Array, channels: int) -> jax.Array:
    """An array `[..., C]` with zeros behind, to that many channels."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, channels - x.shape[-1])])
