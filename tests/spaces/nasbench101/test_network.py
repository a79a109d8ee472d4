"""NAS-Bench-101 networks: parity with a PyTorch network, and static, traced and batched cells."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import torch
from nasbench101_torch import Network

from epe_nas_jax import InputError, ScoringConfig, compile_scorer
from epe_nas_jax.proxies.cell_proxies import cell_proxies
from epe_nas_jax.spaces.layers import relu_agreement
from epe_nas_jax.spaces.nasbench101.genotype import OPERATIONS, as_written, parse, prune_dead
from epe_nas_jax.spaces.nasbench101.layout import layout_of
from epe_nas_jax.spaces.nasbench101.network import NasBench101Network

# 5 channels: 2 do not divide 5, 3 not 5, 10 and 20, and 4 not 5 and 10.
NETWORK = NasBench101Network(3, channels=5, cells_per_stage=1, param_dtype=jnp.float64)
C1, C3, POOL = OPERATIONS
TEXTS = {
    "the input alone": "1:input,output",
    "one part": f"10-1:input,{C3},output",
    "one part, five vertices": (
        f"110000-10010-1100-100-10-1:input,{C1},{C3},{POOL},{C3},{C1},output"
    ),
    "one part, and the input": f"111-10-1:input,{POOL},{C3},output",
    "two parts": f"1100-110-01-1:input,{C3},{POOL},{C1},output",
    "three parts, a chain": f"1100-111-01-1:input,{C3},{POOL},{C1},output",
    "two parts, a reader of both": f"11100-1010-101-10-1:input,{POOL},{POOL},{C3},{C1},output",
    "three parts": f"10001-1101-101-10-1:input,{C1},{C3},{POOL},{C1},output",
    "three parts of one source": f"10000-1110-001-01-1:input,{C3},{POOL},{C1},{C3},output",
    "four parts": f"11110-0001-001-01-1:input,{C3},{C1},{POOL},{C3},output",
    "four parts, a chain": f"10001-1001-101-11-1:input,{C1},{POOL},{C3},{C1},output",
    "four parts, five vertices": (
        f"100000-11110-0001-001-01-1:input,{C3},{C1},{POOL},{C3},{C1},output"
    ),
}
CELLS = {name: parse(text) for name, text in TEXTS.items()}
STATIC = ("the input alone", "one part, and the input", "two parts", "three parts of one source")


def relative_error(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def variables(minibatch):
    """Weights of every candidate; those of batch norm are random, too, so that they are seen."""
    empty = jnp.zeros(NETWORK.space.num_edges, jnp.int32)
    variables = jax.jit(NETWORK.init)(jax.random.key(0), minibatch[0][:1], empty)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape) * (leaf.ndim == 1), variables
    )


@jax.jit
def run_traced(variables, images, genotype):
    """Logits, in how many ReLUs images agree, and the input Jacobian of their sum."""

    def logits(images):
        found = NETWORK.apply(variables, images, genotype, mutable=[relu_agreement.COLLECTION])
        return jnp.sum(found[0]), found

    jacobian, (values, collected) = jax.grad(logits, has_aux=True)(images)
    agreement = jax.tree.reduce(jnp.add, collected[relu_agreement.COLLECTION])
    return values, agreement, jacobian


def run_static(variables, images, genotype):
    static = tuple(genotype.tolist())
    return run_traced.__wrapped__(variables, images, static)


def torch_network(genotype, variables):
    """PyTorch's network with our weights: of each kernel the leading channels, for its inputs."""
    matrix, labels = as_written(genotype)
    network = Network(matrix.tolist(), labels, NETWORK.channels, 1, 3).double()
    params = jax.tree.map(np.asarray, variables["params"])

    def put(parameter, array):
        with torch.no_grad():
            parameter.copy_(torch.tensor(array))

    def put_conv(module, own):
        channels, channels_in, *_ = module.conv.weight.shape
        kernel = own["kernel"]
        gain = np.sqrt(kernel.shape[2] / channels_in)
        kernel = gain * kernel[:, :, :channels_in, :channels]
        put(module.conv.weight, kernel.transpose(3, 2, 0, 1))
        put(module.norm.weight, own["scale"][:channels])
        put(module.norm.bias, own["bias"][:channels])

    put_conv(network.stem, params["stem"])
    for number, cell in enumerate(network.cells):
        own = params[f"cell_{number}"]
        for vertex, module in cell.operations.items():
            if labels[int(vertex)] != POOL:
                put_conv(module, own[f"vertex_{vertex}_{labels[int(vertex)]}"])
        for vertex, module in cell.projections.items():
            name = 6 if int(vertex) == len(labels) - 1 else vertex
            put_conv(module, own[f"projection_{name}"])
    put(network.classifier.weight, params["classifier_kernel"].T)
    put(network.classifier.bias, params["classifier_bias"])
    return network.train()


def run_torch(variables, images, genotype):
    """What `run_traced` gives, by PyTorch."""
    network = torch_network(genotype, variables)
    codes = []
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_hook(
                lambda _, inputs, __: codes.append(inputs[0].detach().numpy().reshape(8, -1) > 0)
            )
    x = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    logits = network(x)
    logits.sum().backward()
    units = np.concatenate(codes, axis=1)
    agreement = np.sum(units[:, None] == units[None], axis=-1)
    return logits.detach().numpy(), agreement, x.grad.numpy().transpose(0, 2, 3, 1)


def assert_same(got, expected):
    # Float64 through 3 cells of batch norms of 8 images: rounding, a million times over.
    assert relative_error(got[0], expected[0]) < 1e-10
    assert relative_error(got[2], expected[2]) < 1e-9
    assert np.array_equal(got[1], expected[1])


def test_the_cells_have_all_numbers_of_parts_and_narrow_vertices():
    layouts = [layout_of(cell) for cell in CELLS.values()]
    assert {int(layout.num_parts) for layout in layouts} == {0, 1, 2, 3, 4}
    assert {int(layout.num_vertices) for layout in layouts} == {0, 1, 2, 3, 4, 5}
    for cell in CELLS.values():
        assert np.array_equal(prune_dead(cell), cell)


@pytest.mark.parametrize("name", TEXTS)
def test_a_traced_cell_has_pytorchs_logits_jacobian_and_relus(minibatch, variables, name):
    images, genotype = minibatch[0], CELLS[name]
    got = run_traced(variables, images, jnp.asarray(genotype))
    assert_same(got, run_torch(variables, images, genotype))


@pytest.mark.parametrize("name", STATIC)
def test_a_static_cell_has_pytorchs_logits_jacobian_and_relus(minibatch, variables, name):
    images, genotype = minibatch[0], CELLS[name]
    assert_same(run_static(variables, images, genotype), run_torch(variables, images, genotype))
