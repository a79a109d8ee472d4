import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.spaces.layers.grouped_switch import block_size, grouped_switch


def test_grouped_switch_runs_each_branch_on_its_own_rows_only():
    def count(runs):
        jax.debug.callback(lambda: runs.append(1), ordered=False)

    runs = [[], [], []]
    branches = [lambda x, r=r: (count(r), x)[1] for r in runs]
    index = jnp.array([0, 2, 2, 0, 2])
    out = jax.vmap(lambda i, x: grouped_switch(i, branches, x))(index, jnp.arange(5.0))
    jax.block_until_ready(out)
    jax.effects_barrier()
    assert [len(r) for r in runs] == [2, 0, 3]


# With 70 rows a block holds two, so that a group of an odd number ends in a half-empty block.
@pytest.mark.parametrize("num_rows", [1, 5, 70])
def test_grouped_switch_gives_every_row_its_own_branch(num_rows):
    rng = np.random.default_rng(num_rows)
    index = rng.integers(0, 3, num_rows)
    x, shared = rng.normal(size=(num_rows, 2)), rng.normal(size=2)
    branches = [lambda x, s: x + s, lambda x, s: x * s, lambda x, s: x - s]
    assert block_size(num_rows) == max(1, num_rows // 32)
    out = jax.vmap(lambda i, x: grouped_switch(i, branches, x, jnp.asarray(shared)))(index, x)
    expected = [[x + shared, x * shared, x - shared][i][row] for row, i in enumerate(index)]
    assert np.array_equal(out, expected)


def test_one_index_for_all_rows_runs_one_branch_on_all():
    branches = [jnp.sin, jnp.cos]
    x = np.arange(4.0)
    out = jax.vmap(lambda i, x: grouped_switch(i, branches, x), (None, 0))(jnp.int32(1), x)
    assert np.allclose(out, np.cos(x), rtol=1e-14)


@pytest.mark.parametrize("is_batched", [False, True])
@pytest.mark.parametrize("index", [0, 1])
def test_gradients_are_those_of_the_branch(index, is_batched):
    branches = [lambda x, s: jnp.sin(x) * s, lambda x, s: x**2 * s]
    expected = [lambda x, s: np.cos(x) * s, lambda x, s: 2 * x * s][index]

    def run(index, x):
        return grouped_switch(index, branches, x, 3.0)

    if is_batched:
        index, x = jnp.array([index, 1 - index, index]), jnp.array([0.1, 0.2, 0.3])
        found = jax.jit(jax.grad(lambda x: jax.vmap(run)(index, x).sum()))(x)[::2]
        assert np.allclose(found, [expected(0.1, 3), expected(0.3, 3)], rtol=1e-12)
    else:
        assert np.isclose(jax.jit(jax.grad(run, 1))(index, 0.1), expected(0.1, 3), rtol=1e-12)
