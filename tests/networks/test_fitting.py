"""Peak memory of networks, and what happens to one that does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from epe_nas_jax import rank_networks
from epe_nas_jax.networks import function, pytorch
from epe_nas_jax.networks.pytorch import NOT_FORESEEN

WIDTH, NUM_LAYERS, NUM_IMAGES = 48, 8, 480
NUM_BYTES = 4 * NUM_IMAGES * WIDTH
WEIGHT_BYTES = 4 * (NUM_LAYERS * WIDTH**2 + 3 * WIDTH)


def apply_fn(weights, images):
    """A network whose layers are as wide as its images have numbers."""
    *hidden, last = weights
    x = images.reshape(len(images), -1)
    for layer in hidden:
        x = jnp.tanh(x @ layer)
    return x @ last


def torch_module(hook=lambda _: None):
    class Flat(torch.nn.Flatten):
        def forward(self, images):
            hook(images)
            return super().forward(images)

    torch.manual_seed(0)
    layers = [Flat()]
    for _ in range(NUM_LAYERS):
        layers += [torch.nn.Linear(WIDTH, WIDTH, bias=False), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 3, bias=False))


def jax_network():
    keys = jax.random.split(jax.random.key(0), NUM_LAYERS + 1)
    shapes = [*[(WIDTH, WIDTH)] * NUM_LAYERS, (WIDTH, 3)]
    return apply_fn, [
        0.1 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)
    ]


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(NUM_IMAGES, 4, 4, 3)).astype(np.float32)
    return images, np.arange(NUM_IMAGES) % 3


@pytest.mark.parametrize("make", [jax_network, torch_module])
def test_peak_is_what_the_backward_pass_needs(many, make):
    peak = rank_networks({"n": make()}, *many, 3, columns=("peak_mb",), objective=("peak_mb",))
    # Images and the output of every layer are kept.
    kept = (1 + NUM_LAYERS) * NUM_BYTES + WEIGHT_BYTES
    # A layer or three are in work; XLA does not use all memory again that is free.
    assert kept < 1e6 * peak["peak_mb"][0] < 2 * (kept + 3 * NUM_BYTES)


FRAMEWORKS = [(function, jax_network), (pytorch, torch_module)]


@pytest.mark.parametrize(("module", "make"), FRAMEWORKS)
def test_network_that_does_not_fit_is_a_row_that_says_so(many, monkeypatch, module, make):
    monkeypatch.setattr(module, "free_bytes", lambda _: 123_456)
    row = rank_networks({"n": make()}, *many, 3).iloc[0]
    assert row["error"].startswith("network 'n': memory: found 0 MB free, expected about ")
    assert np.isnan(row["epe"])


@pytest.mark.parametrize(("module", "make"), FRAMEWORKS)
def test_network_that_fits_with_no_mini_batch_is_a_row_that_says_so(
    many, monkeypatch, module, make
):
    monkeypatch.setattr(module, "free_bytes", lambda _: 1)
    row = rank_networks({"n": make()}, *many, 3, smaller_batches=True).iloc[0]
    assert row["error"].startswith("network 'n': memory: found 0 MB free, expected about 0 MB")


def test_of_a_module_for_one_number_of_images_it_is_not_known_beforehand(many):
    def only_these(images):
        assert len(images) == NUM_IMAGES

    row = rank_networks({"n": torch_module(only_these)}, *many, 3).iloc[0]
    assert row["error"] is None
    assert NOT_FORESEEN in row["note"]


@pytest.mark.parametrize(("module", "make"), FRAMEWORKS)
def test_network_gets_fewer_images_if_that_is_asked_for(many, monkeypatch, module, make):
    columns = ("jacob_cov", "peak_mb")
    whole = rank_networks({"n": make()}, *many, 3, columns=columns, objective=("jacob_cov",))
    # Of what is needed beside weights and images.
    limit = int(0.9 * (1e6 * whole["peak_mb"][0] - WEIGHT_BYTES - NUM_BYTES))
    monkeypatch.setattr(module, "free_bytes", lambda _: limit)
    row = rank_networks(
        {"n": make()}, *many, 3, columns=columns, objective=("jacob_cov",), smaller_batches=True
    ).iloc[0]
    assert row["error"] is None
    assert row["note"].startswith("measured on 240 of 480 images, for lack of memory")
    images, labels = many
    monkeypatch.undo()
    # Every second image of each of the classes 0, 1, 2, 0, 1, 2, ...
    rows = [row for row in range(NUM_IMAGES) if row // 3 % 2 == 0]
    half = rank_networks(
        {"n": make()}, images[rows], labels[rows], 3, columns=columns, objective=("jacob_cov",)
    ).iloc[0]
    # The same program on the same numbers.
    assert row["jacob_cov"] == pytest.approx(half["jacob_cov"], rel=1e-6)


def test_an_error_for_want_of_memory_while_it_runs_counts_too(many):
    def fails(images):
        if len(images) > 64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    networks = {"n": torch_module(fails)}
    row = rank_networks(networks, *many, 3).iloc[0]
    assert row["error"].startswith("network 'n': OutOfMemoryError: CUDA out of memory")
    row = rank_networks(networks, *many, 3, smaller_batches=True).iloc[0]
    assert row["error"] is None
    assert row["note"].startswith("measured on 60 of 480 images, for lack of memory")
