import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.networks import jaxpr, rectifiers

IMAGES = np.random.default_rng(0).normal(size=(4, 5))


def read(function, *arguments):
    program = jaxpr.trace(function, *arguments, opens=rectifiers.opens, opens_rules=True)
    return program, rectifiers.find_rectifiers(program, program.inputs[-1])


def values_that_rectifiers_read(function, images=IMAGES):
    program, found = read(function, images)
    seen = {program.inputs[-1]: images}

    def watch(number, value):
        seen[number] = value
        return value

    jaxpr.evaluate(program, [images], watch)
    return [seen[number] for number in found.inputs]


@jax.custom_vjp
def with_rule(x):
    return jax.nn.relu(x)


with_rule.defvjp(lambda x: (with_rule(x), x), lambda x, dy: (dy * (x > 0),))

ONE = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": jax.nn.gelu,
    "exact_gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "hard_swish": jax.nn.hard_swish,
    "elu": jax.nn.elu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "maximum_turned": lambda x: jnp.maximum(0, x),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "where_turned": lambda x: jnp.where(x <= 0, 0.1 * x, x),
    "prelu": lambda x: nn.PReLU().apply({"params": {"negative_slope": jnp.array(0.1)}}, x),
    "clip": lambda x: jnp.clip(x, 0, 6),
    "lax_clamp": lambda x: jax.lax.clamp(0.0, x, 6.0),
    "swish_by_hand": lambda x: x * jax.nn.sigmoid(x),
    "hard_swish_by_hand": lambda x: x * jnp.clip(x + 3, 0, 6) / 6,
    "hard_swish_by_relu6": lambda x: x * jax.nn.relu6(x + 3) / 6,
    "gelu_by_hand": lambda x: 0.5 * x * (1 + jax.lax.erf(x / np.sqrt(2))),
    "jit": jax.jit(lambda x: jax.nn.relu(x)),
    "checkpoint": jax.checkpoint(lambda x: jnp.maximum(x, 0)),
    "custom_vjp": with_rule,
    "vmap": jax.vmap(jax.nn.relu),
}


@pytest.mark.parametrize("function", ONE.values(), ids=ONE)
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rectifier_is_found_once_and_reads_its_input(function, offset):
    # The input is made by arithmetic that could be taken for a part of the rectifier.
    (value,) = values_that_rectifiers_read(lambda x: jnp.tanh(function(2 * x + offset)))
    np.testing.assert_array_equal(value, 2 * IMAGES + offset)


NONE = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "softmax": jax.nn.softmax,
    "softplus": jax.nn.softplus,
    "square": lambda x: x * x,
    "gate_of_others": lambda x: x * jax.nn.sigmoid(x.mean(axis=1, keepdims=True)),
    "maximum_of_two": lambda x: jnp.maximum(x, x[::-1]),
    "kept_variance": lambda x: (
        x
        * jax.lax.rsqrt(
            jnp.maximum(jnp.mean(x**2, 1, keepdims=True) - jnp.mean(x, 1, keepdims=True) ** 2, 0)
            + 1e-5
        )
    ),
    "layer_norm": lambda x: nn.LayerNorm().apply(
        {"params": {"scale": jnp.ones(5), "bias": jnp.zeros(5)}}, x
    ),
    "of_weights": lambda x: x @ jax.nn.relu(jnp.ones((5, 5))),
}


@pytest.mark.parametrize("function", NONE.values(), ids=NONE)
def test_what_is_no_rectifier_is_none(function):
    _, found = read(function, IMAGES)
    assert found == ((), "found no rectifier")


def test_every_reader_of_a_value_counts():
    def network(x):
        return jax.nn.relu(x) @ jnp.ones((5, 2)) + jax.nn.silu(x) @ jnp.ones((5, 2))

    assert len(values_that_rectifiers_read(network)) == 2


def test_rectifiers_of_rectifiers_count_each():
    def network(x):
        x = jax.nn.relu(x) + 1
        return x * jax.nn.sigmoid(x)

    first, second = values_that_rectifiers_read(network)
    np.testing.assert_array_equal(second, np.maximum(first, 0) + 1)


def test_rectifiers_in_a_loop_are_named():
    def network(x):
        return jax.lax.scan(lambda x, _: (jax.nn.relu(x - 1), None), x, None, length=3)[0]

    _, found = read(network, IMAGES)
    assert found == ((), "there are rectifiers in a scan")


def test_rectifiers_of_another_axis_are_named():
    _, found = read(lambda x: jax.nn.relu(x.T).T, IMAGES)
    assert "whose first axis is not the images" in found.problem
