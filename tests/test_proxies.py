import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from epe_nas_jax import (
    DartsNetwork,
    InputError,
    Network,
    Protocol,
    darts,
    darts_network,
    input_jacobian,
    parse_genotype,
    score_cells,
)
from epe_nas_jax import genotype as space
from epe_nas_jax.batching import CellScorer
from epe_nas_jax.network import Cell
from epe_nas_jax.ops import _agreement_by_bits, _agreement_by_product, relu_agreement
from epe_nas_jax.probes import channel_entropy
from epe_nas_jax.proxies import (
    PROXIES,
    cell_proxies,
    grad_decay_score,
    grad_norm_score,
    jacob_cov_score,
    nwot_score,
    snip_score,
    synflow_score,
)
from epe_nas_jax.score import correlation_matrix

NETWORK = Network(num_classes=3, channels=4, cells_per_stage=1, param_dtype=jnp.float64)
CELLS = np.asarray(space.sample(jax.random.key(5), 12))


def test_jacob_cov_is_numpys():
    jacobian = np.random.default_rng(0).normal(size=(20, 50))
    assert np.allclose(jacob_cov_score(jacobian), oracles.jacob_cov(jacobian), rtol=1e-9)


def test_jacob_cov_of_equal_jacobians_is_low_and_of_a_zero_one_undefined():
    jacobian = np.random.default_rng(0).normal(size=(20, 50))
    twins = jacobian.copy()
    twins[1] = twins[0]
    # Of an eigenvalue of 0 rounding leaves up to 1e-14, beside the offset of 1e-5.
    assert np.allclose(jacob_cov_score(twins), oracles.jacob_cov(twins), rtol=1e-6)
    assert jacob_cov_score(twins) < -1e5
    jacobian[3] = 0
    assert np.isnan(jacob_cov_score(jacobian))


def test_jacob_cov_in_float32_is_near_that_in_float64():
    jacobian = np.random.default_rng(0).normal(size=(64, 192)).astype(np.float32)
    # Eigenvalues above 0.1: their rounding errors of 1e-6 move a term by 1e-4 at most.
    assert np.allclose(jacob_cov_score(jacobian), oracles.jacob_cov(jacobian), rtol=1e-4)


def test_jacob_cov_in_float32_survives_eigenvalues_that_rounding_makes_negative():
    # All Jacobians along one direction: 255 eigenvalues are 0 but for roundings.
    rng = np.random.default_rng(0)
    jacobian = jnp.asarray(rng.normal(size=(256, 1)) @ rng.normal(size=(1, 60)), jnp.float32)
    assert jnp.linalg.eigvalsh(correlation_matrix(jacobian)).min() < -1e-5
    # Each adds -1e5 where it is 0 or below, and less where rounding leaves it positive.
    assert -256e5 < jacob_cov_score(jacobian) < -1e6


@pytest.mark.parametrize("shape", [(5, 4, 4, 3), (6, 4, 4, 4), (3, 2, 2, 1), (4, 16, 16, 4)])
@pytest.mark.parametrize("count", [relu_agreement, _agreement_by_bits, _agreement_by_product])
def test_agreement_counts_units(shape, count):
    x = np.random.default_rng(1).normal(size=shape)
    x.flat[::7] = 0
    units = (x > 0).reshape(len(x), -1)
    expected = (units[:, None] == units[None, :]).sum(axis=2)
    got = count(jnp.asarray(x if count is relu_agreement else units))
    assert np.array_equal(got, expected)


def test_nwot_is_numpys():
    units = np.random.default_rng(2).random((10, 300)) > 0.5
    agreement = (units[:, None] == units[None, :]).sum(axis=2)
    expected = oracles.nwot([units[:, :100], units[:, 100:]])
    assert np.allclose(nwot_score(jnp.asarray(agreement), jnp.float64), expected, rtol=1e-12)
    assert nwot_score(jnp.ones((4, 4), jnp.int32)) == -np.inf


@pytest.mark.parametrize("static", [True, False])
def test_network_tells_each_relu_once(minibatch, static):
    images, _ = minibatch
    # Node 0 feeds two convolutions, node 1 none, node 2 one.
    cell = space.parse_arch(
        "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|nor_conv_3x3~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    )
    genotype = tuple(cell.tolist()) if static else jnp.asarray(cell)
    variables = NETWORK.init(jax.random.key(0), images, genotype)
    assert set(variables) == {"params"}
    logits, told = NETWORK.apply(variables, images, genotype, mutable=["relus"])
    assert np.array_equal(logits, NETWORK.apply(variables, images, genotype))
    # An image agrees with itself in all units of every ReLU.
    per_image = {
        path: told["relus"][module][name][0][0, 0]
        for module, names in told["relus"].items()
        for name in names
        for path in [f"{module}/{name}"]
    }
    stages = [8 * 8 * 4, 4 * 4 * 8, 2 * 2 * 16]
    expected = {"head/relus": stages[2]}
    for i, units in enumerate(stages):
        expected |= {
            f"cell_{i}/relus_0": 2 * units,
            f"cell_{i}/relus_1": 0,
            f"cell_{i}/relus_2": units,
        }
    for i in (0, 1):
        expected |= {
            f"reduction_{i}/relus_a": stages[i],
            f"reduction_{i}/relus_b": stages[i + 1],
        }
    assert per_image == expected


def gradients_of_cells(network, variables, genotype, images):
    """The gradients of the sum of logits by every cell's output, in order, and by the images."""
    outputs = []

    def logits(images, added):
        outputs.clear()
        added = iter(added)

        def add(call, args, kwargs, context):
            output = call(*args, **kwargs)
            is_cell = isinstance(context.module, Cell | darts_network.Cell)
            if is_cell and context.method_name == "__call__":
                outputs.append(output)
                output = output + next(added, 0)
            return output

        with nn.intercept_methods(add):
            return network.apply(variables, images, genotype).sum()

    logits(images, ())
    zeros = [jnp.zeros_like(output) for output in outputs]
    return jax.grad(logits, (1, 0))(images, zeros)


@pytest.mark.parametrize("name", ["network", "darts"])
def test_gradients_are_told_as_they_come_back(minibatch, name):
    images, labels = minibatch
    if name == "network":
        network, num_last = NETWORK.clone(cells_per_stage=2), 2
        genotype = tuple(CELLS[0].tolist())
    else:
        network = DartsNetwork(num_classes=3, channels=4, num_cells=3, param_dtype=jnp.float64)
        genotype, num_last = tuple(parse_genotype(darts.DARTS_V2).tolist()), 1
    variables = network.init(jax.random.key(0), images, genotype)
    of_cells, of_images = gradients_of_cells(network, variables, genotype, images)
    (entropy, decay), _ = cell_proxies(
        variables,
        genotype,
        images,
        labels,
        network=network,
        proxies=("grad_entropy", "grad_decay"),
    )
    entropies = [oracles.channel_entropy(np.asarray(g)) for g in of_cells[:-num_last]]
    # Two ways to the same gradients in float64; a deep product is rounded in another order.
    assert np.allclose(entropy, sum(entropies), rtol=1e-8)
    assert np.allclose(decay, np.log(np.sum(of_cells[-1] ** 2) / np.sum(of_images**2)), rtol=1e-8)


def test_entropy_of_channels_that_vary_alike_apart_or_not_at_all():
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(8, 40, 40, 4))
    # Eigenvalues of 12,800 samples are off by about 1 %, which an entropy feels in the square.
    assert np.allclose(channel_entropy(jnp.asarray(apart)), np.log(4), atol=1e-3)
    alike = apart[..., :1] * np.array([1.0, -2.0, 3.0, 0.5])
    assert np.allclose(channel_entropy(jnp.asarray(alike)), 0, atol=1e-12)
    assert np.isnan(channel_entropy(jnp.full((2, 3, 3, 4), 5.0)))


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_grad_decay_of_tiny_and_huge_jacobians_is_not_lost(scale):
    jacobian = np.random.default_rng(0).normal(size=(5, 20))
    expected = np.log(3 / np.sum(jacobian**2)) - 2 * np.log(scale)
    got = grad_decay_score(jnp.float32(3), jnp.asarray(scale * jacobian, jnp.float32))
    assert got.dtype == jnp.float32
    # Of logarithms up to 140, each rounded by 6e-8.
    assert np.allclose(got, expected, rtol=1e-6)
    assert np.isnan(grad_decay_score(jnp.float32(3), jnp.zeros((5, 20), jnp.float32)))
    assert np.isnan(grad_decay_score(jnp.float32(0), jnp.asarray(jacobian, jnp.float32)))


def test_a_cell_without_a_path_has_no_gradient_proxies(minibatch):
    scorer = CellScorer(
        *minibatch,
        seed=0,
        network=NETWORK,
        protocol=Protocol(proxies=("grad_entropy", "grad_decay")),
    )
    assert np.isnan(scorer.proxies(np.zeros((1, 6), int))).all()


def layers_of(variables):
    """The weights of convolutions and the linear layer: arrays of rank 2 and more."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(variables) if leaf.ndim > 1]


def log_flow(network, variables, genotype, factor=1):
    """log R of `synflow`, with the weights of all layers times a factor."""
    scaled = jax.tree.map(lambda w: factor * jnp.abs(w) if w.ndim > 1 else 0 * w, variables)
    logits, told = network.clone(batch_norm=False).apply(
        scaled, jnp.ones((1, 8, 8, 3)), genotype, mutable=["log_scales"]
    )
    return np.log(logits.sum()) + sum(jax.tree.leaves(told))


def synflow(network, variables, genotype):
    """By Euler's theorem: the derivative of R by a factor on all weights is sum theta dR/dtheta."""
    step = 1e-5
    lower, upper = [log_flow(network, variables, genotype, 1 + s) for s in (-step, step)]
    return log_flow(network, variables, genotype) + np.log((upper - lower) / (2 * step))


def test_grad_norm_and_snip_are_numpys_and_offsets_do_not_count():
    rng = np.random.default_rng(3)
    weights, gradient = (
        {
            "kernel": rng.normal(size=(3, 3, 2, 4)),
            "bias": rng.normal(size=4),
            "w": rng.normal(size=(4, 3)),
        }
        for _ in range(2)
    )
    layers = layers_of(weights), layers_of(gradient)
    assert len(layers[0]) == 2
    assert np.allclose(grad_norm_score(gradient), oracles.grad_norm(layers[1]), rtol=1e-12)
    assert np.allclose(snip_score(weights, gradient), oracles.snip(*layers), rtol=1e-12)
    nothing = jax.tree.map(np.zeros_like, gradient)
    assert np.isnan(grad_norm_score(nothing))
    assert np.isnan(snip_score(weights, nothing))


def test_synflow_in_float32_is_finite_where_the_flow_is_not():
    cell, image = (3, 0, 3, 0, 0, 3), jnp.zeros((8, 8, 3))
    variables = NETWORK.init(jax.random.key(0), image[None], cell)
    score = jax.jit(lambda variables, image: synflow_score(variables, cell, image, network=NETWORK))
    # 15 layers, so that the flow is 1e60 times as large.
    variables = jax.tree.map(lambda leaf: 1e4 * leaf, variables)
    exact = score(variables, image)
    assert exact > np.log(np.finfo(np.float32).max)
    got = score(*jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (variables, image)))
    assert got.dtype == jnp.float32
    # Sums of positive numbers in 15 layers, each rounded by 6e-8.
    assert np.allclose(got, exact, rtol=1e-6)


def test_batched_proxies_are_those_of_each_cell_by_itself(minibatch):
    images, labels = minibatch
    scorer = CellScorer(images, labels, seed=7, network=NETWORK, protocol=Protocol(proxies=PROXIES))
    got = scorer.proxies(CELLS)
    assert got.shape == (12, 9)
    weights_key, _ = jax.random.split(jax.random.split(jax.random.key(7), 1)[0])
    for cell, row in zip(space.live_form(CELLS)[:4], got, strict=False):
        cell = tuple(cell.tolist())
        variables = NETWORK.init(weights_key, images, cell)
        jacobian = input_jacobian(lambda v, x, c=cell: NETWORK.apply(v, x, c), variables, images)
        _, told = NETWORK.apply(variables, images, cell, mutable=["relus"])
        expected = [
            oracles.epe_score(np.asarray(jacobian), labels, 3, "released"),
            oracles.epe_score(np.asarray(jacobian), labels, 3, "two_branch"),
            oracles.jacob_cov(np.asarray(jacobian)),
            np.linalg.slogdet(sum(jax.tree.leaves(told)).astype(float))[1],
        ]
        of_cells, of_images = gradients_of_cells(NETWORK, variables, cell, images)

        def loss(variables, cell=cell):
            log_probabilities = jax.nn.log_softmax(NETWORK.apply(variables, images, cell))
            return -jnp.mean(log_probabilities[jnp.arange(8), labels])

        gradient = layers_of(jax.grad(loss)(variables))
        if np.any(of_images != 0):
            expected += [
                sum(oracles.channel_entropy(np.asarray(g)) for g in of_cells[:-1]),
                np.log(np.sum(of_cells[-1] ** 2) / np.sum(of_images**2)),
                synflow(NETWORK, variables, cell),
                oracles.grad_norm(gradient),
                oracles.snip(layers_of(variables), gradient),
            ]
        else:
            expected += [np.nan] * 5
        # Eigenvalues near 0, of 8 images only, magnify rounding.
        assert np.allclose(row, expected, rtol=1e-7, equal_nan=True)


def test_further_proxies_change_no_score_and_order_is_kept(minibatch):
    score = CellScorer(*minibatch, seed=0, network=NETWORK)
    both = CellScorer(
        *minibatch, seed=0, network=NETWORK, protocol=Protocol(proxies=("nwot", "epe"))
    )
    assert np.allclose(both.proxies(CELLS)[:, 1], score(CELLS), rtol=1e-9, equal_nan=True)
    assert np.array_equal(both(CELLS), both.proxies(CELLS)[:, 0], equal_nan=True)
    assert np.array_equal(
        score(CELLS), score_cells(CELLS, *minibatch, seed=0, network=NETWORK), equal_nan=True
    )


def test_proxies_at_once_equal_those_one_by_one(minibatch):
    scorer = CellScorer(
        *minibatch, seed=0, network=NETWORK, protocol=Protocol(proxies=PROXIES), cells_per_step=6
    )
    cells = np.append(CELLS, np.zeros((1, 6), int), axis=0)
    one_by_one = scorer.proxies(cells)
    assert np.isnan(np.delete(one_by_one[-1], PROXIES.index("nwot"))).all()
    scorer._at_once = True
    assert np.allclose(scorer.proxies(cells), one_by_one, rtol=1e-7, equal_nan=True)


def test_dead_operations_add_nothing_to_proxies_of_weights(minibatch):
    protocol = Protocol(proxies=("synflow", "grad_norm", "snip"))
    scorer = CellScorer(*minibatch, seed=0, network=NETWORK, protocol=protocol, live_form=False)
    live = space.live_form(CELLS)
    assert np.any(live != CELLS)
    got = scorer.proxies(CELLS)
    assert np.allclose(got, scorer.proxies(live), rtol=1e-9, equal_nan=True)
    assert np.array_equal(scorer(CELLS), got[:, 0], equal_nan=True)


def test_synflow_of_a_network_that_keeps_its_batch_norm_is_refused(minibatch):
    images, _ = minibatch
    network = DartsNetwork(num_classes=3, channels=4, num_cells=3, param_dtype=jnp.float64)
    with pytest.raises(InputError, match="proxy synflow: found a network without an attribute"):
        synflow_score({}, parse_genotype(darts.DARTS_V2), images[0], network=network)


def test_nwot_of_a_network_that_tells_no_relus_is_refused(minibatch):
    images, labels = minibatch
    network = DartsNetwork(num_classes=3, channels=4, num_cells=3, param_dtype=jnp.float64)
    cell = parse_genotype(darts.DARTS_V2)
    score = functools.partial(cell_proxies, network=network, proxies=("epe", "nwot"))
    with pytest.raises(InputError, match="proxy nwot: found a network without a collection"):
        jax.eval_shape(
            lambda: score(network.init(jax.random.key(0), images, cell), cell, images, labels)
        )
