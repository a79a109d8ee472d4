import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.spaces.layers.relu_agreement import (
    _agreement_by_bits,
    _agreement_by_product,
    relu_agreement,
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
