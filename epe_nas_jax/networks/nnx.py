"""Flax NNX modules as functions."""

from typing import Any

import jax

from epe_nas_jax.networks.function import Function, training_keywords


def as_function(network: Any) -> Function:
    """Turns an NNX module into a function; the module itself is not changed.

    The function runs in training mode, without dropout.
    """
    from flax import nnx

    module = nnx.clone(network)
    module.train()
    for layer in (nnx.Dropout, nnx.MultiHeadAttention):
        module.set_attributes(layer, deterministic=True, raise_if_not_found=False)
    keywords = training_keywords(type(module).__call__)
    graph, weights, *states = nnx.split(module, nnx.Param, ...)

    def apply(weights: Any, states: Any, images: jax.Array) -> Any:
        # A copy for every call: new running averages of batch norm are dropped with it.
        return nnx.merge(graph, weights, *states, copy=True)(images, **keywords)

    return Function(apply, weights, states)
