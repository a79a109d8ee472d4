"""Layers whose number of channels a genotype chooses: built so wide, or masked on the device.

With a static genotype a layer is built with its own channels. With a traced one every layer is
built at the largest width, and its absent channels are masked: they are zeros after each batch
norm, whose scale and offset are zeros there. Neither they nor their gradients reach any other
channel, whatever weights a kernel has for them. No kernel depends on the genotype, so that under
`jax.vmap` the networks share dense convolutions.

On CPUs, where networks run one after another, a convolution runs on the first quarter of the
channels, or on the first two or three quarters, if these contain all present channels.
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
    """How many channels a layer has, and how many its arrays are built with.

    Attributes:
      used: how many channels are present; a Python int is static, an array is traced.
      built: how many channels arrays have; the absent ones are zeros.
    """

    used: int | jax.Array
    built: int

    @property
    def is_masked(self) -> bool:
        """Whether arrays may have absent channels."""
        return isinstance(self.used, jax.Array)

    @property
    def num_absent(self) -> int | jax.Array:
        """How many channels of an array are absent."""
        return self.built - self.used

    def mask(self, x: jax.Array) -> jax.Array:
        """Sets the absent channels of an array `[..., C]` to zero."""
        if not self.is_masked:
            return x
        is_there = jnp.arange(self.built) < self.used
        return x * is_there.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))

    def fan_in_factor(self, dtype: jnp.dtype) -> jax.Array:
        """The ratio of weights drawn for the present channels to weights drawn for all."""
        return jnp.sqrt(self.built / jnp.asarray(self.used, dtype))


def relu_conv_bn(
    x: jax.Array, weights: ConvBN, inputs: Width, outputs: Width, stride: int = 1
) -> jax.Array:
    """Applies ReLU, convolution and batch norm: `[N, H, H, C]` to `[N, H/stride, H/stride, O]`.

    Args:
      x: the input, zeros in absent channels.
      weights: weights drawn for all channels that are built.
      inputs: width of x.
      outputs: width of the result.
      stride: stride of the convolution.
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
    """Applies convolution and batch norm; like `relu_conv_bn` without the ReLU."""
    z = convolution.convolve(x, weights.kernel)
    return _normalise(z, _masked(weights, outputs), inputs.fan_in_factor(x.dtype))[0]


def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, width: Width) -> jax.Array:
    """Applies batch norm to `[N, H, H, C]`."""
    weights = ConvBN(jnp.zeros((0,), x.dtype), width.mask(scale), width.mask(bias))
    return _normalise(x, weights, jnp.ones((), x.dtype))[0]


def _masked(weights: ConvBN, outputs: Width) -> ConvBN:
    kernel, scale, bias = weights
    return ConvBN(kernel, outputs.mask(scale), outputs.mask(bias))


def _normalise(z: jax.Array, weights: ConvBN, factor: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Batch norm of `factor` times z, and the factor that normalises z, `[O]`."""
    mean, variance = batch_moments(z)
    inverse_std = factor * lax.rsqrt(factor**2 * variance + BATCH_NORM_EPSILON)
    gain = per_channel(inverse_std * weights.scale)
    return (z - per_channel(mean)) * gain + per_channel(weights.bias), inverse_std


def _sizes(built: int) -> tuple[int, ...]:
    """The numbers of channels on which a convolution may run."""
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
    """Runs on a part of the channels on CPUs, and on all channels elsewhere."""
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
    """The output on the first `size` channels, then zeros, and the inverse deviation `[O]`."""
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
    """The input's cotangent on the first `size` channels, then zeros."""
    kernel, scale, bias = weights
    dz = normalise_cotangent(
        y[..., :size], scale[:size], bias[:size], inverse_std[:size], dy[..., :size]
    )
    dx = convolution.input_cotangent(kernel[:, :, :size, :size], dz, stride)
    return _fill(jnp.where(x[..., :size] <= 0, 0, dx), x.shape[-1])


def _fill(x: jax.Array, channels: int) -> jax.Array:
    """Pads an array `[..., C]` with zeros to a number of channels."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, channels - x.shape[-1])])
