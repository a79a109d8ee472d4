import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.spaces.layers.grouped_switch import (
    block_size,
    choose,
    grouped_switch,
    largest,
    switch_by_rules,
    switch_on_entry,
)


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


def test_rules_give_the_gradient_of_the_input_alone_and_of_nothing_else():
    forward = [lambda x, w: (w * x, x), lambda x, w: (w * x**2, x)]
    # No derivatives, so that they can be told from them.
    backward = [lambda *given: sum(given), lambda *given: math.prod(given)]

    def run(x, w, index, rules=backward):
        return switch_by_rules(jnp.int32(index), forward, rules, x, w)

    x, w = jnp.float64(3), jnp.float64(2)
    assert run(x, w, 1) == 18
    assert [jax.grad(run)(x, w, index) for index in range(2)] == [15, 324]
    assert jax.grad(run, (0, 1))(x, w, 1) == (12, 9)
    assert jax.grad(run)(x, w, 1, None) == 12


def test_an_entry_of_a_stack_is_given_to_the_branch_of_each_row():
    rng = np.random.default_rng(0)
    stacks, index, entry = rng.normal(size=(6, 3, 2)), rng.integers(0, 2, 6), rng.integers(0, 3, 6)
    branches = [lambda x, s: x + s, lambda x, s: x * s]

    def run(index, stack, entry):
        return switch_on_entry(index, branches, stack, entry, jnp.float64(3))

    expected = [branches[i](stack[e], 3) for i, e, stack in zip(index, entry, stacks, strict=True)]
    assert np.allclose(jax.jit(jax.vmap(run))(index, stacks, entry), expected, rtol=1e-14)
    for row in range(2):
        alone = jax.jit(run)(index[row], stacks[row], entry[row])
        assert np.allclose(alone, expected[row], rtol=1e-14)

    def plain(stack, index, entry):
        return switch_on_entry(index, branches, stack, entry, jnp.float64(3), is_plain=True).sum()

    gradient = jax.grad(plain)(jnp.asarray(stacks[0]), 1, 2)
    assert np.array_equal(gradient, [[0, 0], [0, 0], [3, 3]])


@pytest.mark.parametrize("is_plain", [False, True])
def test_one_of_some_trees_is_chosen_alone_and_for_rows(is_plain):
    trees = [{"a": jnp.full(2, number), "b": (jnp.float64(-number),)} for number in range(3)]

    def run(which, trees):
        return choose(which, trees, is_plain=is_plain)

    assert jax.tree.all(jax.tree.map(np.array_equal, jax.jit(run)(1, trees), trees[1]))
    rows = jax.jit(jax.vmap(run, (0, None)))(jnp.array([2, 0, 2, 1]), trees)
    assert rows["a"].tolist() == [[2, 2], [0, 0], [2, 2], [1, 1]]
    assert rows["b"][0].tolist() == [-2, 0, -2, -1]


def test_the_largest_number_of_all_rows_is_one_for_all():
    assert largest(jnp.int32(3)) == 3
    numbers = jnp.array([1, 4, 2])
    assert jax.vmap(largest)(numbers).tolist() == [4, 4, 4]
    assert jax.vmap(largest, out_axes=None)(numbers) == 4
