"""How counts and other devices predict a latency that is known."""

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from epe_nas_jax import InputError, NasBench201Network, format_arch
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead, sample
from experiments.latency import counts_of, devices_of, measure, table_of

NETWORK = NasBench201Network(10, 4, 1)


@pytest.fixture(scope="module")
def cells():
    return np.asarray(sample(jax.random.key(0), 30))


def flops(network, genotype, image_shape, batch_size):
    """A machine on which only operations count, and images."""
    assert image_shape == (32, 32, 3)
    return float(network.cost(genotype[None], side=32).flops[0] * batch_size)


def test_each_live_form_is_measured_on_mini_batches_of_each_size(cells):
    found = measure(NETWORK, cells, [1, 4], flops)
    expected = NETWORK.cost(cells, side=32, live=True).flops
    assert found["1 image"].tolist() == expected.tolist()
    assert found["4 images"].tolist() == (4 * expected).tolist()


def test_counts_are_those_of_the_network(cells):
    counts = counts_of(NETWORK, cells)
    assert counts["FLOPs"].tolist() == NETWORK.cost(cells, side=32).flops.tolist()
    live = NETWORK.cost(prune_dead(cells), side=32)
    assert counts["live parameters"].tolist() == live.params.tolist()
    names = [format_arch(cell) for cell in prune_dead(cells)]
    expected = [6 - name.count("none") for name in names]
    assert counts["live operations"].tolist() == expected


def test_predictors_are_ranked_against_what_is_measured(cells):
    measured = measure(NETWORK, cells, [1, 4], flops)
    counts = counts_of(NETWORK, cells)
    table = table_of("a count", counts, measured)
    rows = {name: values for name, *values in table.rows}
    assert rows["live FLOPs"] == ["1.000 [1.000, 1.000]"] * 2
    assert rows["measured, 1 image"] == ["1.000 [1.000, 1.000]"] * 2
    for name in counts:
        expected = stats.spearmanr(counts[name], measured["1 image"]).statistic
        assert rows[name][0].split()[0] == f"{expected:.3f}"
    assert "30 cells of NAS-Bench-201" in table.title


def test_other_devices_are_the_columns_of_latencies_by_cell(cells, tmp_path):
    path = tmp_path / "devices.csv"
    values = np.arange(30.0)
    values[3] = np.nan
    columns = {"fpga_latency": values, "fpga_energy": 0.0, "phone_latency": -values}
    archs = [format_arch(cell) for cell in cells]
    pd.DataFrame({"arch": archs, **columns})[::-1].to_csv(path, index=False)
    found = devices_of(str(path), cells[:10])
    assert list(found) == ["fpga", "phone"]
    assert np.array_equal(found["fpga"], values[:10], equal_nan=True)
    measured = pd.DataFrame({"1 image": values})
    table = table_of("another device", devices_of(str(path), cells), measured.fillna(99.0))
    # The cell without a latency in the table does not count.
    assert [row[1] for row in table.rows[1:]] == ["1.000 [1.000, 1.000]", "-1.000 [-1.000, -1.000]"]
    with pytest.raises(InputError, match=r"found no cell .*, expected its latencies"):
        devices_of(str(path), np.asarray(sample(jax.random.key(1), 40)))
    pd.DataFrame({"arch": archs}).to_csv(path, index=False)
    with pytest.raises(InputError, match="found no column NAME_latency, expected some"):
        devices_of(str(path), cells)
