"""Equinox modules as functions of many images."""

import inspect
from typing import Any

import jax

from epe_nas_jax.networks.function import Function


def as_function(network: Any) -> Function:
    """Turns an Equinox module of one image `[C, H, W]`, alone or with its state, into a function.

    The function runs in training mode, without dropout. Batch norm sees the mini-batch under the
    axis name `"batch"`, as in Equinox's documentation.
    """
    import equinox as eqx

    module, state = network if isinstance(network, tuple) else (network, None)
    module = eqx.nn.inference_mode(module, value=False)

    def dropouts(tree: Any) -> list[Any]:
        def is_dropout(node: Any) -> bool:
            return isinstance(node, eqx.nn.Dropout)

        return [node for node in jax.tree.leaves(tree, is_leaf=is_dropout) if is_dropout(node)]

    if dropouts(module):
        without = [True] * len(dropouts(module))
        module = eqx.tree_at(lambda tree: [d.inference for d in dropouts(tree)], module, without)
    weights, rest = eqx.partition(module, eqx.is_inexact_array)
    has_key = "key" in inspect.signature(type(module).__call__).parameters
    keywords: dict[str, None] = {"key": None} if has_key else {}

    def apply(weights: Any, state: Any, images: jax.Array) -> Any:
        called = eqx.combine(weights, rest)
        if state is None:
            return jax.vmap(lambda image: called(image, **keywords), axis_name="batch")(images)
        with_state: Any = jax.vmap(
            lambda image, state: called(image, state, **keywords),
            in_axes=(0, None),
            out_axes=(0, None),
            axis_name="batch",
        )
        logits, _ = with_state(images, state)
        return logits

    return Function(apply, weights, state, channels_first=True)
