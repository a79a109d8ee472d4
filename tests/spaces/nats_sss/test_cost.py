import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax import InputError, NatsSssNetwork
from epe_nas_jax.spaces.nats_sss import cost

# Equal and different widths of the input and the output of a cell and of a block.
ROWS = np.array(
    [[0] * 5, [7] * 5, [0, 1, 3, 5, 7], [4, 2, 2, 6, 6], [6, 6, 1, 0, 3], [2, 5, 4, 4, 0]]
)
SIZES = [cost.Sizes(8, 1, 10), cost.Sizes(2, 2, 3), cost.Sizes(1, 1, 120)]


def network_of(sizes):
    return NatsSssNetwork(sizes.num_classes, sizes.channels, sizes.cells_per_stage)


@pytest.mark.parametrize("sizes", SIZES)
def test_parameters_are_the_leaves_of_the_built_network(sizes):
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)

    def built_parameters(genotype):
        init = network_of(sizes).init
        shapes = jax.eval_shape(lambda x: init(jax.random.key(0), x, genotype), images)
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    expected = [built_parameters(row) for row in ROWS.tolist()]
    assert network_of(sizes).cost(ROWS, side=8).params.tolist() == expected


def torch_counts(row, side, sizes):
    """Parameters of NATS-Bench's PyTorch network, and FLOPs by hooks on it, module by module."""
    torch = pytest.importorskip("torch")
    widths = [sizes.channels * (index + 1) for index in row]
    network = pytest.importorskip("nats_sss_torch").torch_network(
        widths, sizes.cells_per_stage, sizes.num_classes
    )
    flops = 0

    def count(module, inputs, output):
        nonlocal flops
        values = output[0].numel()
        if isinstance(module, torch.nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            flops += kernel * module.in_channels * values
        elif isinstance(module, torch.nn.BatchNorm2d):
            flops += 2 * values
        elif isinstance(module, torch.nn.ReLU):
            flops += values
        elif isinstance(module, torch.nn.AvgPool2d):
            flops += module.kernel_size**2 * values
        elif isinstance(module, torch.nn.AdaptiveAvgPool2d):
            flops += values * (inputs[0].shape[2] + 1) * (inputs[0].shape[3] + 1)
        elif isinstance(module, torch.nn.Linear):
            flops += module.in_features * module.out_features

    for module in network.modules():
        module.register_forward_hook(count)
    network(torch.zeros(1, 3, side, side))
    return sum(parameter.numel() for parameter in network.parameters()), flops


@pytest.mark.parametrize(("side", "sizes"), [(8, SIZES[1]), (16, SIZES[2])])
def test_costs_are_those_of_the_pytorch_network_module_by_module(side, sizes):
    expected = [torch_counts(row, side, sizes) for row in ROWS]
    counted = cost.count(ROWS, sizes, side=side)
    assert list(zip(*map(np.ndarray.tolist, counted), strict=True)) == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [(np.full((1, 5), 8), "found operation index 8"), (np.zeros(5, int), r"found shape \(5,\)")],
)
def test_bad_genotypes_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        cost.count(rows, SIZES[0], side=32)
