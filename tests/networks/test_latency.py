"""The network that is measured: one static cell, as it is used, on images of the size asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax import NasBench201Network, parse_arch
from epe_nas_jax.networks import latency
from epe_nas_jax.networks.latency import latency_ms
from epe_nas_jax.spaces.table import SPACES

ARCH = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|"


@pytest.fixture
def measured(monkeypatch):
    """The functions that are measured, each of which is called once and takes 2 ms."""
    runs = []

    def seconds(run, **settings):
        runs.append((run, run(), settings))
        return 0.002

    monkeypatch.setattr(latency, "median_seconds", seconds)
    return runs


def test_a_network_of_one_cell_is_measured_as_it_is_used(measured):
    network = NasBench201Network(10, 4, 1)
    cell = parse_arch(ARCH)
    assert latency_ms(network, cell, (8, 8, 3), 5) == 2
    ((run, logits, settings),) = measured
    assert settings == {"warm_up": 3, "least": 10, "most": 50}
    (weights, images) = run.args
    assert images.shape == (5, 8, 8, 3)
    assert images.dtype == logits.dtype == jnp.float32
    # Running averages: an image's logits do not depend on the others.
    assert "batch_stats" in weights
    alone = jax.jit(
        lambda weights, images: network.apply(
            weights, images, tuple(cell.tolist()), use_running_average=True
        )
    )(weights, images[:1])
    np.testing.assert_allclose(logits[:1], alone, rtol=1e-5, atol=1e-6)
    # Only the cell's own operations are built.
    expected = network.cost(cell[None], side=8).params
    assert sum(leaf.size for leaf in jax.tree.leaves(weights["params"])) == expected


@pytest.mark.parametrize("name", ["nats_sss", "nasbench101"])
def test_a_network_without_running_averages_is_measured_as_it_is_scored(measured, name):
    network = SPACES[name].make_network(3, 4, 1, jnp.dtype(jnp.float32))
    cell = np.asarray(network.space.sample(jax.random.key(0), 1))[0]
    assert latency_ms(network, cell, (8, 8, 3), 2) == 2
    ((run, logits, _),) = measured
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()
    assert set(run.args[0]) == {"params"}


def test_a_network_takes_some_time():
    # Other tests have the clock: here the whole of it runs once.
    assert latency_ms(NasBench201Network(3, 2, 1), np.zeros(6, np.int32), (8, 8, 3), 1) > 0
