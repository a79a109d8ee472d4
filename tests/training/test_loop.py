"""The training loop: what it trains on, its metrics, and that it goes on where it was stopped."""

import dataclasses
import logging

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_inputs import damaged, spliced
from refusals import refusal

from epe_nas_jax import InputError, NasBench201Network
from epe_nas_jax.data.datasets import Dataset
from epe_nas_jax.training import loop
from epe_nas_jax.training.loop import Metrics, Split, halves, kept_epoch, predict, train
from epe_nas_jax.training.step import Recipe, Sums, Training

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
STEPS_PER_EPOCH = 2
TRAINING = Training(
    network=NasBench201Network(2, 4, 1, jnp.float32),
    genotype=(3, 2, 4, 1, 3, 2),
    recipe=Recipe(epochs=3, batch_size=8, augment=False),
    num_images=20,
    mean=MEAN,
    std=STD,
)


def dataset_of(num_images):
    """Bright and dark images in turns, with noise."""
    labels = np.arange(num_images, dtype=np.int32) % 2
    noise = np.random.default_rng(0).integers(0, 120, (num_images, 8, 8, 3))
    images = (noise + 120 * labels[:, None, None, None]).astype(np.uint8)
    return Dataset(images, labels, ("dark", "bright"), np.array(MEAN), np.array(STD))


SPLIT = Split(dataset_of(20), dataset_of(11), "test")


class StopError(Exception):
    pass


def run(folder, num_steps=None, split=SPLIT, training=TRAINING):
    """Trains, and stops after so many steps; the rows of the metrics and how many steps it took."""
    steps = []

    def check_stop():
        steps.append(len(steps))
        if len(steps) == num_steps:
            raise StopError

    metrics = Metrics(folder / "metrics.csv")
    train(0, training, split, metrics, folder / "checkpoints", check_stop)
    return metrics.rows, len(steps)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nobody stopped."""
    return run(tmp_path_factory.mktemp("whole"))


def test_halves_are_different_images_with_their_labels_and_always_the_same():
    dataset = dataset_of(11)
    split = halves(dataset)
    assert split.name == "validation"
    assert (len(split.train.images), len(split.held_out.images)) == (6, 5)
    rows = {
        image.tobytes(): label for image, label in zip(dataset.images, dataset.labels, strict=True)
    }
    parts = (split.train, split.held_out)
    assert sorted(image.tobytes() for part in parts for image in part.images) == sorted(rows)
    for part in parts:
        assert [rows[image.tobytes()] for image in part.images] == part.labels.tolist()
        assert part.num_classes == 2
    assert np.array_equal(halves(dataset).train.images, split.train.images)


def test_metrics_are_read_back_and_forget_epochs_of_a_seed(tmp_path):
    metrics = Metrics(tmp_path / "metrics.csv")
    assert metrics.rows == []
    for seed in (0, 1):
        for epoch in (1, 2):
            metrics.add({"seed": seed, "epoch": epoch, "train_loss": 0.25 * epoch})
            # Whole at any time.
            assert len(pd.read_csv(tmp_path / "metrics.csv")) == len(metrics.rows)
    again = Metrics(tmp_path / "metrics.csv")
    assert again.rows == metrics.rows
    again.keep(1, 1)
    assert [(row["seed"], row["epoch"]) for row in again.rows] == [(0, 1), (0, 2), (1, 1)]


METRICS = """seed,epoch,learning_rate,train_loss,train_accuracy,test_loss
0,1,0.1,2.302585,10,2.25
0,2,0.05,,45.25,1.5
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Reads metrics, which are numbers, or returns what they are refused with."""
    path = tmp_path_factory.mktemp("metrics") / "metrics.csv"

    def read(content):
        path.write_bytes(content)
        return refusal(check)

    def check():
        for row in Metrics(path).rows:
            assert type(row["seed"]) is type(row["epoch"]) is int
            assert {type(value) for value in row.values()} <= {int, float}

    return read


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"seed,epoch\n0,1.5\n",
        b"seed,epoch,train_loss\n0,1,2.3.5\n",
        b"seed,epoch,train_loss\n0,1,2.5\n0,2,high\n",
        b"seed,epoch,train_loss\n0,1,True\n",
        b"seed\n0\n",
        b"\xff\xfe\x00",
        b'seed,epoch\n"0,1\n',
    ],
)
def test_metrics_that_are_no_numbers_are_refused(read, content):
    assert "found something else, expected metrics of an earlier run" in read(content)


FRAGMENTS = st.sampled_from(
    [
        *(
            ",",
            "\n",
            '"',
            "'",
            ";",
            "\t",
            "\r",
            "\0",
            " ",
            "#",
            ",,",
            "\n\n",
            "\ufeff",
            "seed",
            "epoch,",
        ),
        *(
            "nan",
            "inf",
            "<NA>",
            "True",
            "x",
            "1.5",
            "-1",
            "0x10",
            "1_0",
            "1e400",
            "9" * 30,
            "1" * 5000,
        ),
    ]
)


@given(
    damaged([METRICS.encode()])
    | spliced([METRICS], FRAGMENTS).map(str.encode)
    | st.lists(FRAGMENTS, max_size=20).map("".join).map(str.encode)
    | st.binary(max_size=50)
)
@settings(deadline=None, max_examples=200)
def test_any_metrics_are_read_or_refused(read, content):
    read(content)


def test_every_epoch_has_a_row_and_every_held_out_image_counts_once(whole):
    rows, num_steps = whole
    assert num_steps == 3 * STEPS_PER_EPOCH
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:
        # Of 11 images in two mini-batches of 8, of which the second one is filled up.
        assert row["test_accuracy"] * 11 / 100 == pytest.approx(round(row["test_accuracy"] * 0.11))
        assert 0 <= row["train_accuracy"] <= 100
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


@pytest.mark.parametrize("num_steps", [1, STEPS_PER_EPOCH + 1])
def test_a_stopped_training_goes_on_from_its_last_whole_epoch(tmp_path, whole, num_steps):
    with pytest.raises(StopError):
        run(tmp_path, num_steps)
    num_epochs = num_steps // STEPS_PER_EPOCH
    assert len(Metrics(tmp_path / "metrics.csv").rows) == num_epochs
    rows, num_more = run(tmp_path)
    assert num_more == (3 - num_epochs) * STEPS_PER_EPOCH
    for row, expected in zip(rows, whole[0], strict=True):
        for name in set(expected) - {"train_seconds"}:
            # As many digits as the file has; on two devices sums may come in another order.
            assert row[name] == pytest.approx(expected[name], rel=1e-4)
    assert run(tmp_path)[1] == 0


def test_the_kept_epoch_is_the_last_or_with_patience_the_first_of_the_best():
    assert kept_epoch([50.0, 70.0, 70.0, 60.0], 0) == 4
    assert kept_epoch([50.0, 70.0, 70.0, 60.0], 2) == 2
    assert kept_epoch([], 2) == 0


def test_a_training_without_progress_ends_early_with_its_best_network(tmp_path):
    # So slow that only the running averages of batch norm change what it says.
    recipe = dataclasses.replace(TRAINING.recipe, learning_rate=1e-6, epochs=30, patience=3)
    training = dataclasses.replace(TRAINING, recipe=recipe)

    def go_on():
        metrics = Metrics(tmp_path / "metrics.csv")
        state = train(0, training, SPLIT, metrics, tmp_path / "checkpoints", lambda: None)
        right = predict(state, training, SPLIT.held_out).argmax(axis=1) == SPLIT.held_out.labels
        return [row["test_accuracy"] for row in metrics.rows], 100 * np.mean(right)

    accuracies, kept = go_on()
    best = 1 + int(np.argmax(accuracies))
    assert len(accuracies) == best + 3 < 30
    assert kept == pytest.approx(accuracies[best - 1])
    checkpoints = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert checkpoints == {best, best + 3}
    # A training that has ended early is over.
    assert go_on() == (accuracies, kept)


def test_a_stopped_training_keeps_the_same_epoch(tmp_path, monkeypatch):
    # Of 113 images: 35 / 113 is rounded down in the file of metrics, and is no better later.
    correct = iter([35, 30, 35, 30, 30, 30])
    sums = lambda *_: [Sums(jnp.float32(1), jnp.int32(next(correct)), jnp.int32(113))]  # noqa: E731
    monkeypatch.setattr(loop, "_evaluate", sums)
    recipe = dataclasses.replace(TRAINING.recipe, epochs=20, patience=2)
    training = dataclasses.replace(TRAINING, recipe=recipe)
    with pytest.raises(StopError):
        run(tmp_path, 2 * STEPS_PER_EPOCH + 1, training=training)
    rows, _ = run(tmp_path, training=training)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "3"}


def test_a_training_that_diverges_has_no_accuracy(tmp_path):
    recipe = dataclasses.replace(TRAINING.recipe, learning_rate=1e30)
    training = dataclasses.replace(TRAINING, recipe=recipe)
    message = r"seed 0, epoch [12]: the training diverged, found a loss of nan, .*\(found 1e\+30\)"
    with pytest.raises(InputError, match=message):
        run(tmp_path, training=training)
    assert all(np.isfinite(row["train_loss"]) for row in Metrics(tmp_path / "metrics.csv").rows)


def test_every_finished_epoch_is_a_line_of_the_log(tmp_path, caplog, whole):
    with caplog.at_level(logging.INFO, "epe_nas_jax.training.loop"):
        run(tmp_path)
    accuracy = whole[0][0]["train_accuracy"]
    lines = [record.getMessage() for record in caplog.records if "loop" in record.name]
    assert len(lines) == 3
    assert lines[0].startswith(
        f"seed 0, epoch 1 of 3: train_accuracy {accuracy:.2f}, test_accuracy "
    )


def test_without_held_out_images_there_are_no_metrics_of_them(tmp_path):
    rows, _ = run(tmp_path, split=SPLIT._replace(held_out=None))
    assert set(rows[0]) == {
        *("seed", "epoch", "learning_rate", "train_loss", "train_accuracy", "train_seconds")
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("test_accuracy", "test_accurac", "found no test_accuracy, expected it of an earlier run"),
        ("train_loss", "trainloss", "found no train_loss"),
        ("\n0,2,", "\n1,2,", r"found epochs \[1\] of seed 0, expected 1..2 as in checkpoints"),
        ("\n0,2,", "\n0,1,", r"found epochs \[1, 1\] of seed 0"),
    ],
)
def test_metrics_that_are_not_those_of_the_checkpoints_are_refused(tmp_path, old, new, message):
    with pytest.raises(StopError):
        run(tmp_path, 2 * STEPS_PER_EPOCH + 1)
    path = tmp_path / "metrics.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=rf"metrics\.csv: {message}"):
        run(tmp_path)
