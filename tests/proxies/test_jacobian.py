import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax import input_jacobian
from epe_nas_jax.proxies.jacobian import probed_jacobian


def test_input_jacobian_of_a_linear_network_is_its_summed_weights():
    weights = jax.random.normal(jax.random.key(0), (12, 5), jnp.float64)
    images = jnp.ones((3, 2, 2, 3))
    jacobian = input_jacobian(lambda w, x: x.reshape(3, -1) @ w, weights, images)
    assert np.allclose(jacobian, np.tile(weights.sum(axis=1), (3, 1)))


def test_input_jacobian_sees_the_whole_mini_batch():
    def centred_cube(_, x):
        return (x - x.mean(axis=0, keepdims=True)) ** 3

    images = jax.random.normal(jax.random.key(0), (4, 2))
    together = input_jacobian(centred_cube, None, images)
    halves = [input_jacobian(centred_cube, None, images[i : i + 2]) for i in (0, 2)]
    step = 1e-6
    for i, j in ((0, 0), (3, 1)):
        moved = images.at[i, j].add(step), images.at[i, j].add(-step)
        slope = [centred_cube(None, m).sum() for m in moved]
        assert np.allclose(together[i, j], (slope[0] - slope[1]) / (2 * step), rtol=1e-6)
    assert not np.allclose(together, np.concatenate(halves), rtol=0.01)


def test_probes_are_differentiated_on_the_same_pass_and_the_rest_is_handed_on():
    weights = jax.random.normal(jax.random.key(0), (12, 5), jnp.float64)
    images = jax.random.normal(jax.random.key(1), (3, 2, 2, 3), jnp.float64)

    def apply_fn(probes, images):
        logits = images.reshape(3, -1) @ weights
        return logits + 0 * logits + probes["a"] * 2 + probes["b"] * 3, {"mean": jnp.mean(images)}

    probes = {"a": jnp.zeros(()), "b": jnp.zeros(())}
    jacobian, measured, aux = probed_jacobian(apply_fn, probes, images)
    assert np.allclose(jacobian, np.tile(weights.sum(axis=1), (3, 1)))
    # Of 15 logits each.
    assert measured == {"a": 30, "b": 45}
    assert np.isclose(aux["mean"], np.mean(images))
