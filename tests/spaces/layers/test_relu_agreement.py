import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.spaces.layers.relu_agreement import (
    _agreement_by_bits,
    _agreement_by_product,
    relu_agreement,
    sow_relu_agreement,
)


@pytest.mark.parametrize("shape", [(5, 4, 4, 3), (6, 4, 4, 4), (3, 2, 2, 1), (4, 16, 16, 4)])
@pytest.mark.parametrize("count", [relu_agreement, _agreement_by_bits, _agreement_by_product])
def test_agreement_counts_units(shape, count):
    x = np.random.default_rng(1).normal(size=shape)
    x.flat[::7] = 0
    units = (x > 0).reshape(len(x), -1)
    expected = (units[:, None] == units[None, :]).sum(axis=2)
    got = count(jnp.asarray(x if count is relu_agreement else units))
    assert np.array_equal(got, expected)


class _Relus(nn.Module):
    @nn.compact
    def __call__(self, x, num_relus, num_absent):
        sow_relu_agreement(self, "relus", x, num_relus, num_absent)


@pytest.mark.parametrize("num_relus", [0, 1, 3])
def test_units_that_are_not_there_do_not_count(num_relus):
    x = np.random.default_rng(0).normal(size=(4, 2, 2, 5))
    # Of the last two channels there is nothing but zeros.
    padded = np.where(np.arange(5) < 3, x, 0)
    _, sown = _Relus().apply({}, padded, num_relus, 2 * 2 * 2, mutable=["relus"])
    (got,) = sown["relus"]["relus"]
    assert np.array_equal(got, num_relus * relu_agreement(x[..., :3]))
