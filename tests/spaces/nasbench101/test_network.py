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
from epe_nas_jax.spaces.nasbench101.genotype import (
    OPERATIONS,
    as_written,
    from_matrix,
    parse,
    prune_dead,
)
from epe_nas_jax.spaces.nasbench101.layout import layout_of
from epe_nas_jax.spaces.nasbench101.network import NasBench101Network

# 5 channels: 2 do not divide 5, 3 not 5, 10 and 20, and 4 not 5 and 10.
PROXIES = ("epe", "jacob_cov", "nwot", "grad_entropy", "grad_decay")
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


def run(variables, images, genotype):
    """Logits, in how many ReLUs images agree, and the input Jacobian of their sum."""

    def logits(images):
        found = NETWORK.apply(variables, images, genotype, mutable=[relu_agreement.COLLECTION])
        return jnp.sum(found[0]), found

    jacobian, (values, collected) = jax.grad(logits, has_aux=True)(images)
    agreement = jax.tree.reduce(jnp.add, collected[relu_agreement.COLLECTION])
    return values, agreement, jacobian


run_traced, run_static = jax.jit(run), jax.jit(run, static_argnums=2)


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
    """What `run` gives, by PyTorch."""
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
    got = run_static(variables, images, tuple(genotype.tolist()))
    assert_same(got, run_torch(variables, images, genotype))


def test_a_static_cell_has_the_weights_of_a_traced_one(minibatch):
    genotype = CELLS["three parts of one source"]
    every, own = (
        jax.tree_util.tree_leaves_with_path(
            jax.jit(NETWORK.init, static_argnums=static)(jax.random.key(1), minibatch[0], cell)
        )
        for static, cell in (((), jnp.asarray(genotype)), (2, tuple(genotype.tolist())))
    )
    of_path = dict(every)
    assert 0 < len(own) < len(every)
    for path, leaf in own:
        assert np.array_equal(leaf, of_path[path])
    bounds = {
        "vertex_2_conv3x3-bn-relu": 1 / np.sqrt(9 * 10),
        "vertex_4_conv3x3-bn-relu": 1 / np.sqrt(9 * 10),
        "projection_1": 1 / np.sqrt(5),
    }
    for name, bound in bounds.items():
        kernel = np.asarray(dict(every)[path_of("cell_1", name, "kernel")])
        # Hundreds of numbers: the largest is near the bound.
        assert 0.9 * bound < np.abs(kernel).max() < bound


def path_of(*names):
    return tuple(jax.tree_util.DictKey(name) for name in ("params", *names))


def raw_form(genotype):
    """The same cell with two vertices more, one that nobody reads and one that reads nothing."""
    matrix, labels = as_written(genotype)
    size = len(matrix)
    full = np.zeros((size + 2, size + 2), int)
    place = [0, *range(2, size), size + 1]
    full[np.ix_(place, place)] = matrix
    full[0, 1] = full[size, size + 1] = 1
    return from_matrix(full, [labels[0], POOL, *labels[1:-1], C3, labels[-1]])


@pytest.fixture(scope="module")
def scored(minibatch):
    """Cells, among them the empty one and one that is not in live form, and their proxies.

    All at once, by `jax.vmap`, as on GPUs.
    """
    cells = np.stack([*CELLS.values(), raw_form(CELLS["one part"]), np.zeros(26, np.int32)])
    config = ScoringConfig(proxies=PROXIES)
    scorer = compile_scorer(
        *minibatch,
        seed=3,
        network=NETWORK,
        config=config,
        prune_dead=False,
        vectorise=True,
        cells_per_step=4,
    )
    return cells, scorer.proxies(cells)


@pytest.mark.slow
def test_scores_of_cells_at_once_are_those_of_each_static_cell(minibatch, scored):
    weights_key = jax.random.split(jax.random.split(jax.random.key(3), 1)[0])[0]
    score = jax.jit(
        lambda variables, images, labels, genotype: cell_proxies(
            variables, genotype, images, labels, network=NETWORK, proxies=PROXIES
        )[0],
        static_argnums=3,
    )
    _, found = scored
    names = [*CELLS]
    for name in ("one part, and the input", "three parts of one source"):
        genotype = tuple(CELLS[name].tolist())
        variables = jax.jit(NETWORK.init, static_argnums=2)(weights_key, minibatch[0], genotype)
        expected = score(variables, *minibatch, genotype)
        # Two orders of the same sums; eigenvalues near 0 of 8 images magnify rounding.
        assert np.allclose(found[names.index(name)], expected, rtol=1e-8, atol=0)


def test_dead_vertices_change_no_score_and_the_empty_cell_has_none(scored):
    cells, found = scored
    one_part = [*CELLS].index("one part")
    assert not np.array_equal(prune_dead(cells[-2]), cells[-2])
    assert np.isfinite(found[:-1]).all()
    assert np.array_equal(found[-2], found[one_part])
    empty = dict(zip(PROXIES, found[-1], strict=True))
    assert {name for name in PROXIES if not np.isnan(empty[name])} <= oracles.WITHOUT_JACOBIAN


@pytest.mark.parametrize(
    ("channels", "genotype", "message"),
    [
        (3, np.zeros(26, int), "channels: found 3, expected at least 4"),
        (4, np.ones(26, int), "genotype 0: found 21 edges"),
        (4, np.zeros(25, int), "genotypes: found shape"),
    ],
)
def test_network_that_cannot_be_built_is_refused(minibatch, channels, genotype, message):
    network = NETWORK.clone(channels=channels)
    with pytest.raises(InputError, match=message):
        network.init(jax.random.key(0), minibatch[0], tuple(genotype.tolist()))
