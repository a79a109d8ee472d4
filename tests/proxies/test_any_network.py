import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import torch

from epe_nas_jax import InputError, input_jacobian, network_score, score_networks

EXAMPLES = Path(__file__).parents[2] / "examples"


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def linear_tanh(weights, images):
    return jnp.tanh(images.reshape(len(images), -1) @ weights)


@pytest.fixture
def weights():
    return 0.1 * np.random.default_rng(1).normal(size=(192, 3))


def test_network_score_is_the_papers_of_the_analytic_jacobian(minibatch, weights):
    images, labels = minibatch
    logits = np.tanh(images.reshape(8, -1) @ weights)
    expected = oracles.epe_score((1 - logits**2) @ weights.T, labels, 3, "released")
    got = network_score(linear_tanh, weights, images, labels, 3)
    # Both in float64; correlations near 0 lose a few digits under the logarithm.
    assert np.isclose(got, expected, rtol=1e-9)


def test_networks_of_other_shapes_have_the_scores_they_have_alone(minibatch, weights):
    images, labels = minibatch

    def two_layers(weights, images):
        return linear_tanh(weights[0], images) @ weights[1]

    networks = {
        "one": (linear_tanh, weights),
        "two": (two_layers, [weights[:, :2], np.array([[1.0, -1, 2], [0, 3, 1]])]),
    }
    scores = score_networks(networks, images, labels, 3)
    assert list(scores) == ["one", "two"]
    for name, network in networks.items():
        assert scores[name] == network_score(*network, images, labels, 3)
    assert scores["one"] != scores["two"]


def test_variant_is_passed_on(minibatch, weights):
    images, labels = minibatch
    wide = np.tile(weights, 40)
    scores = [
        network_score(linear_tanh, wide, images, labels, 120, variant)
        for variant in ("released", "two_branch")
    ]
    assert scores[0] != scores[1]


def test_network_without_a_jacobian_has_no_score(minibatch):
    images, labels = minibatch
    assert np.isnan(network_score(lambda _, x: jnp.zeros((len(x), 3)), None, images, labels, 3))


def test_who_looks_for_nan_is_not_stopped_by_a_network_without_a_score(minibatch, weights):
    images, labels = minibatch
    with jax.debug_nans(True):
        found = network_score(lambda w, x: 0 * linear_tanh(w, x), weights, images, labels, 3)
    assert np.isnan(found)


@pytest.mark.parametrize("form", [np.ndarray.tolist, torch.tensor, jnp.asarray])
def test_arrays_of_any_library_have_one_score(minibatch, weights, form):
    expected = network_score(linear_tanh, weights, *minibatch, 3)
    assert network_score(linear_tanh, weights, *map(form, minibatch), 3) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(minibatch, weights, dtype):
    images, labels = torch.tensor(minibatch[0], dtype=dtype), minibatch[1]
    found = network_score(linear_tanh, weights.astype(np.float32), images, labels, 3)
    expected = network_score(
        linear_tanh, weights.astype(np.float32), images.float().numpy(), labels, 3
    )
    assert found == expected


@pytest.mark.parametrize(
    ("apply_fn", "message"),
    [
        (lambda w, x: linear_tanh(w, x).sum(axis=1), r"logits: found float64 of shape \(8,\)"),
        (
            lambda w, x: linear_tanh(w, x)[:, None],
            r"shape \(8, 1, 3\), expected one array \[8, 3\]",
        ),
        (lambda w, x: linear_tanh(w, x)[1:], r"shape \(7, 3\), expected one array \[8, 3\]"),
        (lambda w, x: linear_tanh(w, x)[:, :2], r"shape \(8, 2\), expected one array \[8, 3\]"),
        (lambda w, x: linear_tanh(w, x) > 0, "logits: found bool"),
        (lambda w, x: (linear_tanh(w, x), x), "logits: found a tuple, expected one array"),
        (lambda w, x: jnp.log(linear_tanh(w, x) - 2), "logits: found NaN or infinite"),
        (lambda w, x: jnp.sqrt(0 * linear_tanh(w, x)), "input Jacobian: found NaN or infinite"),
    ],
)
def test_output_that_is_no_finite_logits_is_named(minibatch, weights, apply_fn, message):
    images, labels = minibatch
    with pytest.raises(InputError, match=message):
        network_score(apply_fn, weights, images, labels, 3)
    with pytest.raises(InputError, match=f"network 'mine', .*{message}"):
        score_networks({"mine": (apply_fn, weights)}, images, labels, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x.astype(int), y), "images: found int64"),
        (lambda _, y: ("pixels", y), "images: found a str, expected an array of numbers"),
        (lambda x, _: (x, [[0], [1, 2]]), "labels: found a list that cannot be read as an array"),
        (lambda x, y: (x[:1], y[:1]), "images: found 1"),
        (lambda x, y: (x / 0, y), "NaN or infinite pixels"),
        (lambda x, y: (x, y[1:]), "labels: found 7, expected 8"),
        (lambda x, y: (x, y + 1), "labels: found 3, expected 0..2"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*divide by zero")
def test_bad_minibatch_is_refused(minibatch, weights, change, message):
    with pytest.raises(InputError, match=message):
        network_score(linear_tanh, weights, *change(*minibatch), 3)


@pytest.mark.parametrize("name", ["linen_network", "nnx_network"])
def test_flax_example_sees_the_whole_mini_batch(name, minibatch):
    images, _ = minibatch
    images = images.astype(np.float32)
    example = load_example(name)
    arguments = (images, 10) if name == "linen_network" else (10,)
    apply_fn, variables = example.make_network(*arguments)
    jacobian = jax.jit(lambda v, x: input_jacobian(apply_fn, v, x))
    before = jax.tree.map(np.array, variables)
    together, halves = (
        jacobian(variables, images),
        np.concatenate([jacobian(variables, images[i : i + 4]) for i in (0, 4)]),
    )
    # Batch norm in training mode couples the images, and nothing is remembered.
    assert not np.allclose(together, halves, rtol=0.01)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, variables))


@pytest.mark.parametrize("name", ["linen_network", "nnx_network"])
def test_flax_example_runs(name, capsys):
    score = load_example(name).main(num_images=16)
    assert np.isfinite(score)
    assert capsys.readouterr().out.endswith(f": {score:.1f}\n")


def test_plain_example_compares_three_networks(capsys):
    scores = load_example("plain_function").main(num_images=16)
    assert len(scores) == 3
    assert np.isfinite(list(scores.values())).all()
    best = max(scores, key=scores.get)
    assert capsys.readouterr().out.startswith(f"{best}: {scores[best]:.1f}\n")
