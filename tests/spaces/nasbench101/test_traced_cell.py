import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.spaces.layers.conv_bn import ConvBN
from epe_nas_jax.spaces.nasbench101.branch import plan_of
from epe_nas_jax.spaces.nasbench101.genotype import parse
from epe_nas_jax.spaces.nasbench101.layout import layout_of
from epe_nas_jax.spaces.nasbench101.operations import CellWeights, static_cell
from epe_nas_jax.spaces.nasbench101.traced_cell import traced_cell

C1, C3, POOL = "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3"
CELLS = {
    "one part, and the input": f"111-10-1:input,{POOL},{C3},output",
    "three parts of one source": f"10000-1110-001-01-1:input,{C3},{POOL},{C1},{C3},output",
}
# 3 parts: one of them has a channel more than the others.
CHANNELS_IN, CHANNELS = 3, 4


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(1)

    def conv_bn(size, channels_in):
        kernel = jnp.array(rng.normal(size=(size, size, channels_in, CHANNELS)))
        return ConvBN(kernel, *jnp.array(rng.normal(size=(2, CHANNELS))))

    convolutions = tuple(tuple(conv_bn(size, CHANNELS) for _ in range(5)) for size in (1, 3))
    return CellWeights(convolutions, tuple(conv_bn(1, CHANNELS_IN) for _ in range(6)))


@jax.jit
def traced_gradients(x, weights, genotype):
    def loss(x, weights):
        plan = plan_of(layout_of(genotype, jnp))
        return jnp.sum(traced_cell(x, weights, plan, False)[0] ** 3)

    return jax.grad(loss, (0, 1))(x, weights)


@functools.partial(jax.jit, static_argnums=2)
def static_gradients(x, weights, genotype):
    def loss(x, weights):
        layout = layout_of(np.array(genotype))
        return jnp.sum(static_cell(x, weights, layout, CHANNELS, counts_relus=False)[0] ** 3)

    return jax.grad(loss, (0, 1))(x, weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_input_and_weights_have_the_gradients_of_a_static_cell(weights, name):
    x, genotype = np.random.default_rng(0).normal(size=(4, 4, 4, CHANNELS_IN)), parse(CELLS[name])
    got = traced_gradients(x, weights, jnp.asarray(genotype))
    expected = static_gradients(x, weights, tuple(genotype.tolist()))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(expected[1]))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        # Batch norm makes some gradients sums to zero, of numbers of the size of the others.
        assert np.allclose(a, b, rtol=1e-9, atol=1e-10)
