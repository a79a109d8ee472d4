"""What networks cost, counted on the networks themselves."""

import math

import jax
import jax.numpy as jnp


def built_parameters(network, genotype):
    """The numbers in the leaves of a Flax network built for one static cell alone."""
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, genotype), images)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def torch_cost(network, side, own_flops=lambda *_: None):
    """Parameters of a PyTorch network, and FLOPs of one image by hooks, module by module.

    `own_flops` has the FLOPs of modules that count otherwise than in `flops_of`, whose arguments it
    gets; None for any other module.
    """
    import torch

    total = 0

    def count(module, inputs, outputs):
        nonlocal total
        found = own_flops(module, inputs, outputs)
        total += flops_of(module, inputs, outputs) if found is None else found

    for module in network.modules():
        module.register_forward_hook(count)
    # Two images, of which one is counted: batch norm takes no single values.
    network(torch.zeros(2, 3, side, side))
    return sum(parameter.numel() for parameter in network.parameters()), total


def flops_of(module, inputs, outputs):
    """FLOPs of one image in a module of PyTorch's; 0 for one that only holds others."""
    from torch import nn

    values = outputs[0].numel()
    match module:
        case nn.Conv2d():
            return math.prod(module.kernel_size) * module.in_channels // module.groups * values
        case nn.BatchNorm2d():
            return 2 * values
        case nn.ReLU():
            return values
        case nn.AvgPool2d() | nn.MaxPool2d():
            return module.kernel_size**2 * values
        case nn.AdaptiveAvgPool2d():
            # As NASLib's counter has it.
            return values * (inputs[0].shape[2] + 1) * (inputs[0].shape[3] + 1)
        case nn.Linear():
            return module.in_features * module.out_features
    return 0
