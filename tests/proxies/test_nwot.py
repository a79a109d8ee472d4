import jax.numpy as jnp
import numpy as np
import oracles

from epe_nas_jax.proxies.nwot import nwot_score


def test_nwot_is_numpys():
    units = np.random.default_rng(2).random((10, 300)) > 0.5
    agreement = (units[:, None] == units[None, :]).sum(axis=2)
    expected = oracles.nwot([units[:, :100], units[:, 100:]])
    assert np.allclose(nwot_score(jnp.asarray(agreement), jnp.float64), expected, rtol=1e-12)
    assert nwot_score(jnp.ones((4, 4), jnp.int32)) == -np.inf
