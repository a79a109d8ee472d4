import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from costs import built_parameters, torch_cost
from hypothesis import given, settings
from hypothesis import strategies as st

from epe_nas_jax import InputError, TransNasMicroNetwork
from epe_nas_jax.spaces.transnas_micro import cost
from epe_nas_jax.spaces.transnas_micro.genotype import PRODUCT, parse, prune_dead

# Every operation on every edge, a cell with dead operations, and one without a path.
CELLS = np.array(
    [
        *[np.roll([0, 1, 2, 3, 0, 1], shift) for shift in range(6)],
        *[[op] * 6 for op in range(4)],
        [3, 0, 2, 1, 0, 0],
        [0, 0, 3, 0, 2, 2],
    ]
)
SIZES = [cost.Sizes(4, 1, 3, True), cost.Sizes(8, 2, 10, False), cost.Sizes(6, 3, 120, True)]
CLASSES = {"class_object": 100, "class_scene": 63}


def network_of(sizes):
    num_classes, last_activation = sizes.num_classes, sizes.last_activation
    return TransNasMicroNetwork(
        num_classes, sizes.channels, sizes.cells_per_module, last_activation
    )


def published_sizes(task):
    """The benchmark's own channels and cells, and its head."""
    return cost.Sizes(64, 2, CLASSES[task], last_activation=False)


@pytest.mark.parametrize("sizes", SIZES)
def test_parameters_are_the_leaves_of_the_built_network(sizes):
    expected = [built_parameters(network_of(sizes), cell.tolist()) for cell in CELLS]
    assert network_of(sizes).cost(CELLS, side=8).params.tolist() == expected


def torch_counts(genotype, side, sizes):
    """Parameters and FLOPs of the PyTorch network."""
    reference = pytest.importorskip("transnas_torch")
    network = reference.torch_network(
        genotype,
        sizes.channels,
        sizes.cells_per_module,
        sizes.num_classes,
        last_activation=sizes.last_activation,
    )

    def own_flops(module, inputs, _):
        # Its ReLU is a function.
        return inputs[0][0].numel() if isinstance(module, reference.FactorizedReduce) else None

    return torch_cost(network, side, own_flops)


@pytest.mark.parametrize(("side", "sizes"), [(8, SIZES[0]), (32, SIZES[1])])
def test_costs_are_those_of_the_pytorch_network_module_by_module(side, sizes):
    # These have every operation on every edge.
    cells = CELLS[:6]
    expected = [torch_counts(cell, side, sizes) for cell in cells]
    counted = cost.count(cells, sizes, side=side)
    assert list(zip(*map(np.ndarray.tolist, counted), strict=True)) == expected


# Rows of NASLib's table: parameters, and MFLOPs at 256 pixels with 9 digits.
PUBLISHED = {
    ("class_object", "64-41414-0_00_202"): (1612932, 407.562752),
    ("class_object", "64-41414-1_31_230"): (14727044, 3062.06566),
    ("class_object", "64-41414-2_12_101"): (1960580, 459.729408),
    ("class_scene", "64-41414-1_01_013"): (7898463, 1630.4128),
    ("class_scene", "64-41414-3_13_001"): (14023007, 2916.6551),
}


def assert_published(cells, task, params, mflops):
    counted = cost.count(cells, published_sizes(task), side=256)
    assert np.array_equal(counted.params, params)
    assert np.allclose(counted.flops / 1e6, mflops, rtol=5e-9, atol=0)


@pytest.mark.parametrize(("row", "counts"), PUBLISHED.items())
def test_counts_are_the_published_ones_of_some_cells(row, counts):
    task, text = row
    assert_published(parse(text)[None], task, *[[count] for count in counts])


@pytest.mark.skipif("EPE_NAS_JAX_DATA" not in os.environ, reason="needs the published tables")
@pytest.mark.parametrize("task", CLASSES)
def test_counts_are_the_published_ones_of_every_row(task):
    folder = Path(os.environ["EPE_NAS_JAX_DATA"])
    table = pd.read_csv(folder / "transnasbench101_micro_zc.csv.gz")
    rows = table[table["task"] == task]
    assert len(rows) == 711
    cells = np.array([parse(arch) for arch in rows["arch"]])
    assert_published(cells, task, rows["params"], rows["mflops"])


@given(st.lists(st.integers(0, PRODUCT.size - 1), min_size=1, max_size=20))
@settings(deadline=None)
def test_dead_operations_do_not_count_where_only_live_ones_do(codes):
    cells = PRODUCT.decode(np.array(codes))
    built, live, pruned = (
        cost.count(rows, SIZES[1], side=32, live=live)
        for rows, live in ((cells, False), (cells, True), (prune_dead(cells), False))
    )
    for name in ("params", "flops"):
        assert np.array_equal(getattr(live, name), getattr(pruned, name))
        assert (getattr(live, name) <= getattr(built, name)).all()


def test_a_dead_convolution_counts_by_default():
    dead = np.array([[0, 0, 3, 3, 0, 0]])
    built, live = (cost.count(dead, SIZES[1], side=32, live=live) for live in (False, True))
    assert built.params > live.params
    assert built.flops > live.flops


@pytest.mark.parametrize(
    ("rows", "message"),
    [(np.full((1, 6), 4), "found operation index 4"), (np.zeros(6, int), r"found shape \(6,\)")],
)
def test_bad_genotypes_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        cost.count(rows, SIZES[0], side=32)
