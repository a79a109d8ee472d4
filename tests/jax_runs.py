"""Independent runs of a static network in JAX: autodiff, and nothing that the package measures."""

from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles

from epe_nas_jax.spaces.darts.network import DartsCell
from epe_nas_jax.spaces.nasbench201.network import Cell


def run_of(network, variables, genotype, images, labels, *, cells_of_last_stage):
    """What `oracles` need of a network of a static genotype with some weights."""
    of_cells, of_images = gradients_of_cells(network, variables, genotype, images)

    def loss(variables):
        log_probabilities = jax.nn.log_softmax(network.apply(variables, images, genotype))
        return -jnp.mean(log_probabilities[jnp.arange(len(labels)), labels])

    return oracles.Run(
        jacobian=np.asarray(of_images).reshape(len(images), -1),
        labels=labels,
        num_classes=network.num_classes,
        relu_codes=relu_codes(network, variables, genotype, images),
        cell_gradients=[np.asarray(gradient) for gradient in of_cells[:-cells_of_last_stage]],
        last_gradient=np.asarray(of_cells[-1]),
        weights=layers_of(variables),
        gradients=layers_of(jax.grad(loss)(variables)),
        flow=[flow(network, variables, genotype)] if hasattr(network, "batch_norm") else [],
    )


def gradients_of_cells(network, variables, genotype, images):
    """The gradients of the sum of logits by every cell's output, in order, and by the images."""
    outputs = []

    def logits(images, added):
        outputs.clear()
        added = iter(added)

        def add(call, args, kwargs, context):
            output = call(*args, **kwargs)
            is_cell = isinstance(context.module, Cell | DartsCell)
            if is_cell and context.method_name == "__call__":
                outputs.append(output)
                output = output + next(added, 0)
            return output

        with nn.intercept_methods(add):
            return network.apply(variables, images, genotype).sum()

    logits(images, ())
    zeros = [jnp.zeros_like(output) for output in outputs]
    return jax.grad(logits, (1, 0))(images, zeros)


def relu_codes(network, variables, genotype, images):
    """Which units are open, of every ReLU that the network calls."""
    codes, relu = [], nn.relu

    def recording(x):
        codes.append(np.asarray(x) > 0)
        return relu(x)

    with mock.patch.object(nn, "relu", recording):
        network.apply(variables, images, genotype)
    return codes


def layers_of(variables):
    """The weights of convolutions and the linear layer: arrays of rank 2 and more."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(variables) if leaf.ndim > 1]


def flow(network, variables, genotype):
    """The synaptic flow of all weights together, sum theta dR/dtheta.

    By Euler's theorem it is the derivative of R by a factor on all weights.
    """
    log_flow = _log_flow(network, variables, genotype, 1)
    step = 1e-5
    lower, upper = [_log_flow(network, variables, genotype, 1 + change) for change in (-step, step)]
    return np.exp(log_flow) * (upper - lower) / (2 * step)


def _log_flow(network, variables, genotype, factor):
    """log R of `synflow`, with the weights of all layers times a factor."""
    scaled = jax.tree.map(lambda w: factor * jnp.abs(w) if w.ndim > 1 else 0 * w, variables)
    logits, sown = network.clone(batch_norm=False).apply(
        scaled, jnp.ones((1, 8, 8, 3)), genotype, mutable=["log_scales"]
    )
    return np.log(logits.sum()) + sum(jax.tree.leaves(sown))
