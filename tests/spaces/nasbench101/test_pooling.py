import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from epe_nas_jax.spaces.layers.pooling import max_pool_3x3
from epe_nas_jax.spaces.nasbench101.pooling import halve_by_maximum

POOLS = {
    "3x3": (max_pool_3x3, lambda x: torch.nn.functional.max_pool2d(x, 3, stride=1, padding=1)),
    "2x2": (halve_by_maximum, lambda x: torch.nn.functional.max_pool2d(x, 2)),
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("kind", ["behind ReLUs", "all equal", "negative", "all different"])
def test_pools_and_their_gradients_are_pytorchs(name, kind):
    rng = np.random.default_rng(0)
    whole = rng.integers(-2, 3, (3, 6, 6, 4)).astype(float)
    images = {
        "behind ReLUs": np.maximum(whole, 0),
        "all equal": 0 * whole,
        "negative": whole - 5,
        "all different": rng.normal(size=whole.shape),
    }[kind]
    pool, torch_pool = POOLS[name]
    x = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    expected = torch_pool(x)
    # Whole numbers, so that no sum is rounded.
    dy = rng.integers(-9, 10, expected.shape).astype(float)
    expected.backward(torch.tensor(dy))

    y, vjp = jax.vjp(pool, images)
    assert np.array_equal(y.transpose(0, 3, 1, 2), expected.detach())
    (dx,) = vjp(jnp.asarray(dy.transpose(0, 2, 3, 1)))
    assert np.array_equal(dx.transpose(0, 3, 1, 2), x.grad)


def test_no_window_is_lost_where_its_input_is_computed_within_the_program():
    # A compiler may compute what a pool reads twice, and round it in two ways.
    x, gain = np.random.default_rng(1).normal(size=(2, 4, 8, 8, 5))

    @jax.jit
    def gradient(x, gain):
        return jax.grad(lambda added: jnp.sum(max_pool_3x3(x * gain + added)))(jnp.zeros_like(x))

    assert np.sum(gradient(x, gain)) == x.size
