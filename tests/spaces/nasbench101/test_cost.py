import os
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from costs import torch_cost
from nasbench101_torch import Network

from epe_nas_jax import InputError
from epe_nas_jax.spaces.nasbench101.cost import Sizes, count
from epe_nas_jax.spaces.nasbench101.genotype import as_written, parse, prune_dead, sample
from epe_nas_jax.spaces.nasbench101.network import NasBench101Network

C1, C3, POOL = "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3"
BENCHMARK = Sizes(channels=128, cells_per_stage=3, num_classes=10)
# Cells and their parameters in NAS-Bench-101's table.
PUBLISHED = {
    f"100110-10000-1001-010-10-1:input,{C3},{POOL},{C3},{C3},{C1},output": 8_555_530,
    f"100000-10000-1000-111-10-1:input,{C1},{C1},{C3},{C1},{C3},output": 5_878_154,
    f"100010-10010-1000-101-10-1:input,{C3},{POOL},{C1},{POOL},{C1},output": 3_729_162,
    f"100000-10010-1100-101-10-1:input,{C1},{POOL},{C1},{POOL},{C3},output": 3_292_298,
}
# Parameters and millions of FLOPs in NAS-Bench-Suite-Zero's table.
PUBLISHED_FLOPS = {
    f"11111-0001-001-10-1:input,{POOL},{POOL},{C3},{C3},output": (4_095_778, 624.55808),
    f"1100-011-01-1:input,{C3},{POOL},{C1},output": (1_749_031, 268.100288),
    f"1111-111-10-1:input,{C3},{POOL},{POOL},output": (4_518_282, 691.803136),
}
SHARED = os.environ.get("EPE_NAS_JAX_DATA", "")
needs_tables = pytest.mark.skipif(not SHARED, reason="EPE_NAS_JAX_DATA names no published tables")


def cells_of(texts):
    return np.stack([parse(text) for text in texts])


def test_parameters_are_the_published_ones():
    cost = count(cells_of(PUBLISHED), BENCHMARK, side=32)
    assert cost.params.tolist() == list(PUBLISHED.values())


def test_flops_are_those_of_nasbench_suite_zero():
    params, flops = count(cells_of(PUBLISHED_FLOPS), BENCHMARK, side=32)
    assert list(zip(params.tolist(), (flops / 1e6).tolist(), strict=True)) == list(
        PUBLISHED_FLOPS.values()
    )


@needs_tables
def test_parameters_are_those_of_the_table_for_every_row():
    table = pd.read_csv(Path(SHARED) / "nasbench101.csv.gz", dtype=str)
    assert len(table) == 15_081
    cost = count(cells_of(table.adjacency + ":" + table.ops), BENCHMARK, side=32)
    assert np.array_equal(cost.params, table.params.astype(int))


@needs_tables
def test_flops_are_those_of_the_table_for_every_row():
    table = pd.read_csv(Path(SHARED) / "nasbench101_zc_500.csv.gz", dtype=str)
    cost = count(cells_of(table.adjacency + ":" + table.ops), BENCHMARK, side=32)
    assert np.array_equal(cost.params, table.params.astype(int))
    # Of nine digits.
    assert np.allclose(cost.flops / 1e6, table.mflops.astype(float), rtol=5e-9, atol=0)


def torch_network(genotype, sizes):
    """The PyTorch network of a cell."""
    matrix, labels = as_written(genotype)
    return Network(matrix.tolist(), labels, *sizes)


@pytest.mark.parametrize("sizes", [Sizes(5, 1, 3), Sizes(4, 2, 7)])
def test_costs_are_those_of_the_pytorch_network(sizes):
    cells = np.concatenate([sample(jax.random.key(0), 3), cells_of(PUBLISHED_FLOPS)])
    cost = count(cells, sizes, side=8)
    expected = [torch_cost(torch_network(cell, sizes), 8) for cell in cells]
    assert list(zip(cost.params.tolist(), cost.flops.tolist(), strict=True)) == expected
    assert cost.params.dtype == cost.flops.dtype == np.int64


def test_vertices_on_no_path_cost_nothing():
    raw = parse(f"110000-00001-0100-000-00-1:input,{C3},{C3},{C1},{C1},{POOL},output")
    live = prune_dead(raw)
    assert not np.array_equal(live, raw)
    network = NasBench101Network(10, channels=8)
    for is_live in (False, True):
        assert network.cost(raw[None], side=8, live=is_live) == network.cost(live[None], side=8)


def test_bad_genotypes_are_refused():
    with pytest.raises(InputError, match="genotype 0: found 21 edges"):
        count(np.ones((1, 26), int), BENCHMARK, side=32)
