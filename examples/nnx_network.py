"""Scores a Flax NNX network with batch norm, untrained, on real handwritten digits.

    python examples/nnx_network.py

Prints one line in a few seconds on 2 CPU cores.
"""

import numpy as np
from flax import nnx

from epe_nas_jax import load_dataset, network_score


class ConvNet(nnx.Module):
    """Two convolutions with batch norm, and a linear layer."""

    def __init__(self, num_classes, *, rngs):
        self.conv_a = nnx.Conv(3, 16, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm_a = nnx.BatchNorm(16, rngs=rngs)
        self.conv_b = nnx.Conv(16, 32, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm_b = nnx.BatchNorm(32, rngs=rngs)
        self.linear = nnx.Linear(32, num_classes, rngs=rngs)

    def __call__(self, images):
        """Logits `[N, K]` of images `[N, H, H, 3]`."""
        x = nnx.relu(self.norm_a(self.conv_a(images)))
        x = nnx.relu(self.norm_b(self.conv_b(x)))
        return self.linear(x.mean(axis=(1, 2)))


def make_network(num_classes):
    """A fresh network: its `apply_fn` and its variables."""
    network = ConvNet(num_classes, rngs=nnx.Rngs(0))
    # In training mode, which is how NNX makes it, batch norm uses the mini-batch.
    network.train()
    graphdef, variables = nnx.split(network)

    def apply_fn(variables, images):
        # A copy for every call: new running averages of batch norm are dropped with it.
        return nnx.merge(graphdef, variables, copy=True)(images)

    return apply_fn, variables


def main(num_images=256):
    """Scores the network on some digits."""
    digits = load_dataset("digits")
    rows = np.random.default_rng(0).choice(len(digits.images), num_images, replace=False)
    images, labels = digits.normalised(rows), digits.labels[rows]
    apply_fn, variables = make_network(digits.num_classes)
    score = network_score(apply_fn, variables, images, labels, digits.num_classes)
    print(f"Flax NNX: {score:.1f}")
    return score


if __name__ == "__main__":
    main()
