"""The proxies of a cell beside those of NAS-Bench-201's PyTorch network with the same weights."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import torch
from test_torch_parity import build, cells_with_every_operation_on_every_edge, variables_of

from epe_nas_jax import Network, pytorch
from epe_nas_jax.convert import Sizes
from epe_nas_jax.proxies import cell_proxies

SIZES = Sizes(channels=4, cells_per_stage=1, num_classes=5)
# Twelve images in five classes, much alike: their Jacobians correlate.
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(16, 16, 3)) + 0.3 * RNG.normal(size=(12, 16, 16, 3))
LABELS = np.arange(12, dtype=np.int32) % 5


def layers_of(network):
    """The weights of convolutions and linear layers, and their gradients, as NumPy arrays."""
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    layers = [module for module in network.modules() if isinstance(module, kinds)]
    # An operation that leads nowhere has no gradient in PyTorch.
    gradients = [
        torch.zeros_like(m.weight) if m.weight.grad is None else m.weight.grad for m in layers
    ]
    return [m.weight.detach().numpy() for m in layers], [g.numpy() for g in gradients]


def to_torch(images):
    return torch.tensor(images.transpose(0, 3, 1, 2))


def nwot(network):
    """By hooks on every ReLU module, as Mellor et al. count them."""
    codes = []

    def hook(_module, _inputs, output):
        codes.append((output > 0).flatten(1).numpy())

    relus = [module for module in network.modules() if isinstance(module, torch.nn.ReLU)]
    handles = [module.register_forward_hook(hook) for module in relus]
    with torch.no_grad():
        network(to_torch(IMAGES))
    for handle in handles:
        handle.remove()
    assert len(codes) == len(relus)
    return oracles.nwot(codes)


def gradient_on_its_way(network):
    """Entropy of the cells' gradients but for the last stage's, and how the gradient decays."""
    gradients = []

    def hook(_module, _inputs, output):
        output.register_hook(lambda gradient: gradients.append(gradient.numpy()))

    cells = [module for module in network.cells if type(module).__name__ == "InferCell"]
    handles = [module.register_forward_hook(hook) for module in cells]
    images = to_torch(IMAGES).requires_grad_()
    (of_images,) = torch.autograd.grad(network(images)[1].sum(), images)
    for handle in handles:
        handle.remove()
    assert len(gradients) == 3 * SIZES.cells_per_stage
    last, *earlier = gradients
    by_channel = [
        gradient.transpose(0, 2, 3, 1) for gradient in earlier[SIZES.cells_per_stage - 1 :]
    ]
    entropy = sum(oracles.channel_entropy(gradient) for gradient in by_channel)
    return entropy, np.log(np.sum(last**2) / np.sum(of_images.numpy() ** 2))


def gradient_of_loss(network):
    network.zero_grad()
    _, logits = network(to_torch(IMAGES))
    torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS).long()).backward()
    return layers_of(network)


def gradient_of_flow(network):
    """Of the sum of the outputs without batch norm, for an image of ones and absolute weights."""
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            parent = network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], torch.nn.Identity())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    network.zero_grad()
    _, logits = network(to_torch(np.ones_like(IMAGES[:1])))
    logits.sum().backward()
    return layers_of(network)


def test_proxies_are_pytorchs():
    cells = cells_with_every_operation_on_every_edge(2)
    for edge in range(6):
        assert set(cells[:, edge]) == set(range(5))
    no_path = np.array([3, 0, 0, 0, 0, 2])
    cells = np.append(cells, no_path[None], axis=0)
    network = Network(SIZES.num_classes, SIZES.channels, SIZES.cells_per_stage, jnp.float64)
    proxies = ("jacob_cov", "nwot", "grad_entropy", "grad_decay", "synflow", "grad_norm", "snip")

    @jax.jit
    def run(variables, genotype):
        return cell_proxies(variables, genotype, IMAGES, LABELS, network=network, proxies=proxies)[
            0
        ]

    for seed, cell in enumerate(cells):
        reference = build(cell, seed, SIZES).double()
        got = run(variables_of(reference, cell), jnp.asarray(cell))
        # As built: PyTorch runs dead operations too, and their ReLUs count.
        expected_nwot = nwot(reference)
        jacobian = pytorch.run(reference, IMAGES).jacobian
        if np.array_equal(cell, no_path):
            assert not jacobian.any()
            assert np.isnan(np.delete(got, 1)).all()
            assert oracles.snip(*gradient_of_loss(reference)) == 0
            assert oracles.snip(*gradient_of_flow(reference)) == 0
            return
        weights, gradient = gradient_of_loss(reference)
        expected = [
            oracles.jacob_cov(jacobian),
            expected_nwot,
            *gradient_on_its_way(reference),
            np.log(oracles.snip(*gradient_of_flow(reference))),
            oracles.grad_norm(gradient),
            oracles.snip(weights, gradient),
        ]
        print(np.array(expected), np.abs(got / np.array(expected) - 1).max())
        # Float64 on both sides: sums in another order, through batch norms and eigenvalues.
        assert np.allclose(got, expected, rtol=1e-10, atol=0)
