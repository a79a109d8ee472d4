"""Scores plain functions of weights and images, of several shapes, in one call.

    python examples/plain_function.py

Prints a line for each network, the best first, in a few seconds on 2 CPU cores. Networks of any
library can be scored in this way, also mixed, as pairs of a function and its weights.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax import load_dataset, score_networks


def init(key, sizes):
    """He-normal weights of a multilayer perceptron, `[(kernel, bias), ...]`."""
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [(jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, jnp.zeros(n)) for k, m, n in shapes]


def apply_fn(weights, images, *, activation):
    """Logits `[N, K]` of images `[N, H, H, 3]`."""
    x = images.reshape(len(images), -1)
    for kernel, bias in weights[:-1]:
        x = activation(x @ kernel + bias[None, :])
    kernel, bias = weights[-1]
    return x @ kernel + bias[None, :]


def make_networks(num_inputs, num_classes):
    """Perceptrons of three shapes: `(apply_fn, weights)` by name."""
    shapes = {
        "wide, ReLU": ((256,), jax.nn.relu),
        "deep, ReLU": ((64, 64, 64), jax.nn.relu),
        "deep, tanh": ((64, 64, 64), jnp.tanh),
    }
    return {
        name: (
            functools.partial(apply_fn, activation=activation),
            init(jax.random.key(0), (num_inputs, *hidden, num_classes)),
        )
        for name, (hidden, activation) in shapes.items()
    }


def main(num_images=256):
    """Scores the networks on some digits."""
    digits = load_dataset("digits")
    rows = np.random.default_rng(0).choice(len(digits.images), num_images, replace=False)
    images, labels = digits.normalised(rows), digits.labels[rows]
    networks = make_networks(images[0].size, digits.num_classes)
    scores = score_networks(networks, images, labels, digits.num_classes)
    for name, score in sorted(scores.items(), key=lambda item: -item[1]):
        print(f"{name}: {score:.1f}")
    return scores


if __name__ == "__main__":
    main()
