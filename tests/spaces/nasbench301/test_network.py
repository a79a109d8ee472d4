"""NAS-Bench-301's network: PyTorch's numbers, static and traced, and DARTS's where they agree."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import torch
from darts_torch import BenchNetwork, relu_codes

from epe_nas_jax import DartsNetwork, NasBench301Network
from epe_nas_jax.proxies.cell_proxies import cell_proxies
from epe_nas_jax.spaces.darts.edges import NUM_OPERATIONS, OPERATIONS, OPERATIONS_OF
from epe_nas_jax.spaces.darts.published import DARTS_V2, PC_DARTS
from epe_nas_jax.spaces.layers import relu_agreement
from epe_nas_jax.spaces.nasbench301.genotype import parse_genotype

# A normal cell, two reduction cells and a normal one.
NETWORK = NasBench301Network(3, channels=4, num_cells=4, param_dtype=jnp.float64)


def text_of(normal, reduce):
    concat = "concat=[2, 3, 4, 5]"
    return f"Genotype(normal={normal}, normal_{concat}, reduce={reduce}, reduce_{concat})"


# Every operation on edges of stride 1 and 2, and from nodes of a reduction cell.
ALL = text_of(
    [
        *(("sep_conv_5x5", 0), ("max_pool_3x3", 1), ("avg_pool_3x3", 0), ("dil_conv_5x5", 2)),
        *(("skip_connect", 1), ("dil_conv_3x3", 3), ("sep_conv_3x3", 2), ("max_pool_3x3", 4)),
    ],
    [
        *(("sep_conv_5x5", 0), ("max_pool_3x3", 1), ("avg_pool_3x3", 0), ("dil_conv_5x5", 1)),
        *(("skip_connect", 1), ("dil_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_5x5", 3)),
    ],
)
# Two operations on an edge, or twice the same, from an input and from a node; and none.
TWICE = text_of(
    [
        *(("sep_conv_3x3", 0), ("sep_conv_5x5", 0), ("dil_conv_3x3", 2), ("dil_conv_3x3", 2)),
        *(("none", 3), ("avg_pool_3x3", 3), ("max_pool_3x3", 1), ("skip_connect", 1)),
    ],
    [
        *(("skip_connect", 1), ("skip_connect", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 0)),
        *(("dil_conv_5x5", 3), ("none", 3), ("skip_connect", 2), ("dil_conv_3x3", 2)),
    ],
)
# Nodes without an input, and what reads them.
EMPTY = text_of(
    [
        *(("none", 0), ("none", 0), ("sep_conv_3x3", 2), ("none", 1)),
        *(("max_pool_3x3", 2), ("dil_conv_5x5", 1), ("skip_connect", 3), ("none", 0)),
    ],
    [("none", 0), ("none", 1)] * 2 + [("max_pool_3x3", 0), ("skip_connect", 2)] * 2,
)
TEXTS = {"all": ALL, "twice": TWICE, "empty": EMPTY}
CELLS = np.stack([parse_genotype(text) for text in TEXTS.values()])


@pytest.fixture(scope="module")
def variables():
    """Weights of every candidate, at random; scales and biases other than 1 and 0 are seen too."""
    images, cell = jnp.zeros((1, 8, 8, 3)), jnp.asarray(CELLS[0])
    shapes = jax.eval_shape(NETWORK.init, jax.random.key(1), images, cell)
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda w: rng.normal(size=w.shape) / np.sqrt(np.prod(w.shape[:-1])), shapes)


def run(variables, images, genotype):
    """Logits, the input Jacobian and the agreement of ReLUs."""

    def of(images):
        logits, sown = NETWORK.apply(
            variables, images, genotype, mutable=[relu_agreement.COLLECTION]
        )
        agreement = jax.tree.reduce(jnp.add, sown[relu_agreement.COLLECTION])
        return logits.sum(), (logits, agreement)

    jacobian, (logits, agreement) = jax.grad(of, has_aux=True)(images)
    return logits, jacobian, agreement


@pytest.fixture(scope="module")
def by_pytorch(variables, minibatch):
    images, _ = minibatch
    found = {}
    for name, text in TEXTS.items():
        network = BenchNetwork(text, 4, 4, 3).double().load(variables["params"]).train()
        x = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
        logits = network(x)
        logits.sum().backward()
        codes = relu_codes(network, x)
        agreement = sum((a[:, None] == a[None]).sum(2) for a in codes)
        found[name] = (logits.detach().numpy(), x.grad.numpy().transpose(0, 2, 3, 1), agreement)
    return found


def check(got, expected):
    for one, other, tolerance in zip(got[:2], expected[:2], (1e-10, 1e-9), strict=True):
        assert np.abs(one - other).max() / np.abs(other).max() < tolerance
    assert got[2].dtype == np.int32
    assert np.array_equal(got[2], expected[2])


@pytest.mark.parametrize("name", TEXTS)
def test_a_static_genotype_has_pytorchs_logits_jacobian_and_relus(
    variables, minibatch, by_pytorch, name
):
    cell = tuple(parse_genotype(TEXTS[name]).tolist())
    own = jax.jit(lambda images: run(variables, images, cell))(minibatch[0])
    check(own, by_pytorch[name])


def test_a_traced_genotype_has_pytorchs_logits_jacobian_and_relus(variables, minibatch, by_pytorch):
    traced = jax.jit(run)
    for cell, expected in zip(CELLS, by_pytorch.values(), strict=True):
        check(traced(variables, minibatch[0], jnp.asarray(cell)), expected)


def test_the_cells_of_these_tests_have_every_operation_wherever_it_differs():
    found = {"normal": set(), "reduce": set(), "inner": set()}
    for cell in CELLS:
        for half, name in ((cell[:14], "normal"), (cell[14:], "reduce")):
            for edge, value in enumerate(half):
                source = (0, 1, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4)[edge]
                place = "inner" if name == "reduce" and source > 1 else name
                found[place] |= set(OPERATIONS_OF[value][OPERATIONS_OF[value] > 0])
    assert found["normal"] == found["reduce"] == set(range(1, NUM_OPERATIONS))
    assert {OPERATIONS[op] for op in found["inner"]} >= {"skip_connect", "sep_conv_5x5"}


def test_cells_together_have_pytorchs_numbers_too(variables, minibatch, by_pytorch):
    together = jax.jit(jax.vmap(run, (None, None, 0)))(variables, minibatch[0], CELLS)
    for row, expected in enumerate(by_pytorch.values()):
        check([array[row] for array in together], expected)


def test_scores_are_those_of_oracles_on_pytorchs_numbers(variables, minibatch, by_pytorch):
    images, labels = minibatch
    proxies = ("epe", "jacob_cov", "nwot", "grad_entropy")

    def score(cell):
        return cell_proxies(variables, cell, images, labels, network=NETWORK, proxies=proxies)[0]

    scores = jax.jit(lambda cells: jax.lax.map(score, cells))(jnp.asarray(CELLS))
    for (epe, jacob_cov, nwot, _), expected in zip(scores, by_pytorch.values(), strict=True):
        jacobian = expected[1].reshape(len(images), -1)
        # Logarithms of correlations near 0, and of eigenvalues near 0, magnify rounding.
        assert np.isclose(epe, oracles.epe_score(jacobian, labels, 3, "released"), rtol=1e-7)
        assert np.isclose(jacob_cov, oracles.jacob_cov(jacobian), rtol=1e-7)
        # The same integers; only the determinant rounds.
        assert np.isclose(nwot, np.linalg.slogdet(expected[2])[1], rtol=1e-12)
    assert np.isfinite(scores).all()


def test_without_pools_and_pairs_a_network_is_that_of_darts(minibatch):
    images, _ = minibatch
    text = PC_DARTS.replace("'avg_pool_3x3'", "'skip_connect'")
    text = text.replace("'max_pool_3x3'", "'dil_conv_5x5'")
    cell = tuple(parse_genotype(text).tolist())
    of_darts = DartsNetwork(3, channels=4, num_cells=4, param_dtype=jnp.float64)
    found = []
    for network in (NETWORK, of_darts):
        variables = jax.jit(lambda key, n=network: n.init(key, images, cell))(jax.random.key(0))
        logits = jax.jit(lambda variables, n=network: n.apply(variables, images, cell))(variables)
        found.append((jax.tree.leaves_with_path(variables), logits))
    own, of_darts = (dict(leaves) for leaves, _ in found)
    assert own.keys() < of_darts.keys()
    assert all(np.array_equal(own[path], of_darts[path]) for path in own)
    assert np.allclose(found[0][1], found[1][1], rtol=1e-12)


def test_two_equal_operations_of_an_edge_have_weights_of_their_own(variables):
    cell = variables["params"]["cell_1"]
    first = cell["edge_2_sep_conv_3x3_0_depthwise"]
    for place in ("second_2", "second_3"):
        assert not np.any(first == cell[f"{place}_sep_conv_3x3_0_depthwise"])
    names = {name.split("_")[0] for name in cell}
    assert names == {"preprocess", "edge", "second"}
    twice = parse_genotype(DARTS_V2.replace("('sep_conv_3x3', 1)", "('sep_conv_3x3', 0)"))
    own = jax.eval_shape(
        lambda key: NETWORK.init(key, jnp.zeros((1, 8, 8, 3)), tuple(twice.tolist())),
        jax.random.key(0),
    )["params"]["cell_0"]
    assert {"edge_0_sep_conv_3x3_0", "second_2_sep_conv_3x3_0"} <= own.keys()
