"""The linear layer that ends a network."""

import flax.linen as nn
import jax

from epe_nas_jax.spaces.layers.init import scale_to_fan_in


def classify(
    module: nn.Module, features: jax.Array, num_classes: int, drawn: jax.Array
) -> jax.Array:
    """Logits `[N, K]` of features `[N, C]`, by a linear layer with PyTorch's default weights.

    Args:
      module: gets the weights as parameters `classifier_kernel` and `classifier_bias`.
      features: the input of the layer.
      num_classes: K.
      drawn: numbers from U(-1, 1): a row for the kernel and one for the bias, each long enough.
    """
    channels = features.shape[-1]
    kernel = scale_to_fan_in(drawn[0], (channels, num_classes))
    bias = scale_to_fan_in(drawn[1], (num_classes,), fan_in=channels)
    kernel = module.param("classifier_kernel", lambda _: kernel)
    bias = module.param("classifier_bias", lambda _: bias)
    return features @ kernel + bias[None, :]
