"""The input Jacobian of any network on a labelled mini-batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from epe_nas_jax.arrays import as_array


def input_jacobian(
    apply_fn: Callable[[Any, jax.Array], jax.Array], variables: Any, images: Any
) -> jax.Array:
    """Differentiates the sum of all logits with respect to the images (EPE-NAS, section 3).

    It is one gradient over the whole mini-batch: batch norm couples the images, so that gradients
    of single images, or of half a mini-batch, would be others.

    Args:
      apply_fn: a network, `(variables, images [N, ...]) -> logits [N, K]`.
      variables: its weights, any pytree.
      images: the mini-batch, floating point `[N, ...]`, an array of any library.

    Returns:
      The input Jacobian, one row per image, `[N, D]`.

    Examples:
      >>> def linear(weights, images):
      ...     return images.reshape(len(images), -1) @ weights
      >>> jacobian = epe_nas_jax.input_jacobian(linear, jnp.ones((192, 3)), images)
      >>> jacobian.shape
      (8, 192)
      >>> float(jacobian[0, 0])
      3.0
    """

    def with_probes(_: None, images: jax.Array) -> tuple[jax.Array, None]:
        return apply_fn(variables, images), None

    return probed_jacobian(with_probes, None, jnp.asarray(as_array(images, "images")))[0]


def probed_jacobian(
    apply_fn: Callable[[Any, jax.Array], tuple[jax.Array, Any]], probes: Any, images: jax.Array
) -> tuple[jax.Array, Any, Any]:
    """Computes the input Jacobian, and in the same pass what gradient probes measure.

    Args:
      apply_fn: a network, `(probes, images [N, ...]) -> (logits [N, K], aux)`.
      probes: the probes' scalars, any pytree, as `gradient_probes.scalars` makes them.
      images: the mini-batch, `[N, ...]`.

    Returns:
      The input Jacobian `[N, D]`, the derivative with respect to each scalar, and `aux`.
    """

    def sum_of_logits(images: jax.Array, probes: Any) -> tuple[jax.Array, Any]:
        logits, aux = apply_fn(probes, images)
        return jnp.sum(logits), aux

    (gradient, measured), aux = jax.grad(sum_of_logits, (0, 1), has_aux=True)(images, probes)
    return gradient.reshape(images.shape[0], -1), measured, aux
