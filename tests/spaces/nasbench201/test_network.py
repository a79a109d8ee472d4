import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from costs import built_parameters

from epe_nas_jax import InputError, NasBench201Network, input_jacobian, parse_arch
from epe_nas_jax.spaces.nasbench201.genotype import sample

NETWORK = NasBench201Network(num_classes=3, channels=4, cells_per_stage=2, param_dtype=jnp.float64)
GENOTYPE = (3, 2, 0, 1, 4, 3)


def leaves(variables):
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }


def test_static_cell_has_the_very_weights_it_has_in_a_batch(minibatch):
    images, _ = minibatch
    key = jax.random.key(0)
    static = leaves(jax.jit(lambda key: NETWORK.init(key, images, GENOTYPE))(key))
    traced = leaves(jax.jit(NETWORK.init)(key, images, jnp.array(GENOTYPE)))
    assert len(static) < len(traced)
    for path, leaf in static.items():
        assert np.array_equal(leaf, traced[path]), path


def test_static_and_traced_genotype_agree(minibatch):
    images, _ = minibatch

    def run(genotype):
        variables = NETWORK.init(jax.random.key(0), images, genotype)

        def apply_fn(variables, images):
            return NETWORK.apply(variables, images, genotype)

        return apply_fn(variables, images), input_jacobian(apply_fn, variables, images)

    static = jax.jit(lambda: run(GENOTYPE))()
    traced = jax.jit(run)(jnp.array(GENOTYPE))
    for a, b in zip(static, traced, strict=True):
        # The backward rule is written by hand; only the order of sums differs.
        assert np.allclose(a, b, rtol=1e-8, atol=1e-10)


def test_weights_follow_pytorch_default_bounds(minibatch):
    images, _ = minibatch
    network = NasBench201Network(num_classes=50, channels=16, cells_per_stage=1)
    init = jax.jit(network.init)
    params = leaves(init(jax.random.key(1), images.astype(np.float32), jnp.zeros(6, int)))
    bounds = {
        "['params']['stem']['conv_bn']['kernel']": 1 / np.sqrt(27),
        "['params']['cell_1']['edge_2_nor_conv_3x3']['kernel']": 1 / np.sqrt(9 * 32),
        "['params']['cell_2']['edge_5_nor_conv_1x1']['kernel']": 1 / np.sqrt(64),
        "['params']['reduction_0']['shortcut']": 1 / np.sqrt(16),
        "['params']['head']['classifier_kernel']": 1 / np.sqrt(64),
        "['params']['head']['classifier_bias']": 1 / np.sqrt(64),
    }
    for path, bound in bounds.items():
        largest = np.abs(params[path]).max()
        assert 0.9 * bound < largest <= bound, path


def test_no_two_weights_are_drawn_alike(minibatch):
    images, _ = minibatch
    params = leaves(jax.jit(NETWORK.init)(jax.random.key(0), images, jnp.zeros(6, int)))
    drawn = [np.ravel(v)[:3] for p, v in params.items() if not p.endswith(("scale']", "bias']"))]
    # Every weight is scaled by its own bound, which ratios do not see.
    ratios = {tuple(np.round(v[1:] / v[0], 9)) for v in drawn}
    assert len(ratios) == len(drawn) > 70


def test_parameter_count_follows_the_closed_formula():
    network = NasBench201Network(num_classes=10)
    for genotype in np.asarray(sample(jax.random.key(0), 5)):
        count = built_parameters(network, tuple(genotype.tolist()))
        expected = 27 * 16 + 2 * 16 + 2 * 64 + 64 * 10 + 10
        for c in (16, 32, 64):
            cell = np.sum(genotype == 3) * (9 * c * c + 2 * c)
            cell += np.sum(genotype == 2) * (c * c + 2 * c)
            expected += 5 * cell
        for c in (32, 64):
            expected += 9 * c * c // 2 + 2 * c + 9 * c * c + 2 * c + c * c // 2
        assert count == expected


@pytest.mark.parametrize("static", [True, False])
def test_network_sows_each_relu_once(minibatch, static):
    images, _ = minibatch
    # Node 0 feeds two convolutions, node 1 none, node 2 one.
    cell = parse_arch(
        "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|nor_conv_3x3~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    )
    genotype = tuple(cell.tolist()) if static else jnp.asarray(cell)
    network = NETWORK.clone(cells_per_stage=1)
    variables = network.init(jax.random.key(0), images, genotype)
    assert set(variables) == {"params"}
    logits, sown = network.apply(variables, images, genotype, mutable=["relus"])
    assert np.array_equal(logits, network.apply(variables, images, genotype))
    # An image agrees with itself in all units of every ReLU.
    per_image = {
        path: sown["relus"][module][name][0][0, 0]
        for module, names in sown["relus"].items()
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


def test_layers_in_half_precision_change_a_network_only_a_little(minibatch):
    images = minibatch[0].astype(np.float32)
    network = dataclasses.replace(NETWORK, param_dtype=jnp.float32)
    cell = parse_arch(
        "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    )
    variables = network.init(jax.random.key(0), images, cell)

    def run(activation_dtype):
        def apply_fn(variables, images):
            return network.apply(variables, images, cell, activation_dtype=activation_dtype)

        jacobian = jax.jit(functools.partial(input_jacobian, apply_fn))(variables, images)
        return apply_fn(variables, images), jacobian

    (logits, jacobian), (near_logits, near_jacobian) = run(None), run("bfloat16")
    assert near_logits.dtype == near_jacobian.dtype == jnp.float32
    assert not np.array_equal(near_logits, logits)
    # Of 8 bits, after some ten layers. A ReLU that opens or closes moves a Jacobian far more.
    assert np.linalg.norm(near_logits - logits) < 0.05 * np.linalg.norm(logits)
    cosine = np.sum(near_jacobian * jacobian) / np.linalg.norm(jacobian)
    assert cosine / np.linalg.norm(near_jacobian) > 0.8


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8)), "found rank 3"),
        (np.zeros((2, 8, 4, 3)), "found 8x4 pixels"),
        (np.zeros((2, 6, 6, 3)), "divisible by 4"),
        (np.zeros((2, 8, 8, 3), np.uint8), "found dtype uint8"),
    ],
)
def test_images_the_network_cannot_take_are_refused(images, message):
    with pytest.raises(InputError, match=message):
        NETWORK.init(jax.random.key(0), images, GENOTYPE)
