"""Networks of five widths: parity with xautodl's, and many masked ones in one program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from nats_sss_torch import torch_network, variables_of

from epe_nas_jax import InputError, NatsSssNetwork, input_jacobian
from epe_nas_jax.proxies.cell_proxies import cell_proxies

NETWORK = NatsSssNetwork(num_classes=3, channels=2, param_dtype=jnp.float64)
# A skip that is a convolution after each block; none; one, and the widest and the narrowest layer.
ROWS = np.array([[0, 6, 3, 2, 5], [3, 1, 1, 4, 4], [5, 7, 7, 1, 0]], np.int32)
PROXIES = ("epe", "jacob_cov", "nwot", "grad_entropy", "grad_decay", "snip")
LABELS = np.array([0, 1, 2, 0, 1, 2])
IMAGES = np.random.default_rng(0).normal(size=(6, 8, 8, 3))


def relative_error(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()


@functools.partial(jax.jit, static_argnames=("genotype", "network"))
def logits_and_jacobian(variables, genotype, network):
    def apply_fn(variables, images):
        return network.apply(variables, images, genotype)

    return apply_fn(variables, IMAGES), input_jacobian(apply_fn, variables, IMAGES)


@pytest.mark.parametrize(("row", "cells_per_stage"), [(ROWS[0], 1), (ROWS[1], 1), (ROWS[2], 2)])
def test_float64_logits_and_jacobian_are_pytorchs(row, cells_per_stage):
    rng = np.random.default_rng(0)
    reference = torch_network([2 * (index + 1) for index in row], cells_per_stage, 3)
    reference = reference.double().train()
    # Scales and biases of batch norm other than 1 and 0, so that they are seen too.
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.ndim == 1:
                parameter += torch.tensor(0.3 * rng.normal(size=parameter.shape))
    x = torch.tensor(IMAGES.transpose(0, 3, 1, 2), requires_grad=True)
    _, logits = reference(x)
    logits.sum().backward()
    jacobian = x.grad.numpy().transpose(0, 2, 3, 1).reshape(len(IMAGES), -1)

    genotype = tuple(row.tolist())
    network = NETWORK.clone(cells_per_stage=cells_per_stage)
    variables = variables_of(reference)
    full = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, genotype), IMAGES)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, full)
    got_logits, got_jacobian = logits_and_jacobian(variables, genotype, network)
    assert relative_error(got_logits, logits.detach().numpy()) < 1e-10
    assert relative_error(got_jacobian, jacobian) < 1e-9


def leaves(variables):
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }


@pytest.fixture(scope="module")
def variables():
    return jax.jit(NETWORK.init)(jax.random.key(0), IMAGES, jnp.asarray(ROWS[0]))


@functools.cache
def own_variables(row):
    return jax.jit(lambda: NETWORK.init(jax.random.key(0), IMAGES, row))()


def test_weights_of_the_widest_network_depend_on_no_genotype(variables):
    other = jax.jit(NETWORK.init)(jax.random.key(0), IMAGES, jnp.zeros(5, jnp.int32))
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, other))


@pytest.mark.parametrize("row", ROWS[:2])
def test_static_weights_are_the_first_of_the_widest_scaled_to_their_inputs(variables, row):
    every = leaves(variables)
    own = leaves(own_variables(tuple(row.tolist())))
    assert ("['params']['cell_1']['skip']['kernel']" in own) == (row[1] != row[2])
    for path, leaf in own.items():
        first = every[path][tuple(slice(size) for size in leaf.shape)]
        is_drawn = "kernel" in path or "shortcut" in path
        factor = np.sqrt(every[path].shape[-2] / leaf.shape[-2]) if is_drawn else 1.0
        if "classifier_bias" in path:
            factor = np.sqrt(16 / (2 * (row[4] + 1)))
        assert np.allclose(leaf, factor * first, rtol=1e-12), path


def test_weights_follow_pytorchs_default_bounds_and_no_two_are_drawn_alike():
    network = NETWORK.clone(channels=8, num_classes=50)
    row = (7, 3, 7, 5, 7)
    params = leaves(jax.jit(lambda: network.init(jax.random.key(1), IMAGES, row))())
    kernels = {p: leaf for p, leaf in params.items() if "kernel" in p or "shortcut" in p}
    for path, kernel in kernels.items():
        bound = 1 / np.sqrt(np.prod(kernel.shape[:-1]))
        assert 0.95 * bound < np.abs(kernel).max() <= bound, path
    bias = params["['params']['head']['classifier_bias']"]
    assert 0.9 / 8 < np.abs(bias).max() <= 1 / 8
    # Each is scaled by its own bound, which ratios do not see.
    drawn = [np.ravel(leaf)[:3] for leaf in (*kernels.values(), bias)]
    ratios = {tuple(np.round(v[1:] / v[0], 9)) for v in drawn}
    assert len(ratios) == len(drawn) == 1 + 3 * 5 + 2 + 2 * 3 + 2


def proxies_of(variables, genotype, proxies=PROXIES):
    return cell_proxies(variables, genotype, IMAGES, LABELS, network=NETWORK, proxies=proxies)[0]


@pytest.fixture(scope="module")
def scores():
    """Proxies of each network built alone, with its own channels only: `[A, P]`."""
    score = jax.jit(proxies_of, static_argnums=1)
    cells = [tuple(row.tolist()) for row in ROWS]
    return np.stack([score(own_variables(cell), cell) for cell in cells])


@pytest.mark.parametrize(("loop", "num_proxies"), [(jax.lax.map, len(PROXIES)), (jax.vmap, 5)])
def test_masked_networks_have_the_scores_of_each_built_alone(variables, scores, loop, num_proxies):
    def score(genotype):
        return proxies_of(variables, genotype, PROXIES[:num_proxies])

    def run(cells):
        return loop(score)(cells) if loop is jax.vmap else loop(score, cells)

    assert np.isfinite(scores).all()
    # Sums in another order, and logarithms of correlations near zero, which sharpen that.
    assert np.allclose(jax.jit(run)(jnp.asarray(ROWS)), scores[:, :num_proxies], rtol=1e-8)


def test_some_entries_may_be_traced_and_others_not(variables):
    def run(genotype):
        def apply_fn(variables, images):
            return NETWORK.apply(variables, images, genotype)

        return apply_fn(variables, IMAGES)

    some = jax.jit(lambda first: run((first, *ROWS[0][1:].tolist())))(jnp.asarray(ROWS[0][0]))
    assert np.allclose(some, jax.jit(run)(jnp.asarray(ROWS[0])), rtol=1e-12)


@pytest.mark.parametrize("static", [True, False])
def test_network_sows_each_relu_of_the_channels_that_are_there_once(static):
    row = tuple(ROWS[0].tolist())
    genotype = row if static else jnp.asarray(row)

    @jax.jit
    def run():
        variables = NETWORK.init(jax.random.key(0), IMAGES, genotype)
        return NETWORK.apply(variables, IMAGES, genotype, mutable=["relus"])[1]

    # An image agrees with itself in all units of every ReLU.
    per_image = {
        f"{module}/{name}": int(counts[0][0, 0])
        for module, names in run()["relus"].items()
        for name, counts in names.items()
    }
    c1, c2, c3, c4, c5 = (2 * (index + 1) for index in row)
    expected = {
        "reduction_0/relus_a": 64 * c1,
        "reduction_0/relus_b": 16 * c2,
        "reduction_1/relus_a": 16 * c3,
        "reduction_1/relus_b": 4 * c4,
        "head/relus": 4 * c5,
    }
    for cell, (pixels, width_in, width) in enumerate(((64, c1, c1), (16, c2, c3), (4, c4, c5))):
        expected |= {
            f"cell_{cell}/relus_0": 2 * pixels * width_in,
            f"cell_{cell}/relus_1": 2 * pixels * width,
            f"cell_{cell}/relus_2": pixels * width,
        }
    assert per_image == expected


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8)), "found rank 3"),
        (np.zeros((2, 6, 6, 3)), "divisible by 4"),
        (np.zeros((2, 8, 8, 3), np.uint8), "found dtype uint8"),
    ],
)
def test_images_the_network_cannot_take_are_refused(images, message):
    with pytest.raises(InputError, match=message):
        NETWORK.init(jax.random.key(0), images, (1,) * 5)
