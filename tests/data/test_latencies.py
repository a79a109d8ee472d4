import math
import os
from pathlib import Path

import numpy as np
import pytest

from epe_nas_jax import InputError, format_arch, parse_arch
from epe_nas_jax.data.latencies import read_latencies
from epe_nas_jax.spaces.darts.published import DARTS_V1
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

DATA = os.environ.get("EPE_NAS_JAX_DATA", "")
ARCHS = [format_arch(np.full(6, op)) for op in range(4)]


def read(path, column="ms", space=NASBENCH201):
    return read_latencies(path, column, space=space)


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_latencies_are_read_by_cell_and_missing_ones_are_nan(write, name):
    rows = zip(ARCHS, ["1.5", "", "2e-3", "0"], strict=True)
    lines = [f"{number},{arch},{ms}" for number, (arch, ms) in enumerate(rows)]
    found = read(write("\n".join(["index,arch,ms", *lines]), name))
    assert list(found) == ARCHS
    assert np.array_equal([*found.values()], [1.5, np.nan, 0.002, 0], equal_nan=True)


def test_latencies_are_read_from_json_and_cells_as_the_space_writes_them(write):
    assert read(write(f'{{"{ARCHS[1]}": 3, "{ARCHS[2]}": null}}', "t.json"))[ARCHS[1]] == 3
    found = read(write(f'genotype,ms\n"{DARTS_V1}",7\n'), space=DARTS)
    assert found == {DARTS.format(DARTS.parse(DARTS_V1)): 7}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("arch,us\n", "expected a column 'ms', found arch, us"),
        ("arch,ms\n", "found no cells, expected latencies"),
        (f"arch,ms\n{ARCHS[0]},1\n{ARCHS[0]},1\n", "twice, expected each cell once"),
        ("arch,ms\n|none~0|,1\n", "cell 1: "),
        (f"arch,ms\n{ARCHS[0]},fast\n", "ms: found fast, expected milliseconds"),
        (f"arch,ms\n{ARCHS[0]},-1\n", "ms: found -1, expected milliseconds"),
        (f"arch,ms\n{ARCHS[0]},inf\n", "ms: found inf, expected milliseconds"),
        (f"arch,ms\n{ARCHS[0]},\n", "ms: found no numbers, expected milliseconds"),
        (f"arch;ms\n{ARCHS[0]};1,234\n", "whose comma may separate thousands"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(write, content, message):
    with pytest.raises(InputError, match=message) as error:
        read(write(content))
    assert "table.csv" in str(error.value)


def test_a_missing_file_is_refused():
    with pytest.raises(InputError, match="no such file"):
        read("no.csv")


@pytest.mark.skipif(not DATA, reason="EPE_NAS_JAX_DATA does not name a folder of published tables")
def test_a_published_table_is_read_whole():
    path = str(Path(DATA) / "nasbench201_hw.csv.gz")
    found = read(path, "cifar10_edgetpu_latency")
    assert len(found) == 15625
    assert sum(map(math.isnan, found.values())) == 4699
    first = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|"
    assert found[format_arch(parse_arch(f"{first}skip_connect~2|"))] == 0.957181131
