"""Proxies of the gradient of the weights.

`grad_norm` and `snip` share a pass over the mini-batch, `synflow` has one of its own over a single
image. They take the weights of convolutions and of the linear layer, and no offsets and batch
norms, as Abdelfattah et al. 2021 do in their code.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import CellNetwork


def grad_norm_score(gradient: Any) -> jax.Array:
    """How large the gradient of the loss is (Abdelfattah et al. 2021, section 3.2).

    The sum over layers of the Euclidean norm of the gradient of a layer's weights: a sum of norms,
    as in the authors' code, and not the norm of the whole.

    Args:
      gradient: of `cross_entropy` by the weights, a pytree; arrays of rank 1 do not count.

    Returns:
      The score, a scalar. NaN if there is no gradient.
    """
    return _positive(sum(jnp.sqrt(jnp.sum(g**2)) for g in _of_layers(gradient)))


def snip_score(weights: Any, gradient: Any) -> jax.Array:
    """How much the loss depends on the presence of weights (Lee et al. 2019, section 4).

    With g the gradient of the loss L by the weights: sum |theta g|, over all layers, as Abdelfattah
    et al. 2021 (section 3.2) take it for a whole network.

    Args:
      weights: a pytree; arrays of rank 1 do not count.
      gradient: of `cross_entropy` by them.

    Returns:
      The score, a scalar. NaN if there is no gradient.
    """
    layers = zip(_of_layers(weights), _of_layers(gradient), strict=True)
    return _positive(sum(jnp.sum(jnp.abs(theta * g)) for theta, g in layers))


def synflow_score(
    variables: Any, genotype: jax.Array, image: jax.Array, *, network: CellNetwork
) -> jax.Array:
    """The logarithm of the synaptic flow (Tanaka et al. 2020, section 6).

    With all weights replaced by their absolute values, no batch norm, and R the sum of the outputs
    for an image of ones: log sum |theta dR/dtheta|. Abdelfattah et al. 2021 (section 3.2) use the
    sum, NAS-Bench-Suite-Zero its logarithm; in float32 the sum would overflow, being 1e50 for the
    cell of six 3x3 convolutions on 32x32 pixels.

    Args:
      variables: the weights, as `network.init` makes them.
      genotype: the cell, int32 `[E]`.
      image: any image, `[H, H, 3]`; only shape and dtype count.
      network: with an attribute `batch_norm`, as `NasBench201Network`.

    Returns:
      The score, a scalar. NaN if no weight has a gradient.

    Raises:
      InputError: the network's batch norm cannot be left out.
    """
    if not hasattr(network, "batch_norm"):
        raise InputError(
            "proxy synflow: found a network without an attribute 'batch_norm', expected one"
        )
    linear: Any = network
    linear = linear.clone(batch_norm=False)
    ones = jnp.ones_like(image)[None]

    def sum_of_outputs(variables: Any) -> tuple[jax.Array, Any]:
        logits, scales = linear.apply(variables, ones, genotype, mutable=["log_scales"])
        return jnp.sum(logits), scales

    variables = jax.tree.map(jnp.abs, variables)
    # Divided by the scales, as the outputs are: R is linear in the output of each layer.
    gradient, scales = jax.grad(sum_of_outputs, has_aux=True)(variables)
    return jnp.log(snip_score(variables, gradient)) + jax.tree.reduce(jnp.add, scales)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy of logits `[N, K]` and classes, int `[N]`: a scalar."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def _of_layers(tree: Any) -> list[jax.Array]:
    """The weights of convolutions and linear layers; offsets and batch norms have rank 1."""
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim > 1]


def _positive(score: Any) -> jax.Array:
    return jnp.where(score > 0, score, jnp.nan)
