import dataclasses
import os
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from epe_nas_jax import InputError
from epe_nas_jax.data import datasets
from epe_nas_jax.data.datasets import Dataset, draw_fixed_minibatch, load_dataset
from epe_nas_jax.data.minibatch import augment_images, draw_balanced_rows

DATA = os.environ.get("EPE_NAS_JAX_DATA", "")


def test_normalised_images_have_zero_mean_and_unit_deviation():
    digits = load_dataset("digits")
    images = digits.normalised()
    assert images.dtype == np.float32
    assert np.allclose(images.mean(axis=(0, 1, 2), dtype=np.float64), 0, atol=1e-4)
    assert np.allclose(images.std(axis=(0, 1, 2), dtype=np.float64), 1, atol=1e-4)
    assert np.allclose(images.min(axis=(0, 1, 2)), digits.black(), rtol=1e-6)


def test_the_test_split_has_the_classes_and_statistics_of_training(write_npz):
    rng = np.random.default_rng(0)
    images, tests = (rng.integers(0, top, (4, 8, 8, 3)).astype(np.uint8) for top in (256, 100))
    path = write_npz(images, x_test=tests[:2], y_test=np.array([2, 1]))
    train, test = load_dataset("npz", path), load_dataset("npz", path, split="test")
    assert np.array_equal(test.images, tests[:2])
    assert test.labels.tolist() == [2, 1]
    assert test.num_classes == train.num_classes == 4
    assert np.array_equal(test.mean, train.mean)
    assert np.array_equal(test.std, train.std)
    path = write_npz(images, x_test=tests, y_test=np.array([0, 1, 2, 4]))
    with pytest.raises(InputError, match=r"found label 4, expected 0\.\.3"):
        load_dataset("npz", path, split="test")


def test_splits_that_are_not_there_are_refused(write_npz):
    with pytest.raises(InputError, match="split: found 'valid', expected one of train, test"):
        load_dataset("cifar10", write_npz(), split="valid")
    with pytest.raises(InputError, match="expected an array 'x_test', found x_train"):
        load_dataset("cifar10", write_npz(), split="test")
    with pytest.raises(InputError, match="key 'pictures': found no 'train'"):
        load_dataset("cifar10", write_npz(), split="test", images_key="pictures")
    with pytest.raises(InputError, match="'digits': has no test split"):
        load_dataset("digits", split="test")


def by_loops(images, side):
    square = images.shape[1] // side
    rows = [
        [
            [
                image[i : i + square, j : j + square].reshape(-1, 3).mean(0)
                for j in range(0, image.shape[1], square)
            ]
            for i in range(0, image.shape[0], square)
        ]
        for image in images
    ]
    return np.rint(rows)


@pytest.mark.parametrize("name", ["npz", "cifar10"])
@pytest.mark.parametrize("side", [4, 8, 16, 32])
def test_images_are_averaged_to_any_divisor_of_their_side(write_npz, monkeypatch, name, side):
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    path = write_npz(images, np.arange(7), x_test=images[:3][::-1], y_test=np.arange(3))
    monkeypatch.setattr(datasets, "_BLOCK_PIXELS", 2 * 32 * 32)
    found = load_dataset(name, path, side=side)
    assert found.images.dtype == np.uint8
    assert np.array_equal(found.images, by_loops(images, side))
    whole = load_dataset(name, path)
    assert np.array_equal(found.labels, whole.labels)
    test = load_dataset(name, path, split="test", side=side)
    assert np.array_equal(test.images, found.images[:3][::-1])
    assert np.array_equal(test.std, found.std)
    if name == "npz":
        # Statistics are those of the smaller images; of a known data set those that are published.
        normalised = found.normalised()
        assert np.allclose(normalised.std((0, 1, 2)), 1, atol=1e-5)
    else:
        assert np.array_equal(found.std, whole.std)


def test_a_side_that_does_not_divide_the_images_is_refused(write_npz):
    path = write_npz(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8))
    for side in (12, 24, 64):
        message = rf"data\.side: found {side}, expected a multiple of 4 that divides .* 32x32"
        with pytest.raises(InputError, match=message):
            load_dataset("npz", path, side=side)
    path = write_npz(np.random.default_rng(0).integers(0, 256, (4, 16, 32, 3), np.uint8))
    with pytest.raises(InputError, match=r"data\.side: found 16, .* 32x16 pixels"):
        load_dataset("npz", path, side=16)


def test_digits_may_be_averaged():
    images = load_dataset("digits").images
    assert np.array_equal(load_dataset("digits", side=images.shape[1]).images, images)
    small = load_dataset("digits", side=4)
    assert np.array_equal(small.images[:9], by_loops(images[:9], 4))


def test_what_a_data_set_does_not_use_is_refused():
    with pytest.raises(InputError, match=r"data\.path: found 'x', expected none for digits"):
        load_dataset("digits", "x")
    for side in (-4, 30, 4100):
        with pytest.raises(
            InputError, match=rf"data\.side: found {side}, expected a multiple of 4"
        ):
            load_dataset("folder", "x", side=side)


def test_names_of_files_cannot_write_to_the_terminal(tmp_path, caplog):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "image.png")
    (tmp_path / "a" / "\x1b]0;owned\x07.txt").touch()
    load_dataset("folder", str(tmp_path))
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.isprintable()


@pytest.fixture(scope="module")
def many():
    """6,000 random images of 32x32 in ten classes: 18 MB."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6000, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, 6000).astype(np.int32)
    return Dataset(
        images,
        labels,
        tuple("0123456789"),
        np.array([0.49, 0.48, 0.45]),
        np.array([0.25, 0.24, 0.26]),
    )


def by_formula(dataset):
    """All images normalised at one time, in float64."""
    return ((dataset.images / 255 - dataset.mean) / dataset.std).astype(np.float32)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("class_balanced", [False, True])
def test_a_minibatch_is_that_of_the_normalised_data_set_bit_by_bit(augment, class_balanced):
    digits = load_dataset("digits")
    key, labels = jax.random.key(5), jnp.asarray(digits.labels)
    rows_key, augment_key = jax.random.split(key)
    if class_balanced:
        rows = draw_balanced_rows(rows_key, labels, 10, 33)
    else:
        rows = jax.random.choice(rows_key, 1797, (33,), replace=False)
    expected = jnp.asarray(by_formula(digits))[rows]
    if augment:
        black = jnp.asarray(-digits.mean / digits.std, jnp.float32)
        expected = augment_images(augment_key, expected, black)
    images, drawn = draw_fixed_minibatch(
        key, digits, 33, augment=augment, class_balanced=class_balanced
    )
    assert images.dtype == jnp.float32
    assert np.asarray(images).tobytes() == np.asarray(expected).tobytes()
    assert drawn.dtype == jnp.int32
    assert np.array_equal(drawn, digits.labels[np.asarray(rows)])


@pytest.mark.parametrize("block_pixels", [1, 5000, None])
def test_images_are_normalised_in_blocks_bit_by_bit(many, monkeypatch, block_pixels):
    if block_pixels is not None:
        monkeypatch.setattr(datasets, "_BLOCK_PIXELS", block_pixels)
    some = dataclasses.replace(many, images=many.images[:1001])
    expected = by_formula(some)
    assert some.normalised().tobytes() == expected.tobytes()
    rows = np.array([1000, 3, 3, 700])
    assert some.normalised(rows).tobytes() == expected[rows].tobytes()


@pytest.mark.parametrize("block_pixels", [1, 5000, None])
def test_statistics_are_numpys_bit_by_bit(many, write_npz, monkeypatch, block_pixels):
    if block_pixels is not None:
        monkeypatch.setattr(datasets, "_BLOCK_PIXELS", block_pixels)
    images = many.images[:1001]
    own = load_dataset("npz", write_npz(images, many.labels[:1001]))
    assert own.mean.tolist() == (images.mean((0, 1, 2)) / 255).tolist()
    assert own.std.tolist() == (images.std((0, 1, 2)) / 255).tolist()


def peak_bytes(function):
    """The most memory that Python and NumPy hold for a call beyond what they held before."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_only_the_images_of_a_minibatch_are_normalised(many):
    def draw():
        return draw_fixed_minibatch(jax.random.key(0), many, 32, augment=True, class_balanced=True)

    draw()  # Compiles.
    assert peak_bytes(draw) < many.images.nbytes / 4


def test_no_float64_copy_of_all_images_is_made(many, write_npz):
    size = many.images.size
    assert peak_bytes(lambda: by_formula(many)) > 12 * size
    assert peak_bytes(many.normalised) < 6 * size
    path = write_npz(many.images, many.labels)
    assert peak_bytes(lambda: load_dataset("npz", path)) < 4 * size


@pytest.mark.parametrize("batch_size", [1, 0, 1798])
def test_a_minibatch_that_cannot_be_drawn_is_refused(batch_size):
    digits = load_dataset("digits")
    with pytest.raises(InputError, match=rf"batch_size: found {batch_size}, expected 2\.\.1797"):
        draw_fixed_minibatch(jax.random.key(0), digits, batch_size, augment=False)


def test_class_balanced_minibatch_of_a_lopsided_data_set():
    digits = load_dataset("digits")
    rows = np.flatnonzero((digits.labels < 5) | (np.arange(1797) < 40))
    lopsided = dataclasses.replace(digits, images=digits.images[rows], labels=digits.labels[rows])
    key = jax.random.key(0)
    _, labels = draw_fixed_minibatch(key, lopsided, 30, augment=False, class_balanced=True)
    assert np.bincount(labels).tolist() == [3] * 10
    _, labels = draw_fixed_minibatch(key, lopsided, 30, augment=False)
    assert np.bincount(labels, minlength=10).max() > 3


def test_constant_images_are_not_divided_by_zero(write_npz):
    assert np.array_equal(load_dataset("npz", write_npz()).normalised(), np.zeros((4, 8, 8, 3)))


@pytest.mark.skipif(not DATA, reason="EPE_NAS_JAX_DATA does not name a folder of real images")
def test_real_cifar10_subset():
    cifar = load_dataset("cifar10", f"{DATA}/cifar10_subset.npz")
    assert cifar.images.shape == (5085, 32, 32, 3)
    assert np.allclose(cifar.normalised().mean((0, 1, 2)), 0, atol=0.05)
    assert (
        load_dataset("cifar10", f"{DATA}/cifar10_subset.npz", split="test").images.shape[0] == 1017
    )
