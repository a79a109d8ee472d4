"""The proxies of a cell beside those of NAS-Bench-201's PyTorch network with the same weights."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import torch
from test_torch_parity import build, cells_with_every_operation_on_every_edge, variables_of

from epe_nas_jax import NasBench201Network
from epe_nas_jax.proxies.cell_proxies import cell_proxies
from epe_nas_jax.proxies.table import PROXIES
from epe_nas_jax.pytorch import network as pytorch
from epe_nas_jax.spaces.nasbench201.cost import Sizes

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


def relu_codes(network):
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
    return codes


def gradients_on_their_way(network):
    """The gradients of the cells' outputs but for the last stage's, and of the last cell's."""
    gradients = []

    def hook(_module, _inputs, output):
        output.register_hook(lambda gradient: gradients.append(gradient.numpy()))

    cells = [module for module in network.cells if type(module).__name__ == "InferCell"]
    handles = [module.register_forward_hook(hook) for module in cells]
    images = to_torch(IMAGES).requires_grad_()
    torch.autograd.grad(network(images)[1].sum(), images)
    for handle in handles:
        handle.remove()
    assert len(gradients) == 3 * SIZES.cells_per_stage
    last, *earlier = gradients
    by_channel = [
        gradient.transpose(0, 2, 3, 1) for gradient in earlier[SIZES.cells_per_stage - 1 :]
    ]
    return by_channel, last


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


def run_of(network, jacobian):
    """What the oracles need, by PyTorch."""
    cell_gradients, last_gradient = gradients_on_their_way(network)
    weights, gradients = gradient_of_loss(network)
    flow = [theta * gradient for theta, gradient in zip(*gradient_of_flow(network), strict=True)]
    return oracles.Run(
        jacobian=jacobian,
        labels=LABELS,
        num_classes=SIZES.num_classes,
        relu_codes=relu_codes(network),
        cell_gradients=cell_gradients,
        last_gradient=last_gradient,
        weights=weights,
        gradients=gradients,
        flow=flow,
    )


def test_proxies_are_pytorchs():
    cells = cells_with_every_operation_on_every_edge(2)
    for edge in range(6):
        assert set(cells[:, edge]) == set(range(5))
    no_path = np.array([3, 0, 0, 0, 0, 2])
    cells = np.append(cells, no_path[None], axis=0)
    network = NasBench201Network(
        SIZES.num_classes, SIZES.channels, SIZES.cells_per_stage, jnp.float64
    )
    proxies = tuple(PROXIES)

    @jax.jit
    def run(variables, genotype):
        return cell_proxies(variables, genotype, IMAGES, LABELS, network=network, proxies=proxies)[
            0
        ]

    for seed, cell in enumerate(cells):
        # As built: PyTorch runs dead operations too, and their ReLUs count.
        reference = build(cell, seed, SIZES).double()
        got = run(variables_of(reference, cell), jnp.asarray(cell))
        jacobian = pytorch.run(reference, IMAGES).jacobian
        if np.array_equal(cell, no_path):
            assert not jacobian.any()
            others = [name not in oracles.WITHOUT_JACOBIAN for name in proxies]
            assert np.isnan(got[np.array(others)]).all()
            assert oracles.snip(*gradient_of_loss(reference)) == 0
            assert oracles.snip(*gradient_of_flow(reference)) == 0
            return
        expected = oracles.proxies(run_of(reference, jacobian))
        for name, value in zip(proxies, got, strict=True):
            print(name, expected[name], abs(value / expected[name] - 1))
            # Float64 on both sides: sums in another order, through batch norms and eigenvalues.
            # A logarithm of a correlation near 0 magnifies that, as in test_torch_parity.
            tolerance = 1e-7 if name.startswith("epe") else 1e-10
            assert np.isclose(value, expected[name], rtol=tolerance, atol=0), name
