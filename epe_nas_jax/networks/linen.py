"""Flax Linen modules as functions."""

from typing import Any

import flax.linen as nn
import jax
from flax.core import DenyList

from epe_nas_jax.networks.function import Function, training_keywords


def as_function(network: Any) -> Function:
    """A pair of a Linen module and its variables: in training mode, without its dropout layers."""
    module, variables = network
    keywords = training_keywords(type(module).__call__)
    state = {name: value for name, value in variables.items() if name != "params"}

    def apply(weights: Any, state: Any, images: jax.Array) -> Any:
        rngs = {"dropout": jax.random.key(0)}
        with nn.intercept_methods(_in_training):
            # What batch norm would remember, and what is sown, is dropped.
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
    """Leaves dropout out, and has batch norm use the mini-batch where its module does not say."""
    if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
        return args[0]
    is_norm = isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__"
    if is_norm and context.module.use_running_average is None and len(args) == 1:
        keywords = {**keywords, "use_running_average": False}
    return next_function(*args, **keywords)
