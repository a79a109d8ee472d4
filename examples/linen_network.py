"""Scores a Flax Linen network with batch norm, untrained, on real handwritten digits.

    python examples/linen_network.py

Prints one line in a few seconds on 2 CPU cores.
"""

import flax.linen as nn
import jax
import numpy as np

from epe_nas_jax import load_dataset, network_score


class ConvNet(nn.Module):
    """Two convolutions with batch norm, and a linear layer."""

    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        """Logits `[N, K]` of images `[N, H, H, 3]`."""
        x = images
        for features in (16, 32):
            x = nn.Conv(features, (3, 3), strides=2, use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train)(x)
            x = nn.relu(x)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


def make_network(images, num_classes):
    """A fresh network: its `apply_fn` and its variables."""
    network = ConvNet(num_classes)
    variables = network.init(jax.random.key(0), images[:1], train=False)

    def apply_fn(variables, images):
        # In training mode batch norm uses the mini-batch. Its new running averages are dropped.
        logits, _ = network.apply(variables, images, train=True, mutable=["batch_stats"])
        return logits

    return apply_fn, variables


def main(num_images=256):
    """Scores the network on some digits."""
    digits = load_dataset("digits")
    rows = np.random.default_rng(0).choice(len(digits.images), num_images, replace=False)
    images, labels = digits.normalised(rows), digits.labels[rows]
    apply_fn, variables = make_network(images, digits.num_classes)
    score = network_score(apply_fn, variables, images, labels, digits.num_classes)
    print(f"Flax Linen: {score:.1f}")
    return score


if __name__ == "__main__":
    main()
