"""Weights drawn as PyTorch draws them, each tensor from a key of its own."""

import math

import jax
import jax.numpy as jnp


def draw_layers(
    key: jax.Array | None,
    first_layer: int,
    num_layers: int,
    num_tensors: int,
    size: int,
    dtype: jnp.dtype,
) -> jax.Array:
    """Draws U(-1, 1) for the weights of some layers, `[layers, tensors, size]`.

    Every tensor has its own key, folded from its number. All are drawn in one call, because the
    compiler takes a second for each call. Without a key the weights exist already, and the result
    is zeros, which nothing uses.
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
    """Scales weights to PyTorch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Args:
      drawn: numbers from U(-1, 1), at least as many as the shape has entries.
      shape: shape of the weights, with outputs as the last axis.
      fan_in: number of inputs of an output; None: the product of all axes except the last.
    """
    bound = 1 / math.sqrt(fan_in or math.prod(shape[:-1]))
    return bound * drawn[: math.prod(shape)].reshape(shape)
