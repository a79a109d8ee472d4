"""Batch norm by the statistics of the mini-batch, or by running averages of them."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

BATCH_NORM_EPSILON = 1e-5
# Weight of a mini-batch's statistics in a running average.
_MOMENTUM = 0.1

# From `[N, H, W, O]`, scale and bias `[O]` to the normalised array and the inverse deviation `[O]`.
Normalise = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def normalise(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    moments: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Normalises `[N, H, W, O]`; returns the result and the inverse deviation `[O]`.

    Args:
      x: the array to normalise.
      scale: `[O]`.
      bias: `[O]`.
      moments: mean and variance, `[O]` each; by default those of the mini-batch.
    """
    mean, variance = batch_moments(x) if moments is None else moments
    inverse_std = lax.rsqrt(variance + BATCH_NORM_EPSILON)
    gain = inverse_std * scale
    y = (x - per_channel(mean)) * per_channel(gain) + per_channel(bias)
    return y.astype(x.dtype), inverse_std


def normalise_cotangent(
    y: jax.Array, scale: jax.Array, bias: jax.Array, inverse_std: jax.Array, dy: jax.Array
) -> jax.Array:
    """The cotangent of the input of `normalise`, by the statistics of the mini-batch.

    The normalised values are computed from the output, so that the input need not be kept.

    Args:
      y: the output, `[N, H, W, O]`.
      scale: `[O]`.
      bias: `[O]`.
      inverse_std: the inverse deviation, `[O]`.
      dy: the output's cotangent, `[N, H, W, O]`.

    Returns:
      The cotangent, `[N, H, W, O]`.
    """
    dtype = dy.dtype
    dy, y = (array.astype(at_least_float32(dtype)) for array in (dy, y))
    inverse_scale = jnp.where(scale == 0, 0, 1 / scale)
    mean_dy = jnp.mean(dy, (0, 1, 2))
    mean_dy_normalised = (jnp.mean(dy * y, (0, 1, 2)) - bias * mean_dy) * inverse_scale
    gain = per_channel(scale * inverse_std)
    slope = per_channel(mean_dy_normalised * inverse_scale)
    dx = gain * (dy - per_channel(mean_dy) - slope * (y - per_channel(bias)))
    return dx.astype(dtype)


def without_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns x, `[N, H, W, O]`, unchanged; a replacement of `normalise`."""
    return x, no_deviation(x)


def batch_moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance `[O]` of `[N, H, W, O]`, in one pass and at least in float32."""
    x = x.astype(at_least_float32(x.dtype))
    mean = jnp.mean(x, (0, 1, 2))
    return mean, jnp.maximum(jnp.mean(x**2, (0, 1, 2)) - mean**2, 0)


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which to add up numbers of a dtype: this one, but at least float32."""
    return jnp.promote_types(dtype, jnp.float32)


def no_deviation(x: jax.Array) -> jax.Array:
    """Zeros `[O]`, for `[N, H, W, O]` that is not normalised and has no inverse deviation."""
    return jnp.zeros(x.shape[-1:], at_least_float32(x.dtype))


def per_channel(v: jax.Array) -> jax.Array:
    """Reshapes a vector `[O]` to `[1, 1, 1, O]`, for arithmetic with `[N, H, W, O]`."""
    return v.reshape(1, 1, 1, -1)


def norm_of(module: nn.Module, kind: str) -> Normalise:
    """Makes the batch norm of a module: by the `"minibatch"`, by the `"average"`, or `"none"`.

    Where the module has running averages (`mean`, `var`), every mini-batch moves them, as in
    PyTorch, by a tenth of the difference to its own mean and unbiased variance. They start from
    mean 0 and variance 1.
    """
    if kind == "none":
        return without_norm
    use_running_average = kind == "average"

    def norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
        if use_running_average and module.is_initializing():
            module.put_variable("batch_stats", "mean", jnp.zeros_like(bias))
            module.put_variable("batch_stats", "var", jnp.ones_like(scale))
        if use_running_average:
            average: list[jax.Array] = [
                module.get_variable("batch_stats", name) for name in ("mean", "var")
            ]
            return normalise(x, scale, bias, (average[0], average[1]))
        moments = batch_moments(x)
        if module.is_mutable_collection("batch_stats") and not module.is_initializing():
            size = math.prod(x.shape[:3])
            new = {"mean": moments[0], "var": moments[1] * size / (size - 1)}
            for name, value in new.items():
                old: jax.Array = module.get_variable("batch_stats", name)
                module.put_variable("batch_stats", name, old + _MOMENTUM * (value - old))
        return normalise(x, scale, bias, moments)

    return norm
