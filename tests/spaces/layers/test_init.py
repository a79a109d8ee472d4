import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.spaces.layers.init import draw_layers, scale_to_fan_in

KEY = jax.random.key(3)


def test_a_tensor_is_drawn_from_its_own_number_and_from_nothing_else():
    drawn = draw_layers(KEY, 2, 3, 4, 5, jnp.float64)
    assert drawn.shape == (3, 4, 5)
    assert drawn.dtype == np.float64
    for layer in range(3):
        for tensor in range(4):
            key = jax.random.fold_in(KEY, (2 + layer) * 4 + tensor)
            own = jax.random.uniform(key, (5,), jnp.float64, -1, 1)
            assert np.array_equal(drawn[layer, tensor], own)
    # A layer has the weights that it has when drawn alone.
    assert np.array_equal(draw_layers(KEY, 3, 1, 4, 5, jnp.float64)[0], drawn[1])


def test_where_weights_exist_already_nothing_is_drawn():
    assert np.array_equal(draw_layers(None, 2, 3, 4, 5, jnp.float32), np.zeros((3, 4, 5)))


@pytest.mark.parametrize(
    ("shape", "fan_in", "bound"),
    [
        ((3, 3, 4, 8), None, 1 / np.sqrt(36)),
        ((64, 10), None, 1 / np.sqrt(64)),
        ((10,), 64, 1 / np.sqrt(64)),
    ],
)
def test_weights_are_scaled_to_the_inputs_of_an_output(shape, fan_in, bound):
    size = int(np.prod(shape))
    drawn = jnp.linspace(-1, 1, size + 7)
    got = scale_to_fan_in(drawn, shape, fan_in)
    assert np.allclose(got, bound * np.asarray(drawn)[:size].reshape(shape), rtol=1e-12)
