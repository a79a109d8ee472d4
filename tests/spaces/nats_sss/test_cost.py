import numpy as np
import pytest
from costs import built_parameters, torch_cost

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
    expected = [built_parameters(network_of(sizes), row) for row in ROWS.tolist()]
    assert network_of(sizes).cost(ROWS, side=8).params.tolist() == expected


def torch_network(row, sizes):
    """NATS-Bench's PyTorch network."""
    reference = pytest.importorskip("nats_sss_torch")
    widths = [sizes.channels * (index + 1) for index in row]
    return reference.torch_network(widths, sizes.cells_per_stage, sizes.num_classes)


@pytest.mark.parametrize(("side", "sizes"), [(8, SIZES[1]), (16, SIZES[2])])
def test_costs_are_those_of_the_pytorch_network_module_by_module(side, sizes):
    expected = [torch_cost(torch_network(row, sizes), side) for row in ROWS]
    counted = cost.count(ROWS, sizes, side=side)
    assert list(zip(*map(np.ndarray.tolist, counted), strict=True)) == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [(np.full((1, 5), 8), "found operation index 8"), (np.zeros(5, int), r"found shape \(5,\)")],
)
def test_bad_genotypes_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        cost.count(rows, SIZES[0], side=32)
