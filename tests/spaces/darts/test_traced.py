"""Cells of traced genotypes beside those of static ones, operation by operation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.spaces.darts import operations, traced
from epe_nas_jax.spaces.darts.edges import (
    CELL_EDGES,
    EDGES_INTO,
    NODES,
    NUM_CELL_EDGES,
    NUM_OPERATIONS,
    OPERATIONS,
    OPERATIONS_OF,
    value_of,
)
from epe_nas_jax.spaces.layers.conv_bn import ConvBN
from epe_nas_jax.spaces.layers.relu_agreement import relu_agreement

CHANNELS = 4
RNG = np.random.default_rng(0)
# Of an edge: two operations, one twice, one alone; the last node has none.
VALUES = np.zeros((3, NUM_CELL_EDGES), int)
VALUES[0, [0, 2, 6, 9, 13]] = value_of(4, 7), value_of(4, 4), 6, value_of(3, 1), 5
VALUES[1, [0, 1, 2, 4, 5, 7, 10, 13]] = 5, 3, 4, 2, 6, 1, 7, 3
VALUES[2, [1, 4, 5, 8]] = 3, value_of(5, 3), value_of(3, 3), 4


def weights_of_a_cell():
    """Random weights of every operation, of 14 edges and of four second operations."""

    def conv_bn():
        shapes = (1, 1, CHANNELS, CHANNELS), (CHANNELS,), (CHANNELS,)
        return ConvBN(*(jnp.asarray(RNG.normal(size=shape)) for shape in shapes))

    def separable(size):
        depthwise = jnp.asarray(RNG.normal(size=(size, size, 1, CHANNELS)))
        return operations.SeparableConvBN(depthwise, conv_bn())

    return [
        operations.DartsEdgeWeights(
            conv_bn(),
            (separable(3), separable(3)),
            (separable(5), separable(5)),
            separable(3),
            separable(5),
        )
        for _ in range(NUM_CELL_EDGES + len(NODES))
    ]


WEIGHTS = weights_of_a_cell()
INPUTS = [jnp.asarray(RNG.normal(size=(3, 4, 4, CHANNELS))) for _ in range(2)]


def nodes_by_hand(values, inputs, weights, form):
    """The nodes of a cell and the agreement of second ReLUs, an operation after another."""
    nodes, agreement = list(inputs), jnp.zeros((3, 3), jnp.int32)
    for node in NODES:
        total = jnp.zeros_like(inputs[0][:, :: form.stride, :: form.stride])
        for edge in EDGES_INTO[node]:
            source = CELL_EDGES[edge][0]
            own = form if source < 2 else form._replace(stride=1)
            for number, op in enumerate(OPERATIONS_OF[values[edge]]):
                chosen = weights[NUM_CELL_EDGES + node - 2 if number else edge]
                y, inner = operations.apply_operation(op, nodes[source], chosen, own)
                total += y
                agreement += 0 if inner is None else relu_agreement(inner)
        nodes.append(total)
    return nodes[2:], agreement


def nodes_traced(values, inputs, weights, form):
    return traced.nodes_of_cell(values, inputs, weights, form, counts_relus=True)


def loss(nodes_of, form, values, inputs, weights):
    nodes, agreement = nodes_of(values, inputs, weights, form)
    return sum(jnp.sum(jnp.sin(i + node)) for i, node in enumerate(nodes)), agreement


def gradients(nodes_of, form):
    """The loss, its gradients by inputs and weights, and the agreement."""
    return jax.value_and_grad(functools.partial(loss, nodes_of, form), (1, 2), has_aux=True)


@pytest.fixture(scope="module", params=[1, 2], ids=["stride 1", "stride 2"])
def form(request):
    return operations.Form(request.param, pool_norm=True)


@pytest.fixture(scope="module")
def expected(form):
    """Of each cell the loss, gradients and agreement, one operation after another."""
    by_hand = gradients(nodes_by_hand, form)
    return [
        jax.jit(functools.partial(by_hand, tuple(row)))(INPUTS, WEIGHTS) for row in VALUES.tolist()
    ]


def check(found, expected):
    # The same operations; sums of gradients in another order.
    close = functools.partial(np.allclose, rtol=1e-10, atol=1e-11)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert jax.tree.all(jax.tree.map(close, found, expected))


def test_values_and_gradients_by_inputs_and_weights_are_those_of_a_static_cell(form, expected):
    run = jax.jit(gradients(nodes_traced, form))
    for row, of_row in zip(VALUES, expected, strict=True):
        found = run(jnp.asarray(row), INPUTS, WEIGHTS)
        check(found, of_row)
        assert np.array_equal(found[0][1], of_row[0][1])


def test_cells_together_are_those_alone(form, expected):
    of_inputs = jax.value_and_grad(functools.partial(loss, nodes_traced, form), 1, has_aux=True)
    together = jax.jit(jax.vmap(of_inputs, (0, None, None)))(jnp.asarray(VALUES), INPUTS, WEIGHTS)
    for row, (value, (by_inputs, _)) in enumerate(expected):
        check(jax.tree.map(lambda array: array[row], together), (value, by_inputs))  # noqa: B023


def test_gradients_can_be_differentiated():
    form = operations.Form(2, pool_norm=False)

    def size_of_gradient(nodes_of, values, inputs):
        of_inputs = jax.grad(lambda inputs: loss(nodes_of, form, values, inputs, WEIGHTS)[0])
        return sum(jnp.sum(gradient**2) for gradient in of_inputs(inputs))

    found = jax.jit(jax.grad(functools.partial(size_of_gradient, nodes_traced), 1))
    for row in VALUES[:2]:
        by_hand = functools.partial(size_of_gradient, nodes_by_hand, tuple(row.tolist()))
        check(found(jnp.asarray(row), INPUTS), jax.jit(jax.grad(by_hand))(INPUTS))


def test_relus_of_an_input_are_counted_by_value():
    for stride in (1, 2):
        counts = operations.num_relus_of_input(stride)
        assert counts.dtype == np.int32
        with_relu = {"sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"}
        with_relu |= {"skip_connect"} if stride == 2 else set()
        own = [int(name in with_relu) for name in OPERATIONS]
        assert counts[:NUM_OPERATIONS].tolist() == own
        pairs = OPERATIONS_OF[NUM_OPERATIONS:].tolist()
        assert counts[NUM_OPERATIONS:].tolist() == [own[a] + own[b] for a, b in pairs]


@pytest.mark.parametrize("counts_relus", [False, True])
def test_relus_are_counted_only_where_that_is_asked_for(counts_relus):
    form = operations.Form(2, pool_norm=False)

    def run(values, inputs, weights):
        return traced.nodes_of_cell(values, inputs, weights, form, counts_relus=counts_relus)

    program = str(jax.make_jaxpr(run)(jnp.asarray(VALUES[0]), INPUTS, WEIGHTS))
    assert ("population_count" in program) == counts_relus
    # Nor is anything carried for them from one operation to the next.
    assert ("i32[3,3]" in program) == counts_relus
