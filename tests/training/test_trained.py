"""A trained network: from the work directory of its training to predictions."""

import json
import shutil

import numpy as np
import pytest
import torch
from refusals import refusal
from trained_runs import ARCH, SIDE, held_out, noise

from epe_nas_jax import load_trained
from epe_nas_jax.training import trained as module

# The sums of a batch and of a single image are rounded alike: it is the same program.
CLOSE = {"rtol": 1e-6, "atol": 1e-9}


@pytest.fixture(scope="module")
def trained(trained_run):
    return load_trained(trained_run)


def test_raw_images_are_told_apart_as_the_training_measured(trained_run, trained):
    images = held_out()
    probabilities = trained.predict(images.images)
    assert probabilities.shape == (len(images.images), 10)
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(1), 1, rtol=1e-5)
    accuracy = 100 * np.mean(probabilities.argmax(1) == images.labels)
    summary = json.loads((trained_run / "summary.json").read_text())
    # As the file of metrics has it, with seven digits.
    assert accuracy == pytest.approx(summary["accuracy"][0], abs=1e-5)
    # It learned something, and does not say one class of all.
    assert accuracy > 15
    assert len(set(probabilities.argmax(1))) > 1


def test_classes_and_cell_are_those_of_the_training(trained):
    assert trained.class_names == tuple("0123456789")
    assert (trained.arch, trained.side, trained.seed) == (ARCH, SIDE, 0)


def test_any_number_of_images_is_one_program(trained):
    images = noise(130)
    module._probabilities.clear_cache()
    expected = trained.predict(images)
    for num_images in (1, 63, 64, 65, 128):
        found = trained.predict(images[:num_images])
        assert np.allclose(found, expected[:num_images], **CLOSE)
    assert module._probabilities._cache_size() == 1


def test_pixels_of_any_dtype_and_library(trained):
    images = noise(3)
    expected = trained.predict(images)
    for same in (images.astype(np.float64), torch.tensor(images), images.tolist()):
        assert np.array_equal(trained.predict(same), expected)
    grey = images[..., :1]
    as_colour = trained.predict(np.repeat(grey, 3, axis=-1))
    for same in (grey, grey[..., 0]):
        assert np.array_equal(trained.predict(same), as_colour)
    # Bytes may be of a dark image.
    assert trained.predict(np.ones((1, SIDE, SIDE, 3), np.uint8)).shape == (1, 10)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (noise(2, 12), "found 12x12 pixels, expected 8x8 as in training"),
        (noise(2)[:, :, :4], "found 4x8 pixels, expected 8x8"),
        (noise(2).transpose(0, 3, 1, 2), "found channels first"),
        (noise(2)[0, 0], "found uint8 of shape (8, 3)"),
        (noise(2)[:0], "expected images"),
        (noise(2) / 255, "that are no whole numbers"),
        (np.ones((1, SIDE, SIDE, 3)), "found pixels that are all 0 or 1"),
        (np.full((1, SIDE, SIDE, 3), np.nan), "found pixels from nan"),
        (noise(2) - 200.0, "expected 0..255"),
        ("photo.png", "found a str"),
    ],
)
def test_other_images_are_refused(trained, images, message):
    assert message in refusal(lambda: trained.predict(images))


def test_a_seed_is_chosen(trained_run, trained):
    other = load_trained(trained_run, seed=1)
    assert other.seed == 1
    assert not np.allclose(other.predict(noise(2)), trained.predict(noise(2)), atol=0.01)
    for seed in (2, -1):
        message = refusal(lambda seed=seed: load_trained(trained_run, seed=seed))
        assert message == f"seed: found {seed}, expected one that was trained: 0, 1"


def test_loading_writes_nothing(trained_run):
    def contents():
        return {path: path.stat().st_mtime_ns for path in trained_run.rglob("*")}

    before = contents()
    load_trained(trained_run)
    assert contents() == before


def changed(path, **values):
    """Rewrites a JSON file with other values."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def other_config(copy, **values):
    config = json.loads((copy / "config.json").read_text())["config"]
    changed(copy / "config.json", config=config | values)


def other_cell(copy, arch):
    other_config(copy, arch=arch)
    changed(copy / "summary.json", arch=arch)


def damage(path):
    path.write_bytes(path.read_bytes()[:20])


DAMAGES = {
    "no directory": (shutil.rmtree, "found nothing, expected the work directory of a finished"),
    "no training": (
        lambda copy: [shutil.rmtree(copy), copy.mkdir()],
        "found no config.json, expected the work directory of a finished training",
    ),
    "a search": (
        lambda copy: shutil.rmtree(copy / "checkpoints"),
        "found no checkpoints, expected the work directory of a finished training",
    ),
    "unfinished": (
        lambda copy: (copy / "summary.json").unlink(),
        "found an unfinished training, expected a finished one",
    ),
    "no last checkpoint": (
        lambda copy: shutil.rmtree(copy / "checkpoints/seed_0/1"),
        "seed_0: found none, expected the checkpoint of epoch 1",
    ),
    "a damaged checkpoint": (
        lambda copy: damage(copy / "checkpoints/seed_0/1/default/_METADATA"),
        "seed_0: not readable",
    ),
    "damaged weights": (
        lambda copy: [damage(f) for f in (copy / "checkpoints").rglob("d/*") if f.is_file()],
        "seed_0: not readable",
    ),
    "another cell in config.json": (
        lambda copy: other_config(copy, arch=ARCH.replace("avg_pool_3x3", "none")),
        "arch: found |nor_conv_1x1~0|+|none~0|none~1|+|none~0|",
    ),
    "weights of another cell": (
        lambda copy: other_cell(copy, ARCH.replace("nor_conv_1x1", "skip_connect")),
        f"epoch 1: found {ARCH}, expected the cell |skip_connect~0|",
    ),
    "a cell of the same weights": (
        lambda copy: other_cell(copy, ARCH.replace("avg_pool_3x3", "skip_connect")),
        f"epoch 1: found {ARCH}, expected the cell |nor_conv_1x1~0|+|none~0|none~1|+|skip_connect",
    ),
    "another size": (
        lambda copy: other_config(copy, network={"channels": 5, "cells_per_stage": 1}),
        "found shape (4,), expected shape (5,)",
    ),
    "no size": (
        lambda copy: other_config(copy, network={"channels": 0, "cells_per_stage": 1}),
        "found config.json and summary.json of something else",
    ),
    "another space": (
        lambda copy: other_config(copy, space={"name": "darts"}),
        "space.name: found 'darts', expected nasbench201 for training",
    ),
    "no cell": (lambda copy: other_cell(copy, "conv"), "arch string 'conv'"),
    "a config of something else": (
        lambda copy: (copy / "config.json").write_text("[]"),
        "holds a config.json of something else",
    ),
    **{
        f"summary, {name}": (
            lambda copy, name=name, value=value: changed(copy / "summary.json", **{name: value}),
            "found config.json and summary.json of something else",
        )
        for name, value in (
            ("class_names", "ten"),
            ("seeds", []),
            ("mean", [0.5]),
            ("std", [None] * 3),
            ("side", "8"),
        )
    },
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_finished_training_is_refused(trained_run, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(trained_run, copy)
    change, message = DAMAGES[damage]
    change(copy)
    assert message in refusal(lambda: load_trained(copy))


def test_a_file_or_a_url_is_no_work_directory(tmp_path):
    (tmp_path / "file").write_text("")
    assert "found a file, expected the work" in refusal(lambda: load_trained(tmp_path / "file"))
    assert "found a URL" in refusal(lambda: load_trained("gs://bucket/run"))
