import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from epe_nas_jax.spaces.base import EdgeGroups
from epe_nas_jax.spaces.layers.batch_norm import normalise, without_norm
from epe_nas_jax.spaces.layers.conv_bn import ConvBN
from epe_nas_jax.spaces.nasbench201 import operations

CHANNELS = 3


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (4, 6, 6, CHANNELS), jnp.float64)


def conv_bn(seed, size):
    keys = jax.random.split(jax.random.key(seed), 3)
    return ConvBN(
        jax.random.normal(keys[0], (size, size, CHANNELS, CHANNELS), jnp.float64),
        jax.random.normal(keys[1], (CHANNELS,), jnp.float64),
        jax.random.normal(keys[2], (CHANNELS,), jnp.float64),
    )


@pytest.fixture
def weights():
    return operations.EdgeWeights(conv_bn(1, 1), conv_bn(2, 3))


@pytest.mark.parametrize("op", range(5))
def test_static_and_traced_operation_agree(op, x, weights):
    def run(op, x):
        y, vjp = jax.vjp(lambda x: operations.apply_operation(op, x, weights), x)
        return y, vjp(jnp.sin(y))[0]

    static = run(op, x)
    traced = jax.jit(run)(jnp.int32(op), x)
    for a, b in zip(static, traced, strict=True):
        assert np.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("op", range(5))
def test_an_input_jacobian_of_a_traced_operation_has_the_gradient_of_a_static_ones(op, x, weights):
    def loss(op, x):
        gradient = jax.grad(lambda x: jnp.sum(operations.apply_operation(op, x, weights) ** 3))(x)
        return jnp.sum(gradient**2)

    static = jax.grad(loss, 1)(op, x)
    traced = jax.jit(jax.grad(loss, 1))(jnp.int32(op), x)
    assert np.allclose(traced, static, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("op", range(5))
def test_input_cotangent_matches_finite_differences(op, x, weights):
    run = jax.jit(lambda x: operations.apply_operation(jnp.int32(op), x, weights))
    check_grads(run, (x,), order=1, modes=("rev",), atol=1e-4, rtol=1e-4)


def test_channel_with_scale_zero_passes_no_gradient(x, weights):
    conv = weights.nor_conv_3x3
    dead = weights._replace(nor_conv_3x3=conv._replace(scale=jnp.zeros(CHANNELS)))
    gradient = jax.grad(lambda x: operations.apply_operation(jnp.int32(3), x, dead).sum())(x)
    assert np.array_equal(gradient, np.zeros_like(x))


def test_gradient_of_weights_matches_finite_differences(x, weights):
    def loss(weights):
        return jnp.sum(operations.apply_operation(3, x, weights) ** 3)

    check_grads(loss, (weights,), order=1, modes=("rev",), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("norm", [normalise, without_norm])
def test_weights_of_a_traced_operation_have_the_gradients_of_a_static_one(x, weights, norm):
    def loss(x, weights, op):
        return jnp.sum(operations.apply_operation(op, x, weights, norm) ** 3)

    traced = jax.jit(jax.value_and_grad(loss, (0, 1)))
    for op in range(5):
        static = jax.value_and_grad(loss, (0, 1))(x, weights, op)
        for a, b in zip(*map(jax.tree.leaves, (static, traced(x, weights, op))), strict=True):
            assert np.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("num_cells", "by_weights"), [(1, False), (5, False), (33, False), (33, True)]
)
@pytest.mark.parametrize("shared_weights", [True, False])
def test_grouped_operations_equal_one_after_another(num_cells, shared_weights, by_weights, weights):
    keys = jax.random.split(jax.random.key(3), 2)
    index = jax.random.randint(keys[0], (num_cells,), 0, 5)
    x = jax.random.normal(keys[1], (num_cells, 4, 6, 6, CHANNELS), jnp.float64)
    if not shared_weights:
        factors = 1 + jnp.arange(num_cells, dtype=jnp.float64)
        weights = jax.tree.map(lambda w: jax.vmap(lambda f: f * w)(factors), weights)

    def run(op, x, weights):
        if by_weights:
            y, vjp = jax.vjp(lambda x, w: operations.apply_operation(op, x, w), x, weights)
        else:
            y, vjp = jax.vjp(lambda x: operations.apply_operation(op, x, weights), x)
        return jax.tree.leaves((y, vjp(jnp.cos(y))))

    grouped = jax.jit(jax.vmap(run, (0, 0, None if shared_weights else 0)))(index, x, weights)
    single = jax.jit(run)
    for cell in range(num_cells):
        own = weights if shared_weights else jax.tree.map(lambda w: w[cell], weights)  # noqa: B023
        for a, b in zip(grouped, single(index[cell], x[cell], own), strict=True):
            assert np.allclose(a[cell], b, rtol=1e-9, atol=1e-9)


OPS = jnp.array([3, 2, 0, 3, 1, 4, 2])
# Room for one more than there are of each, but of the pool.
GROUPS = EdgeGroups((7, 7, 3, 3, 1))


@pytest.mark.parametrize("have_own_weights", [False, True])
def test_cells_by_groups_have_the_values_and_cotangents_of_single_ones(x, have_own_weights):
    xs = jnp.stack([x * (1 + i) for i in range(len(OPS))])
    own = [operations.EdgeWeights(conv_bn(i, 1), conv_bn(20 + i, 3)) for i in range(len(OPS))]
    weights = jax.tree.map(lambda *leaves: jnp.stack(leaves), *own) if have_own_weights else own[0]
    axes = (0, 0, 0 if have_own_weights else None)

    def by_groups(op, x, weights):
        return operations.apply_operation(op, x, weights, groups=GROUPS)

    y, vjp = jax.vjp(lambda xs: jax.vmap(by_groups, axes)(OPS, xs, weights), xs)
    dx = vjp(jnp.sin(y))[0]
    for i, op in enumerate(OPS.tolist()):
        of_one = own[i] if have_own_weights else weights
        one = functools.partial(operations.apply_operation, op, weights=of_one)
        expected, vjp = jax.vjp(one, xs[i])
        assert np.allclose(y[i], expected, rtol=1e-10, atol=1e-10)
        assert np.allclose(dx[i], vjp(jnp.sin(expected))[0], rtol=1e-10, atol=1e-10)


def test_a_cell_without_room_has_nan_and_the_others_what_they_had(x, weights):
    xs = jnp.stack([x] * len(OPS))

    def run(capacities):
        def by_groups(op, x):
            return operations.apply_operation(op, x, weights, groups=EdgeGroups(capacities))

        return np.asarray(jax.vmap(by_groups)(OPS, xs))

    tight = run((7, 7, 2, 1, 1))
    assert np.flatnonzero(np.isnan(tight).any(axis=(1, 2, 3, 4))).tolist() == [3]
    others = [0, 1, 2, 4, 5, 6]
    assert np.array_equal(tight[others], run(GROUPS.capacities)[others])


def test_outputs_kept_in_halves_change_the_cotangent_only_a_little(x, weights):
    xs = jnp.stack([x] * len(OPS))

    def run(kept_dtype):
        groups = EdgeGroups(GROUPS.capacities, kept_dtype)

        def by_groups(op, x):
            return operations.apply_operation(op, x, weights, groups=groups)

        y, vjp = jax.vjp(lambda xs: jax.vmap(by_groups)(OPS, xs), xs)
        return y, vjp(jnp.sin(y))[0]

    (y, dx), (same, close) = run(None), run("bfloat16")
    assert np.array_equal(y, same)
    assert not np.array_equal(dx, close)
    # bfloat16 has 8 bits.
    assert np.abs(dx - close).max() < 2**-8 * np.abs(dx).max()


def test_groups_are_not_differentiated_by_weights(x, weights):
    def loss(weights):
        def by_groups(op):
            return operations.apply_operation(op, x, weights, groups=GROUPS)

        return jnp.sum(jax.vmap(by_groups)(OPS))

    with pytest.raises(NotImplementedError, match="expected images only"):
        jax.grad(loss)(weights)
