"""Proxies made of gradients with respect to the weights.

`grad_norm` and `snip` share a pass over the mini-batch, `synflow` needs another over a single
image. They count the weights of convolutions and of the linear layer, without offsets and batch
norms, as the code of Abdelfattah et al. 2021 does.
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
    as in the authors' code, and not the norm of the whole gradient.

    Args:
      gradient: gradient of `cross_entropy` with respect to the weights, a pytree; arrays of rank 1
        do not count.

    Returns:
      The score, a scalar. NaN if the gradient is zero.

    Examples:
      >>> from epe_nas_jax.proxies.weight_gradients import grad_norm_score
      >>> gradient = {"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.array([9.0])}
      >>> float(grad_norm_score(gradient))
      5.0
    """
    return _positive(sum(jnp.sqrt(jnp.sum(g**2)) for g in _of_layers(gradient)))


def snip_score(weights: Any, gradient: Any) -> jax.Array:
    """How much the loss depends on the presence of weights (Lee et al. 2019, section 4).

    With g the gradient of the loss with respect to the weights theta: sum |theta g| over all
    layers, the form of Abdelfattah et al. 2021 (section 3.2) for a whole network.

    Args:
      weights: the weights, a pytree; arrays of rank 1 do not count.
      gradient: gradient of `cross_entropy` with respect to the weights, a pytree like them.

    Returns:
      The score, a scalar. NaN if the gradient is zero.

    Examples:
      >>> from epe_nas_jax.proxies.weight_gradients import snip_score
      >>> weights = {"kernel": jnp.array([[1.0, 2.0]])}
      >>> float(snip_score(weights, gradient={"kernel": jnp.array([[3.0, -4.0]])}))
      11.0
    """
    layers = zip(_of_layers(weights), _of_layers(gradient), strict=True)
    return _positive(sum(jnp.sum(jnp.abs(theta * g)) for theta, g in layers))


def synflow_score(
    variables: Any, genotype: jax.Array, image: jax.Array, *, network: CellNetwork
) -> jax.Array:
    """The logarithm of the synaptic flow (Tanaka et al. 2020, section 6).

    All weights theta are replaced by their absolute values, and batch norm is left out. With R the
    sum of the outputs for an image of ones: log sum |theta dR/dtheta|. Abdelfattah et al. 2021
    (section 3.2) use the sum, NAS-Bench-Suite-Zero its logarithm. In float32 the sum would
    overflow: for the cell of six 3x3 convolutions on 32x32 pixels it is 1e50.

    Args:
      variables: the weights, as `network.init` makes them.
      genotype: the cell, int32 `[E]`.
      image: any image, `[H, H, 3]`; only its shape and dtype are used.
      network: a network with an attribute `batch_norm`, such as `NasBench201Network`.

    Returns:
      The score, a scalar. NaN if no weight has a gradient.

    Raises:
      InputError: the network's batch norm cannot be left out.

    Examples:
      >>> from epe_nas_jax.proxies.weight_gradients import synflow_score
      >>> genotype = (2, 0, 0, 0, 1, 0)
      >>> variables = jax.jit(network.init, static_argnums=2)(jax.random.key(0), images, genotype)
      >>> score = jax.jit(synflow_score, static_argnums=1, static_argnames="network")
      >>> bool(jnp.isfinite(score(variables, genotype, images[0], network=network)))
      True
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
    # The gradient is divided by the scales like the outputs: R is linear in each layer's output.
    gradient, scales = jax.grad(sum_of_outputs, has_aux=True)(variables)
    return jnp.log(snip_score(variables, gradient)) + jax.tree.reduce(jnp.add, scales)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy of logits `[N, K]` and classes, int `[N]`: a scalar.

    Examples:
      >>> from epe_nas_jax.proxies.weight_gradients import cross_entropy
      >>> round(float(cross_entropy(jnp.zeros((8, 3)), labels)), 2)  # log 3
      1.1
    """
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def _of_layers(tree: Any) -> list[jax.Array]:
    """The weights of convolutions and linear layers; offsets and batch norms have rank 1."""
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim > 1]


def _positive(score: Any) -> jax.Array:
    return jnp.where(score > 0, score, jnp.nan)
