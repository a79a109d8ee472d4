import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from costs import built_parameters, torch_cost
from hypothesis import given, settings
from hypothesis import strategies as st

from epe_nas_jax import InputError, NasBench201Network, format_arch, parse_arch
from epe_nas_jax.spaces.nasbench201 import cost
from epe_nas_jax.spaces.nasbench201.genotype import NUM_CELLS, decode, prune_dead

# Every operation, every operation alone, a cell with dead operations, and one without a path.
CELLS = np.array(
    [[0, 1, 2, 3, 4, 3], *[[op] * 6 for op in range(5)], [3, 0, 2, 1, 0, 0], [0, 0, 3, 0, 4, 2]]
)
SIZES = [cost.Sizes(4, 1, 3), cost.Sizes(16, 5, 10), cost.Sizes(6, 2, 120)]


def published_sizes(num_classes):
    """The benchmark's own channels and cells."""
    return cost.Sizes(16, 5, num_classes)


def network_of(sizes):
    return NasBench201Network(sizes.num_classes, sizes.channels, sizes.cells_per_stage)


@pytest.mark.parametrize("sizes", SIZES)
def test_parameters_are_the_leaves_of_the_built_network(sizes):
    expected = [built_parameters(network_of(sizes), cell.tolist()) for cell in CELLS]
    assert cost.parameters(CELLS, sizes).tolist() == expected


@pytest.mark.parametrize("live", [False, True])
def test_the_network_costs_what_its_cells_cost(live):
    sizes = SIZES[2]
    both = network_of(sizes).cost(CELLS, side=8, live=live)
    assert np.array_equal(both.params, cost.parameters(CELLS, sizes, live=live))
    assert np.array_equal(both.flops, cost.flops(CELLS, sizes, side=8, live=live))


def torch_network(genotype, sizes):
    """NAS-Bench-201's PyTorch network."""
    cell_infers = pytest.importorskip("xautodl.models.cell_infers")
    structures = pytest.importorskip("xautodl.models.cell_searchs.genotypes")
    structure = structures.Structure.str2structure(format_arch(genotype))
    return cell_infers.TinyNetwork(
        sizes.channels, sizes.cells_per_stage, structure, sizes.num_classes
    )


@pytest.mark.parametrize("side", [8, 16])
def test_flops_are_those_of_the_pytorch_network_module_by_module(side):
    sizes = cost.Sizes(channels=4, cells_per_stage=2, num_classes=7)
    expected = [torch_cost(torch_network(cell, sizes), side)[1] for cell in CELLS]
    assert cost.flops(CELLS, sizes, side=side).tolist() == expected


@given(st.lists(st.integers(0, NUM_CELLS - 1), min_size=1, max_size=20))
@settings(deadline=None)
def test_dead_operations_do_not_count_where_only_live_ones_do(codes):
    cells = np.asarray(decode(np.array(codes, np.int32)))
    sizes = published_sizes(10)
    for count in (cost.parameters, lambda g, s, **kwargs: cost.flops(g, s, side=32, **kwargs)):
        live = count(cells, sizes, live=True)
        assert np.array_equal(live, count(prune_dead(cells), sizes))
        assert (live <= count(cells, sizes)).all()


def test_a_dead_convolution_counts_by_default():
    dead, sizes = np.array([[0, 0, 3, 3, 0, 0]]), published_sizes(10)
    assert cost.parameters(dead, sizes) > cost.parameters(dead, sizes, live=True)


def test_bad_genotypes_are_refused():
    sizes = published_sizes(10)
    with pytest.raises(InputError, match="found operation index 5"):
        cost.parameters(np.full((1, 6), 5), sizes)
    with pytest.raises(InputError, match=r"found shape \(6,\)"):
        cost.flops(np.zeros(6, int), sizes, side=32)


# Rows of NAS-Bench-201's and NAS-Bench-Suite-Zero's tables: parameters for 10, 100 and 120 classes,
# MFLOPs at 32 pixels and 10 classes, and at 16 and 120.
PUBLISHED = {
    (4, 2, 1, 2, 1, 1): ((129306, 135156, 136456), (17.958592, 4.497472)),
    (3, 3, 4, 1, 3, 1): ((802426, 808276, 809576), (116.692672, 29.180992)),
}


def test_counts_are_the_published_ones_of_two_cells():
    cells = np.array(list(PUBLISHED))
    parameters = [cost.parameters(cells, published_sizes(k)) for k in (10, 100, 120)]
    flops = [cost.flops(cells, published_sizes(k), side=s) / 1e6 for k, s in ((10, 32), (120, 16))]
    assert np.transpose(parameters).tolist() == [list(row[0]) for row in PUBLISHED.values()]
    assert np.transpose(flops).tolist() == [list(row[1]) for row in PUBLISHED.values()]


@pytest.mark.skipif("EPE_NAS_JAX_DATA" not in os.environ, reason="needs the published tables")
def test_counts_are_the_published_ones_of_every_cell():
    table = pd.read_csv(Path(os.environ["EPE_NAS_JAX_DATA"]) / "nasbench201.csv.gz")
    cells = np.array([parse_arch(arch) for arch in table["arch"]])
    assert len(cells) == NUM_CELLS
    for name, num_classes in (("cifar10", 10), ("cifar100", 100), ("imagenet16", 120)):
        ours = cost.parameters(cells, published_sizes(num_classes))
        assert np.array_equal(ours, table[f"{name}_params"])
    for name, num_classes, side in (("cifar10", 10, 32), ("imagenet16", 120, 16)):
        column = table[f"{name}_mflops"]
        assert column.notna().sum() == 9445
        ours = cost.flops(cells, published_sizes(num_classes), side=side)
        # The column has 9 digits, in millions: enough for every integer it holds.
        published = np.rint(column[column.notna()] * 1e6).astype(np.int64)
        assert np.array_equal(ours[column.notna()], published)
