"""Parameters and FLOPs of NAS-Bench-301's networks, beside published tables and PyTorch."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from darts_torch import BenchNetwork

from epe_nas_jax import InputError, NasBench301Network
from epe_nas_jax.spaces.darts.edges import NUM_VALUES, OPERATIONS_OF
from epe_nas_jax.spaces.nasbench301.genotype import format_genotype, parse_genotype

# Beside the repository.
TABLE = Path(__file__).parents[4] / "shared" / "data" / "nasbench301_zc_725.csv.gz"
# The benchmark's network ends without batch norm and ReLU.
NETWORK = NasBench301Network(10, last_activation=False)
# Of the table: cells, parameters, and millions of FLOPs.
ROWS = [
    (
        "Genotype(normal=[('max_pool_3x3', 0), ('dil_conv_3x3', 1), ('avg_pool_3x3', 1), "
        "('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
        "('skip_connect', 3)], normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 1), "
        "('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('max_pool_3x3', 3), "
        "('avg_pool_3x3', 0), ('max_pool_3x3', 2), ('dil_conv_5x5', 3)], "
        "reduce_concat=[2, 3, 4, 5])",
        856298,
        153.499136,
    ),
    (
        "Genotype(normal=[('dil_conv_3x3', 0), ('max_pool_3x3', 1), ('avg_pool_3x3', 2), "
        "('skip_connect', 0), ('skip_connect', 3), ('sep_conv_3x3', 0), ('max_pool_3x3', 1), "
        "('dil_conv_3x3', 3)], normal_concat=[2, 3, 4, 5], reduce=[('avg_pool_3x3', 1), "
        "('skip_connect', 0), ('dil_conv_3x3', 0), ('max_pool_3x3', 1), ('dil_conv_5x5', 0), "
        "('skip_connect', 2), ('dil_conv_5x5', 4), ('max_pool_3x3', 0)], "
        "reduce_concat=[2, 3, 4, 5])",
        673834,
        126.252544,
    ),
]


def check(rows):
    texts, params, mflops = zip(*rows, strict=True)
    cost = NETWORK.cost(np.array([parse_genotype(text) for text in texts]), side=32)
    assert cost.params.tolist() == list(params)
    # The table has nine digits.
    assert np.allclose(cost.flops / 1e6, mflops, rtol=1e-8, atol=0)


def test_parameters_and_flops_are_those_of_rows_of_the_table():
    check(ROWS)


def test_parameters_and_flops_are_those_of_all_rows_of_the_table():
    if not TABLE.exists():
        pytest.skip(f"{TABLE} is not there")
    with gzip.open(TABLE, "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 725
    check([(row["genotype"], int(row["params"]), float(row["mflops"])) for row in rows])


def test_parameters_are_those_of_pytorch_for_any_value_of_an_edge():
    # Every value in both cells, four to a pair of cells: on an input, and on the node before.
    values = np.append(np.arange(NUM_VALUES), [0] * (-NUM_VALUES % 4)).reshape(-1, 4)
    cells = np.zeros((len(values), 28), int)
    cells[:, [0, 4, 14, 18]] = values
    network = NasBench301Network(3, channels=2, num_cells=5)
    expected = [
        sum(p.numel() for p in BenchNetwork(format_genotype(cell), 2, 5, 3).parameters())
        for cell in cells
    ]
    assert network.cost(cells, side=8).params.tolist() == expected


def test_a_pair_costs_what_its_operations_cost():
    values = np.arange(NUM_VALUES)
    cells = np.zeros((NUM_VALUES, 28), int)
    cells[:, 1] = values
    cost = NETWORK.cost(cells, side=32)
    first, second = OPERATIONS_OF.T
    for numbers in cost:
        assert np.array_equal(numbers, numbers[first] + numbers[second] - numbers[0])


def test_genotypes_are_checked():
    with pytest.raises(InputError, match="found operation index 36"):
        NETWORK.cost(np.full((1, 28), NUM_VALUES), side=8)


def test_the_pytorch_network_of_the_tests_has_the_parameters_of_the_table():
    text, params, _ = ROWS[0]
    network = BenchNetwork(text, 32, 8, 10)
    last = sum(p.numel() for p in network.norm.parameters())
    with torch.no_grad():
        assert sum(p.numel() for p in network.parameters()) - last == params
