"""Networks of micro cells: parity with a PyTorch network, and scores of many cells."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transnas_torch import torch_network, variables_of

from epe_nas_jax import InputError, TransNasMicroNetwork, input_jacobian
from epe_nas_jax.proxies.cell_proxies import cell_proxies
from epe_nas_jax.spaces.layers.conv_bn import ConvBN
from epe_nas_jax.spaces.transnas_micro import operations
from epe_nas_jax.spaces.transnas_micro.genotype import parse

NETWORK = TransNasMicroNetwork(num_classes=3, channels=4, cells_per_module=1)
NETWORK = NETWORK.clone(param_dtype=jnp.float64)
# Together every operation on every edge, a dead convolution, and zeros for an input.
CELLS = [
    parse(f"64-41414-{cell}")
    for cell in ("3_12_033", "1_23_310", "2_31_121", "0_03_202", "3_00_030", "1_11_111")
]
PROXIES = ("epe", "jacob_cov", "nwot", "grad_entropy", "grad_decay", "snip", "grad_norm")


def images_of(side, num_images=6):
    rng = np.random.default_rng(side)
    return rng.normal(size=(num_images, side, side, 3))


def relative_error(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()


@functools.partial(jax.jit, static_argnames=("genotype", "network"))
def logits_and_jacobian(variables, images, genotype, network):
    def apply_fn(variables, images):
        return network.apply(variables, images, genotype)

    return apply_fn(variables, images), input_jacobian(apply_fn, variables, images)


def run_both(cell, side, *, cells_per_module=1, last_activation=True):
    """Logits and input Jacobian, PyTorch's and ours, with the same weights, in float64."""
    rng = np.random.default_rng(0)
    images = images_of(side)
    reference = torch_network(cell, 4, cells_per_module, 3, last_activation=last_activation)
    reference = reference.double().train()
    # Scales and biases of batch norm other than 1 and 0, so that they are seen too.
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.ndim == 1:
                parameter += torch.tensor(0.3 * rng.normal(size=parameter.shape))
    x = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    logits = reference(x)
    logits.sum().backward()
    jacobian = x.grad.numpy().transpose(0, 2, 3, 1).reshape(len(images), -1)

    genotype = tuple(cell.tolist())
    network = NETWORK.clone(cells_per_module=cells_per_module, last_activation=last_activation)
    variables = variables_of(reference)
    full = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, genotype), images)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, full)
    return (logits.detach().numpy(), jacobian), logits_and_jacobian(
        variables, images, genotype, network
    )


# The modules of an image of 8 pixels halve 2, 1 and 1 pixels, and those of 32 halve 8, 4 and 2.
@pytest.mark.parametrize(("cell", "side"), list(zip(CELLS, (32, 8, 32, 32, 8, 8), strict=True)))
def test_float64_logits_and_jacobian_are_pytorchs(cell, side):
    (logits, jacobian), (got_logits, got_jacobian) = run_both(cell, side)
    assert relative_error(got_logits, logits) < 1e-10
    assert relative_error(got_jacobian, jacobian) < 1e-9


def test_two_cells_a_module_are_pytorchs():
    for expected, got in zip(*run_both(CELLS[0], 16, cells_per_module=2), strict=True):
        assert relative_error(got, expected) < 1e-10


def test_the_benchmarks_own_network_has_pytorchs_logits_but_no_jacobian():
    (logits, jacobian), got = run_both(CELLS[1], 32, last_activation=False)
    assert relative_error(got[0], logits) < 1e-10
    # Roundings of zero, in PyTorch as well: sums of batch norms depend on no image.
    assert max(np.abs(jacobian).max(), np.abs(got[1]).max()) < 1e-13


def leaves(variables):
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }


@pytest.fixture(scope="module")
def variables():
    init = jax.jit(NETWORK.init)
    return init(jax.random.key(0), images_of(8), jnp.zeros(6, jnp.int32))


def test_static_cell_has_the_very_weights_it_has_in_a_batch(variables):
    every = leaves(variables)
    for cell in CELLS[:2]:
        genotype = tuple(cell.tolist())
        own = leaves(jax.jit(lambda g=genotype: NETWORK.init(jax.random.key(0), images_of(8), g))())
        assert len(own) < len(every)
        for path, leaf in own.items():
            assert np.array_equal(leaf, every[path]), path


def test_weights_follow_pytorchs_default_bounds_and_no_two_are_drawn_alike():
    network = NETWORK.clone(channels=16, num_classes=50)
    init = jax.jit(network.init)
    params = leaves(init(jax.random.key(1), images_of(8), jnp.zeros(6, jnp.int32)))
    kernels = {path: leaf for path, leaf in params.items() if "kernel" in path}
    for path, kernel in kernels.items():
        bound = 1 / np.sqrt(np.prod(kernel.shape[:-1]))
        assert 0.95 * bound < np.abs(kernel).max() <= bound, path
    bias = params["['params']['head']['classifier_bias']"]
    assert 0.9 / np.sqrt(128) < np.abs(bias).max() <= 1 / np.sqrt(128)
    # Each is scaled by its own bound, which ratios do not see.
    drawn = [np.ravel(leaf)[:3] for leaf in (*kernels.values(), bias)]
    ratios = {tuple(np.round(v[1:] / v[0], 9)) for v in drawn}
    # Five cells of six edges with two kernels, three edges of three cells with one more.
    assert len(ratios) == len(drawn) == 5 * 6 * 2 + 9 + 4


def proxies_of(variables, genotype, proxies):
    arguments = images_of(8), np.array([0, 1, 2, 0, 1, 2])
    return cell_proxies(variables, genotype, *arguments, network=NETWORK, proxies=proxies)[0]


@pytest.fixture(scope="module")
def scores(variables):
    """Proxies of some cells built alone, `[A, P]`."""
    score = jax.jit(proxies_of, static_argnums=(1, 2))
    return np.stack([score(variables, tuple(cell.tolist()), PROXIES) for cell in CELLS[:2]])


@pytest.mark.parametrize(("loop", "num_proxies"), [(jax.lax.map, len(PROXIES)), (jax.vmap, 5)])
def test_cells_that_share_a_program_have_the_scores_of_each_alone(
    variables, scores, loop, num_proxies
):
    def score(genotype):
        return proxies_of(variables, genotype, PROXIES[:num_proxies])

    def run(cells):
        return loop(score)(cells) if loop is jax.vmap else loop(score, cells)

    # The last has no path, and no score, beside a dead convolution.
    cells = np.append(np.stack(CELLS[:2]), [[3, 3, 3, 0, 0, 0]], axis=0)
    got = jax.jit(run)(jnp.asarray(cells, jnp.int32))
    assert np.isfinite(scores).all()
    # Sums in another order, and logarithms of correlations near zero, which sharpen that.
    assert np.allclose(got[:2], scores[:, :num_proxies], rtol=1e-8)
    assert np.isnan(got[2, 0])


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("side", [1, 4])
def test_a_traced_operation_has_the_gradients_of_a_static_one(halves, side):
    rng = np.random.default_rng(0)
    out = 8 if halves else 4

    def conv_bn(size):
        kernel = rng.normal(size=(size, size, 4, out))
        return ConvBN(kernel, rng.normal(size=out), rng.normal(size=out))

    weights = operations.EdgeWeights(conv_bn(1) if halves else None, conv_bn(1), conv_bn(3))
    x = rng.normal(size=(5, side, side, 4))

    def loss(x, weights, op):
        return jnp.sum(operations.apply_operation(op, x, weights, halves) ** 3)

    for by in (0, (0, 1)):
        traced = jax.jit(jax.value_and_grad(loss, by))
        static = jax.jit(jax.value_and_grad(loss, by), static_argnums=2)
        for op in range(4):
            both = jax.tree.map(np.allclose, static(x, weights, op), traced(x, weights, op))
            assert jax.tree.all(both), op


@pytest.mark.parametrize("static", [True, False])
def test_network_sows_each_relu_once(static):
    # Node 0 feeds a skip and two convolutions, node 1 a skip and none, node 2 a convolution.
    cell = parse("64-41414-1_21_303")
    genotype = tuple(cell.tolist()) if static else jnp.asarray(cell)
    images = images_of(32, num_images=2)

    @jax.jit
    def run():
        variables = NETWORK.init(jax.random.key(0), images, genotype)
        return NETWORK.apply(variables, images, genotype, mutable=["relus"])[1]

    # An image agrees with itself in all units of every ReLU.
    per_image = {
        f"{module}/{name}": int(counts[0][0, 0])
        for module, names in run()["relus"].items()
        for name, counts in names.items()
    }
    expected = {"stem/relus": 16 * 16 * 2, "head/relus": 1 * 32}
    units = 8 * 8 * 4
    for number in range(5):
        halves = number in (0, 2, 4)
        units_out = units // 2 if halves else units
        expected |= {
            # A skip that halves starts with a ReLU.
            f"cell_{number}/relus_0": (3 if halves else 2) * units,
            f"cell_{number}/relus_1": 0,
            f"cell_{number}/relus_2": units_out,
        }
        units = units_out
    assert per_image == expected


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 32, 32)), "found rank 3"),
        (np.zeros((2, 12, 12, 3)), "found 12x12 pixels, expected a side divisible by 32, or 4, 8"),
        (np.zeros((2, 48, 48, 3)), "found 48x48 pixels, expected a side divisible by 32"),
        (np.zeros((2, 32, 32, 3), np.uint8), "found dtype uint8"),
    ],
)
def test_images_the_network_cannot_take_are_refused(images, message):
    with pytest.raises(InputError, match=message):
        NETWORK.init(jax.random.key(0), images, (1,) * 6)


@pytest.mark.parametrize("channels", [3, 0])
def test_odd_channels_are_refused(channels):
    with pytest.raises(InputError, match=f"channels: found {channels}, expected an even number"):
        NETWORK.clone(channels=channels).init(jax.random.key(0), images_of(8), (1,) * 6)
