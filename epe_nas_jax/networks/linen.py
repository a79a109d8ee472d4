"""Flax Linen modules as functions."""

from typing import Any

import flax.linen as nn
import jax
from flax.core import DenyList

from epe_nas_jax.networks.function import Function, training_keywords


def as_function(network: Any) -> Function:
    """Turns a pair of a Linen module and its variables into a function.

    The function runs in training mode, without dropout.
    """
    module, variables = network
    keywords = training_keywords(type(module).__call__)
    state = {name: value for name, value in variables.items() if name != "params"}

    def apply(weights: Any, state: Any, images: jax.Array) -> Any:
        rngs = {"dropout": jax.random.key(0)}
        with nn.intercept_methods(_in_training):
            # New running averages of batch norm, and values that are sown, are dropped.
            logits, _ = module.apply(
                {**state, "params": weights},
                images,
                mutable=DenyList("params"),
                rngs=rngs,
                **keywords,
            )
        return logits

    return Function(apply, variables.get("params", {}), state)


def _in_training(next_function: Any, args: Any, keywords: Any, context: Any) -> Any:
    """Skips dropout; batch norm uses the mini-batch unless its module or call says otherwise."""
    if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
        return args[0]
    is_norm = isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__"
    if is_norm and context.module.use_running_average is None and len(args) == 1:
        keywords = {**keywords, "use_running_average": False}
    return next_function(*args, **keywords)
