import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from epe_nas_jax import convolution, ops

CHANNELS = 3


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (4, 6, 6, CHANNELS), jnp.float64)


def conv_bn(seed, size):
    keys = jax.random.split(jax.random.key(seed), 3)
    return ops.ConvBN(
        jax.random.normal(keys[0], (size, size, CHANNELS, CHANNELS), jnp.float64),
        jax.random.normal(keys[1], (CHANNELS,), jnp.float64),
        jax.random.normal(keys[2], (CHANNELS,), jnp.float64),
    )


@pytest.fixture
def weights():
    return ops.EdgeWeights(conv_bn(1, 1), conv_bn(2, 3))


def test_avg_pool_does_not_count_padding(x):
    for row, column in ((0, 0), (2, 0), (5, 3), (3, 3)):
        window = x[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        expected = window.mean(axis=(1, 2))
        assert np.allclose(ops.avg_pool_3x3(x)[:, row, column], expected, rtol=1e-12)


def test_convolution_is_a_sum_over_the_zero_padded_window(x, weights):
    kernel = weights.nor_conv_3x3.kernel
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for stride in (1, 2):
        got = convolution.convolve(x, kernel, stride)
        assert got.shape == (4, 6 // stride, 6 // stride, CHANNELS)
        for row, column in ((0, 0), (1, 2), (2, 1)):
            window = padded[:, stride * row :, stride * column :][:, :3, :3]
            expected = np.einsum("nhwc,hwcd->nd", window, kernel)
            assert np.allclose(got[:, row, column], expected, rtol=1e-11)


def test_batch_norm_has_unit_moments_before_scale_and_shift(x):
    y, _ = ops.normalise(3 * x + 5, jnp.full(CHANNELS, 2.0), jnp.full(CHANNELS, 7.0))
    assert np.allclose(y.mean((0, 1, 2)), 7, rtol=1e-12)
    # The variance is divided by itself plus epsilon, a relative 1e-5 / 9.
    assert np.allclose(y.std((0, 1, 2)), 2, rtol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_the_convolution_match_finite_differences(x, weights, stride):
    kernel = weights.nor_conv_3x3.kernel
    check_grads(
        lambda x, k: convolution.convolve(x, k, stride), (x, kernel), order=1, modes=("rev",)
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("num_images", [5, 24])
def test_kernel_cotangent_of_patches_is_autodiffs(stride, num_images):
    keys = jax.random.split(jax.random.key(4), 3)
    x = jax.random.normal(keys[0], (num_images, 6, 8, 3), jnp.float64)
    kernel = jax.random.normal(keys[1], (3, 3, 3, 4), jnp.float64)
    y = convolution.convolve(x, kernel, stride)
    dy = jax.random.normal(keys[2], y.shape, jnp.float64)
    got = convolution._kernel_cotangent_of_patches(stride, x, kernel, dy)
    assert np.allclose(got, convolution._kernel_cotangent(stride, x, kernel, dy), rtol=1e-10)


@pytest.mark.parametrize("op", range(5))
def test_static_and_traced_operation_agree(op, x, weights):
    def run(op, x):
        y, vjp = jax.vjp(lambda x: ops.apply_operation(op, x, weights), x)
        return y, vjp(jnp.sin(y))[0]

    static = run(op, x)
    traced = jax.jit(run)(jnp.int32(op), x)
    for a, b in zip(static, traced, strict=True):
        assert np.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("op", range(5))
def test_input_cotangent_matches_finite_differences(op, x, weights):
    run = jax.jit(lambda x: ops.apply_operation(jnp.int32(op), x, weights))
    check_grads(run, (x,), order=1, modes=("rev",), atol=1e-4, rtol=1e-4)


def test_channel_with_scale_zero_passes_no_gradient(x, weights):
    conv = weights.nor_conv_3x3
    dead = weights._replace(nor_conv_3x3=conv._replace(scale=jnp.zeros(CHANNELS)))
    gradient = jax.grad(lambda x: ops.apply_operation(jnp.int32(3), x, dead).sum())(x)
    assert np.array_equal(gradient, np.zeros_like(x))


def test_gradient_of_weights_matches_finite_differences(x, weights):
    def loss(weights):
        return jnp.sum(ops.apply_operation(3, x, weights) ** 3)

    check_grads(loss, (weights,), order=1, modes=("rev",), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("norm", [ops.normalise, ops.without_norm])
def test_weights_of_a_traced_operation_have_the_gradients_of_a_static_one(x, weights, norm):
    def loss(x, weights, op):
        return jnp.sum(ops.apply_operation(op, x, weights, norm) ** 3)

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
            y, vjp = jax.vjp(lambda x, w: ops.apply_operation(op, x, w), x, weights)
        else:
            y, vjp = jax.vjp(lambda x: ops.apply_operation(op, x, weights), x)
        return jax.tree.leaves((y, vjp(jnp.cos(y))))

    grouped = jax.jit(jax.vmap(run, (0, 0, None if shared_weights else 0)))(index, x, weights)
    single = jax.jit(run)
    for cell in range(num_cells):
        own = weights if shared_weights else jax.tree.map(lambda w: w[cell], weights)  # noqa: B023
        for a, b in zip(grouped, single(index[cell], x[cell], own), strict=True):
            assert np.allclose(a[cell], b, rtol=1e-9, atol=1e-9)


def test_grouped_switch_runs_each_branch_on_its_own_rows_only():
    def count(runs):
        jax.debug.callback(lambda: runs.append(1), ordered=False)

    runs = [[], [], []]
    branches = [lambda x, r=r: (count(r), x)[1] for r in runs]
    index = jnp.array([0, 2, 2, 0, 2])
    out = jax.vmap(lambda i, x: ops.grouped_switch(i, branches, x))(index, jnp.arange(5.0))
    jax.block_until_ready(out)
    jax.effects_barrier()
    assert [len(r) for r in runs] == [2, 0, 3]
