import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from costs import torch_cost
from hypothesis import given, settings
from hypothesis import strategies as st

from epe_nas_jax import DartsNetwork, InputError, format_genotype, parse_genotype
from epe_nas_jax.spaces.darts import cost, published
from epe_nas_jax.spaces.darts.edges import CELL_EDGES, OPERATIONS
from epe_nas_jax.spaces.darts.genotype import prune_dead, sample

KNOWN = {
    name: parse_genotype(getattr(published, name))
    for name in ("DARTS_V1", "DARTS_V2", "PC_DARTS", "P_DARTS", "GDAS")
}
SAMPLED = sample(jax.random.key(0), 2)
# Nodes with one edge or none, and edges that leave a node without any.
SPARSE = SAMPLED * (np.random.default_rng(0).random(SAMPLED.shape) < 0.6)
CELLS = np.concatenate([*[row[None] for row in KNOWN.values()], SAMPLED, SPARSE, SPARSE[:1] * 0])
# With 18 channels of the stem, their program is the same on all platforms.
NETWORKS = (
    DartsNetwork(num_classes=3, channels=6, num_cells=3),
    DartsNetwork(num_classes=7, channels=6, num_cells=5, last_activation=False),
)
IMAGE = jnp.zeros((1, 8, 8, 3), jnp.float32)


@functools.cache
def built(network, genotype):
    """The shapes of the weights of the network built for one pair of cells alone."""
    return jax.eval_shape(lambda: network.init(jax.random.key(0), IMAGE, genotype))


def as_built(cells, live):
    return [tuple(row) for row in (prune_dead(cells) if live else cells).tolist()]


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_parameters_are_the_leaves_of_the_built_network(network, live):
    assert np.any(prune_dead(SPARSE) != SPARSE)
    params = network.cost(CELLS, side=8, live=live).params
    assert params.dtype == np.int64
    assert params.tolist() == [
        sum(leaf.size for leaf in jax.tree.leaves(built(network, genotype)))
        for genotype in as_built(CELLS, live)
    ]


def work_of(jaxpr):
    """FLOPs of a program for one image, but for pools of 3x3, operation by operation.

    Batch norm is the only thing that subtracts from images, and the global pool the only sum of
    pixels that leaves the images apart.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, out = equation.primitive.name, equation.outvars[0].aval
        shapes = [variable.aval.shape for variable in equation.invars]
        is_depthwise = len(shapes) > 1 and len(shapes[1]) == 4 and shapes[1][2] == 1
        if name == "custom_vjp_call" and is_depthwise:
            total += out.size * int(np.prod(shapes[1][:3]))
        elif name == "conv_general_dilated":
            height, width, channels_of_group, _ = shapes[1]
            total += out.size * height * width * channels_of_group
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += out.size * int(np.prod([shapes[0][axis] for axis in contracted]))
        elif equation.params.get("name") == "relu":
            total += out.size
        elif name == "sub" and len(out.shape) == 4:
            total += 2 * out.size
        elif name == "reduce_sum" and len(shapes[0]) == 4 and len(out.shape) == 2:
            total += int(np.prod(shapes[0]))
        else:
            total += sum(map(work_of, jax.extend.core.jaxprs_in_params(equation.params)))
    return total


def work_of_pools(network, genotype, side):
    """Nine values for each that a pool puts out, cell by cell and edge by edge."""
    total, channels = 0, network.channels
    reductions = {network.num_cells // 3, 2 * network.num_cells // 3}
    for number in range(network.num_cells):
        is_reduction = number in reductions
        if is_reduction:
            # All nodes have half the side: the edges from the inputs halve it.
            side, channels = side // 2, 2 * channels
        for op in genotype[14:] if is_reduction else genotype[:14]:
            if OPERATIONS[op] in ("max_pool_3x3", "avg_pool_3x3"):
                total += 9 * channels * side**2
    return total


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_flops_are_those_of_the_built_program(network, live):
    expected = []
    for genotype in as_built(CELLS, live):
        apply = functools.partial(network.apply, genotype=genotype)
        program = jax.make_jaxpr(apply)(built(network, genotype), IMAGE)
        expected.append(work_of(program.jaxpr) + work_of_pools(network, genotype, 8))
    flops = network.cost(CELLS, side=8, live=live).flops
    assert flops.dtype == np.int64
    assert flops.tolist() == expected


def torch_flops(text, side, channels, cells_per_stage, num_classes, *, last_activation):
    """FLOPs of the PyTorch network, whose global pool counts each value once."""
    torch = pytest.importorskip("torch")
    torch_network = pytest.importorskip("darts_torch").torch_network
    network = torch_network(
        text, channels, cells_per_stage, num_classes, last_activation=last_activation
    )

    def own_flops(module, inputs, _):
        is_global = isinstance(module, torch.nn.AdaptiveAvgPool2d)
        return inputs[0][0].numel() if is_global else None

    return torch_cost(network, side, own_flops)[1]


@pytest.mark.parametrize(
    ("cells", "last_activation"), [(CELLS[: len(KNOWN)], True), (SAMPLED, False)]
)
def test_flops_are_those_of_the_pytorch_network_module_by_module(cells, last_activation):
    network = DartsNetwork(5, channels=4, num_cells=5, last_activation=last_activation)
    expected = [
        torch_flops(format_genotype(row), 8, 4, 1, 5, last_activation=last_activation)
        for row in cells
    ]
    assert network.cost(cells, side=8).flops.tolist() == expected


@given(st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=20)
def test_dead_operations_do_not_count_where_only_live_ones_do(seed):
    rng = np.random.default_rng(seed)
    cells = SAMPLED * (rng.random(SAMPLED.shape) < 0.6)
    sizes = cost.Sizes(channels=4, num_cells=8, num_classes=10, last_activation=True)
    live, built = (cost.count(cells, sizes, side=32, live=live) for live in (True, False))
    of_live_form = cost.count(prune_dead(cells), sizes, side=32)
    for name in ("params", "flops"):
        assert np.array_equal(getattr(live, name), getattr(of_live_form, name))
        assert (getattr(live, name) <= getattr(built, name)).all()


def test_an_operation_of_an_empty_node_counts_by_default():
    cell = np.zeros((1, 28), int)
    cell[0, 0] = 1
    cell[0, CELL_EDGES.index((3, 4))] = OPERATIONS.index("sep_conv_3x3")
    sizes = cost.Sizes(channels=4, num_cells=5, num_classes=10, last_activation=True)
    built, live = (cost.count(cell, sizes, side=32, live=live) for live in (False, True))
    assert built.params > live.params
    assert built.flops > live.flops


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (np.full((1, 28), 8), "found operation index 8"),
        (np.zeros(28, int), r"found shape \(28,\)"),
        (np.array([[0] * 16 + [1] * 3 + [0] * 9]), "node 3: found 3 edges"),
    ],
)
def test_bad_genotypes_are_refused(row, message):
    with pytest.raises(InputError, match=message):
        NETWORKS[0].cost(row, side=8)


def test_the_published_genotypes_cost_what_their_papers_say():
    network = DartsNetwork(10, last_activation=False)
    params = network.cost(np.stack(list(KNOWN.values())), side=32).params / 1e6
    # Published with two digits, as in test_network: as near as rounding tells.
    for name, millions in (("DARTS_V2", 3.3), ("PC_DARTS", 3.6), ("P_DARTS", 3.4), ("GDAS", 3.4)):
        assert abs(params[list(KNOWN).index(name)] - millions) <= 0.05
