"""Steps of training: beside PyTorch's SGD, on one device and on two, and what an epoch visits."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sklearn.utils.class_weight import compute_class_weight

from epe_nas_jax import InputError, NasBench201Network
from epe_nas_jax.pytorch.network import build_network
from epe_nas_jax.pytorch.weights import Sizes, from_state_dict, to_state_dict
from epe_nas_jax.training.step import (
    NO_IMAGE,
    Recipe,
    Training,
    balanced_weights,
    epoch_rows,
    evaluate,
    init_state,
    learning_rate,
    train_step,
)

CELL = (3, 2, 4, 1, 3, 2)
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def training_of(cells_per_stage=1, **recipe):
    return Training(
        network=NasBench201Network(10, 4, cells_per_stage, jnp.float64),
        genotype=CELL,
        recipe=Recipe(**{"epochs": 3, "batch_size": 16, "augment": False, **recipe}),
        num_images=40,
        mean=MEAN,
        std=STD,
    )


def batches(num_steps, size=16):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_steps, size, 8, 8, 3), np.uint8)
    return images, rng.integers(0, 10, (num_steps, size)).astype(np.int32)


def run_steps(training, num_steps, place=lambda x: x):
    state = place(init_state(jax.random.key(0), training=training))
    for images, labels in zip(*batches(num_steps), strict=True):
        state, sums = train_step(
            state, place(jax.random.key(1)), place(images), place(labels), training=training
        )
    return state, sums


def to_torch(images):
    x = (images / 255 - np.array(MEAN)) / np.array(STD)
    return torch.tensor(x.transpose(0, 3, 1, 2))


def test_steps_are_pytorchs_sgd_and_batch_norm():
    """Five steps over three epochs of the schedule: parameters and running averages."""
    num_steps = 5
    training = training_of(cells_per_stage=2)
    torch.manual_seed(0)
    reference = build_network(CELL, Sizes(4, 2, 10)).double()
    params = from_state_dict(reference.state_dict(), CELL)["params"]
    state = init_state(jax.random.key(0), training=training)
    assert jax.tree.map(jnp.shape, state.params) == jax.tree.map(jnp.shape, params)
    state = state._replace(params=jax.tree.map(jnp.asarray, params))
    sgd = torch.optim.SGD(
        reference.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    for step, (images, labels) in enumerate(zip(*batches(num_steps), strict=True)):
        # Two steps an epoch.
        sgd.param_groups[0]["lr"] = 0.1 * (1 + np.cos(np.pi * (step // 2) / 3)) / 2
        loss = torch.nn.functional.cross_entropy(
            reference(to_torch(images))[1], torch.tensor(labels).long()
        )
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        state, sums = train_step(state, jax.random.key(1), images, labels, training=training)
        assert float(sums.loss) / 16 == pytest.approx(float(loss.detach()), abs=1e-8)

    variables = {"params": state.params, "batch_stats": state.batch_stats}
    ours = to_state_dict(variables, CELL, cells_per_stage=2)
    for name, expected in reference.state_dict().items():
        if "num_batches" not in name:
            # The aim; rounding in float64 leaves about 1e-12.
            assert np.abs(ours[name] - expected.numpy()).max() < 1e-6, name
    assert set(ours) == set(reference.state_dict())
    assert np.abs(ours["stem.1.running_mean"]).max() > 1e-3

    images, labels = (x[0] for x in batches(1))
    logits = reference.eval()(to_torch(images))[1].detach().numpy()
    sums = evaluate(state, images, labels, training=training)
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels).long())
    assert float(sums.loss) / 16 == pytest.approx(float(loss), abs=1e-6)
    assert int(sums.num_correct) == np.sum(logits.argmax(1) == labels)


@pytest.mark.parametrize(
    ("smoothing", "weights"), [(0.2, ()), (0.0, (0.5, 2.0) * 5), (0.1, (3.0, *[1.0] * 9))]
)
def test_smoothed_and_weighted_loss_is_its_formula(smoothing, weights):
    training = training_of(augment=False, weight_decay=0.0, label_smoothing=smoothing)
    training = dataclasses.replace(training, class_weights=weights)
    state = init_state(jax.random.key(0), training=training)
    images, labels = (array[0] for array in batches(1))
    x = (images / 255 - np.array(MEAN)) / np.array(STD)
    # What the logarithm of each probability counts.
    factors = np.zeros((16, 10))
    for row, label in enumerate(labels):
        for other in range(10):
            target = smoothing / 10 + (1 - smoothing) * (other == label)
            factors[row, other] = (weights or [1.0] * 10)[label] * target / 16

    def loss(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, _ = training.network.apply(variables, x, training.genotype, mutable=["batch_stats"])
        log_probabilities = logits - jnp.log(jnp.sum(jnp.exp(logits), axis=1, keepdims=True))
        return -jnp.sum(factors * log_probabilities)

    expected = jax.grad(loss)(state.params)
    before = jax.tree.map(np.array, state.params)
    after, _ = train_step(state, jax.random.key(1), images, labels, training=training)
    # The first step of Nesterov's momentum: the gradient and 0.9 of it.
    step = training.recipe.learning_rate * (1 + training.recipe.momentum)
    got = jax.tree.map(lambda old, new: (old - new) / step, before, after.params)
    for found, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.array([0, 0, 0, 2, 2, 1, 0, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_weights(labels, 3), expected)
    # A class without an image changes nothing for the others.
    assert balanced_weights(labels, 4) == (*balanced_weights(labels, 3), 0.0)


def test_two_devices_train_as_one():
    training = training_of(augment=True)
    mesh = Mesh(np.array(jax.devices()[:2]), ("images",))

    def share(x):
        is_batch = isinstance(x, np.ndarray)
        spec = PartitionSpec("images") if is_batch else PartitionSpec()
        return jax.device_put(x, NamedSharding(mesh, spec))

    one, one_sums = run_steps(training, 3)
    two, two_sums = run_steps(training, 3, share)
    assert len(two_sums.loss.devices()) == 2
    # Gradients are added up; images stay where they are.
    shared = jax.tree.map(share, (two, jax.random.key(0), *(x[0] for x in batches(1))))
    program = train_step.lower(*shared, training=training).compile().as_text()
    assert "all-reduce" in program
    assert "all-gather" not in program
    for a, b in zip(
        jax.tree.leaves((one, one_sums)), jax.tree.leaves((two, two_sums)), strict=True
    ):
        # Float64, and sums of another order.
        assert np.allclose(a, b, rtol=1e-9, atol=1e-11)


def test_augmentation_differs_between_steps_and_repeats_with_the_key():
    training = training_of(augment=True, learning_rate=1e-12, momentum=0.0)
    images, labels = (x[0] for x in batches(1))

    def losses(key):
        state, found = init_state(jax.random.key(0), training=training), []
        for _ in range(2):
            state, sums = train_step(state, key, images, labels, training=training)
            found.append(float(sums.loss))
        return found

    first = losses(jax.random.key(1))
    assert abs(first[0] - first[1]) > 1e-6
    assert losses(jax.random.key(1)) == first
    assert abs(losses(jax.random.key(2))[0] - first[0]) > 1e-6


def test_images_that_fill_up_do_not_count():
    training = training_of()
    state, _ = run_steps(training, 1)
    images, labels = (x[0] for x in batches(1))
    whole = evaluate(state, images[:10], labels[:10], training=training)
    filled = np.where(np.arange(16) < 10, labels, NO_IMAGE)
    padded = evaluate(state, images, filled, training=training)
    assert int(padded.num_images) == 10
    assert int(padded.num_correct) == int(whole.num_correct)
    assert float(padded.loss) == pytest.approx(float(whole.loss), rel=1e-12)


def test_an_epoch_visits_different_images_and_epochs_differ():
    training = training_of()
    key = jax.random.key(0)
    rows = epoch_rows(key, 0, training)
    assert rows.shape == (2, 16)
    assert len(set(rows.ravel().tolist())) == 32
    assert set(rows.ravel().tolist()) <= set(range(40))
    assert np.array_equal(rows, epoch_rows(key, 0, training))
    assert not np.array_equal(rows, epoch_rows(key, 1, training))


def test_the_learning_rate_falls_along_half_a_cosine():
    recipe = Recipe()
    assert float(learning_rate(recipe, 0)) == pytest.approx(0.1)
    assert float(learning_rate(recipe, 100)) == pytest.approx(0.05)
    assert 0 < float(learning_rate(recipe, 199)) < 1e-4


def test_scoring_leaves_running_averages_alone(minibatch):
    images, _ = minibatch
    network = training_of().network
    key = jax.random.key(0)
    assert set(network.init(key, images, CELL)) == {"params"}
    variables = network.init(key, images, CELL, use_running_average=True)
    alone = {"params": variables["params"]}
    assert np.array_equal(
        network.apply(variables, images, CELL), network.apply(alone, images, CELL)
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("batch_size", 41),
        ("learning_rate", 0.0),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("label_smoothing", 1.0),
        ("patience", -1),
    ],
)
def test_a_recipe_that_cannot_be_used_is_refused(field, value):
    with pytest.raises(InputError, match=f"{field}: found {value}, expected"):
        training_of(**{field: value})


@pytest.mark.parametrize(("precision", "is_rounded"), [("float32", False), ("bfloat16", True)])
def test_products_of_a_step_have_the_precision_of_the_recipe(precision, is_rounded):
    training = training_of(precision=precision)
    state = jax.eval_shape(lambda: init_state(jax.random.key(0), training=training))
    images, labels = (array[0] for array in batches(1))
    step = functools.partial(train_step, training=training)
    text = str(jax.make_jaxpr(step)(state, jax.random.key(1), images, labels))
    found = set(re.findall(r"Precision\.(\w+)", text))
    # Some products, of weights alone, are never rounded.
    assert found == {"HIGHEST", *["DEFAULT"] * is_rounded}


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match="precision: found 'half', expected one of float32, "):
        training_of(precision="half")
