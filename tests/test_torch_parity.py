"""The same cell with the same weights on the same mini-batch as NAS-Bench-201's PyTorch network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import torch
from sklearn.datasets import load_digits

from epe_nas_jax import NasBench201Network, input_jacobian
from epe_nas_jax.proxies.epe import cell_score, epe_score
from epe_nas_jax.pytorch import network as pytorch
from epe_nas_jax.pytorch.weights import from_state_dict
from epe_nas_jax.search.ranking import spearman
from epe_nas_jax.spaces.nasbench201.cost import Sizes
from epe_nas_jax.spaces.nasbench201.genotype import sample

NUM_CLASSES = 10
SIZES = Sizes(channels=16, cells_per_stage=5, num_classes=NUM_CLASSES)

# As in every command, and unlike in most tests (`conftest.py`).
OPTIMISED = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}

pytestmark = pytest.mark.slow


def digits_minibatch(num_images, dtype):
    """Real digits, one in three colours with noise, so that no two channels are alike."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    rows = rng.choice(len(digits.images), num_images, replace=False)
    images = np.kron(digits.images[rows], np.ones((1, 4, 4)))[..., None] / 8 - 1
    images = images * np.array([1.0, 0.8, -0.6]) + 0.3 * rng.normal(size=(num_images, 32, 32, 3))
    return images.astype(dtype), digits.target[rows].astype(np.int32)


def build(cell, seed, sizes=SIZES):
    """PyTorch's network of a cell, freshly initialised."""
    torch.manual_seed(seed)
    return pytorch.build_network(cell, sizes)


def variables_of(reference, cell):
    """Its weights as ours, with noise in the unused candidates that must not matter."""
    own = from_state_dict(reference.state_dict(), cell)
    rng = np.random.default_rng(0)

    def with_noise(full, own):
        if not isinstance(full, dict):
            return rng.normal(size=full.shape).astype(full.dtype) if own is None else own
        return {name: with_noise(full[name], (own or {}).get(name)) for name in full}

    return with_noise(from_state_dict(reference.state_dict(), cell, every_operation=True), own)


def make_run(network, labels):
    """Logits, input Jacobian and score of any genotype in one compiled program."""

    @functools.partial(jax.jit, compiler_options=OPTIMISED)
    def run(variables, genotype, images):
        def apply_fn(variables, images):
            return network.apply(variables, images, genotype)

        jacobian = input_jacobian(apply_fn, variables, images)
        score = epe_score(jacobian, labels, NUM_CLASSES)
        return apply_fn(variables, images), jacobian, score

    return run


def relative_error(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()


def cells_with_every_operation_on_every_edge(num_groups):
    """Groups of 5 cells that differ by a cyclic shift of all operations."""
    first = np.asarray(sample(jax.random.key(1), num_groups))
    return ((first[:, None, :] + np.arange(5)[None, :, None]) % 5).reshape(-1, 6)


def test_float64_logits_jacobian_and_score_are_pytorchs():
    cells = cells_with_every_operation_on_every_edge(6)
    assert len(cells) == 30
    for edge in range(6):
        assert set(cells[:, edge]) == set(range(5))
    images, labels = digits_minibatch(32, np.float64)
    network = NasBench201Network(NUM_CLASSES, param_dtype=jnp.float64)
    run = make_run(network, labels)
    num_scored = 0
    for seed, cell in enumerate(cells):
        reference = build(cell, seed).double()
        logits, jacobian, _ = pytorch.run(reference, images)
        variables = variables_of(reference, cell)
        got_logits, got_jacobian, got_score = run(variables, jnp.asarray(cell), images)
        assert relative_error(got_logits, logits) < 1e-10
        expected = oracles.epe_score(jacobian, labels, NUM_CLASSES, "released")
        if np.isnan(expected):
            assert not got_jacobian.any()
            assert np.isnan(got_score)
            continue
        assert relative_error(got_jacobian, jacobian) < 1e-9
        assert abs(got_score / expected - 1) < 1e-7
        num_scored += 1
    assert num_scored >= 28


def test_static_cell_with_only_its_own_weights_is_pytorchs_too():
    cell = np.array([3, 2, 4, 1, 3, 2])
    images, _ = digits_minibatch(16, np.float64)
    reference = build(cell, 0, Sizes(16, 2, NUM_CLASSES)).double()
    logits, jacobian, _ = pytorch.run(reference, images)
    variables = from_state_dict(reference.state_dict(), cell)
    network = NasBench201Network(NUM_CLASSES, cells_per_stage=2, param_dtype=jnp.float64)

    def apply_fn(variables, images):
        return network.apply(variables, images, cell)

    assert relative_error(apply_fn(variables, images), logits) < 1e-10
    got = jax.jit(lambda v, x: input_jacobian(apply_fn, v, x))(variables, images)
    assert relative_error(got, jacobian) < 1e-9


@pytest.fixture(scope="module")
def float32_scores():
    """Our scores and PyTorch's of 40 cells, `[2, A]`."""
    images, labels = digits_minibatch(128, np.float32)
    network = NasBench201Network(NUM_CLASSES)
    score_of = jax.jit(functools.partial(cell_score, network=network), compiler_options=OPTIMISED)
    cells = np.asarray(sample(jax.random.key(2), 40))
    scores = []
    for seed, cell in enumerate(cells):
        # One network at a time: gradients kept between two passes keep the passes' memory too.
        reference = build(cell, seed).requires_grad_(False)
        score = score_of(variables_of(reference, cell), jnp.asarray(cell), images, labels)
        assert score.dtype == np.float32
        jacobian = pytorch.run(reference, images).jacobian
        scores.append([score, oracles.epe_score(jacobian, labels, NUM_CLASSES, "released")])
    return np.array(scores, np.float64).T


def test_float32_ranking_is_pytorchs(float32_scores):
    assert np.array_equal(*np.isnan(float32_scores))
    rho = spearman(*float32_scores, num_resamples=10).value
    print(f"Spearman {rho:.6f} over {np.isfinite(float32_scores[0]).sum()} cells")
    assert rho > 0.999


def test_float32_scores_are_near_pytorchs(float32_scores):
    errors = np.abs(float32_scores[0] / float32_scores[1] - 1)
    print(f"{np.sum(errors > 2e-3)} cells differ by more than 2e-3")
    print(f"relative error: {np.nanmedian(errors):.1e} median, {np.nanmax(errors):.1e} worst")
    assert np.nanmedian(errors) < 1e-3
    # A rounding can close a ReLU: PyTorch's own float32 is at times 1e-2 from its own float64.
    assert np.nanmax(errors) < 1e-2


# Not strict: other processors round differently, and one may reach it.
@pytest.mark.xfail(
    strict=False,
    reason="the aim, missed by one to three cells of 100, by processor: a rounding closes a ReLU",
)
def test_float32_scores_are_pytorchs_to_2e_3(float32_scores):
    assert np.nanmax(np.abs(float32_scores[0] / float32_scores[1] - 1)) < 2e-3
