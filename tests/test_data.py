import dataclasses
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from epe_nas_jax import InputError
from epe_nas_jax.data import draw_fixed_minibatch, load_dataset

DATA = os.environ.get("EPE_NAS_JAX_DATA", "")


@pytest.fixture
def write(tmp_path):
    def write(images=None, labels=None, **others):
        images = np.zeros((4, 8, 8, 3), np.uint8) if images is None else images
        labels = np.arange(4) if labels is None else labels
        path = tmp_path / "images.npz"
        np.savez(path, x_train=images, y_train=labels, **others)
        return str(path)

    return write


def test_digits_are_32_pixel_colour_images_of_every_class():
    digits = load_dataset("digits")
    assert digits.images.shape == (1797, 32, 32, 3)
    assert digits.images.dtype == np.uint8
    assert digits.images.max() == 255
    assert digits.num_classes == 10
    assert set(digits.labels.tolist()) == set(range(10))
    # One source pixel is a block of 4x4.
    blocks = digits.images.reshape(1797, 8, 4, 8, 4, 3)
    assert np.array_equal(blocks.min(axis=(2, 4)), blocks.max(axis=(2, 4)))


def test_normalised_images_have_zero_mean_and_unit_deviation():
    digits = load_dataset("digits")
    images = digits.normalised()
    assert images.dtype == np.float32
    assert np.allclose(images.mean(axis=(0, 1, 2), dtype=np.float64), 0, atol=1e-4)
    assert np.allclose(images.std(axis=(0, 1, 2), dtype=np.float64), 1, atol=1e-4)
    assert np.allclose(images.min(axis=(0, 1, 2)), digits.black(), rtol=1e-6)


def test_npz_of_your_own(write):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    path = write(images, pictures=images[:2], kinds=np.array([0, 6]))
    own = load_dataset("npz", path)
    assert np.array_equal(own.images, images)
    assert own.num_classes == 4
    assert np.allclose(own.mean, images.mean((0, 1, 2)) / 255)
    other = load_dataset("npz", path, images_key="pictures", labels_key="kinds")
    assert len(other.images) == 2
    assert other.num_classes == 7


def test_pixels_of_another_dtype_are_taken_if_whole(write):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3))
    for dtype in (np.float32, np.float64, np.int64):
        own = load_dataset("npz", write(images.astype(dtype)))
        assert own.images.dtype == np.uint8
        assert np.array_equal(own.images, images)


def test_the_test_split_has_the_classes_and_statistics_of_training(write):
    rng = np.random.default_rng(0)
    images, tests = (rng.integers(0, top, (4, 8, 8, 3)).astype(np.uint8) for top in (256, 100))
    path = write(images, x_test=tests[:2], y_test=np.array([2, 1]))
    train, test = load_dataset("npz", path), load_dataset("npz", path, split="test")
    assert np.array_equal(test.images, tests[:2])
    assert test.labels.tolist() == [2, 1]
    assert test.num_classes == train.num_classes == 4
    assert np.array_equal(test.mean, train.mean)
    assert np.array_equal(test.std, train.std)
    path = write(images, x_test=tests, y_test=np.array([0, 1, 2, 4]))
    with pytest.raises(InputError, match=r"found label 4, expected 0\.\.3"):
        load_dataset("npz", path, split="test")


def test_splits_that_are_not_there_are_refused(write):
    with pytest.raises(InputError, match="split: found 'valid', expected one of train, test"):
        load_dataset("cifar10", write(), split="valid")
    with pytest.raises(InputError, match="expected an array 'x_test', found x_train"):
        load_dataset("cifar10", write(), split="test")
    with pytest.raises(InputError, match="key 'pictures': found no 'train'"):
        load_dataset("cifar10", write(), split="test", images_key="pictures")
    with pytest.raises(InputError, match="'digits': has no test split"):
        load_dataset("digits", split="test")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar100", "cifar-100-binary.tar.gz from https://www.cs.toronto.edu/~kriz/"),
        ("imagenet16_120", "Imagenet16_train.zip, the downsampled ImageNet of image-net.org"),
        ("npz", "an .npz file"),
        ("folder", "a folder of images by class"),
    ],
)
def test_without_a_path_what_to_get_is_said(name, expected):
    with pytest.raises(InputError, match=f"found nothing, expected the path of {expected}"):
        load_dataset(name)


def test_only_the_cifars_can_be_downloaded():
    with pytest.raises(InputError, match=r"data.download: found True, .* imagenet16_120 has no"):
        load_dataset("imagenet16_120", download=True)


def test_class_balanced_minibatch_of_a_lopsided_data_set():
    digits = load_dataset("digits")
    rows = np.flatnonzero((digits.labels < 5) | (np.arange(1797) < 40))
    lopsided = dataclasses.replace(digits, images=digits.images[rows], labels=digits.labels[rows])
    key = jax.random.key(0)
    _, labels = draw_fixed_minibatch(key, lopsided, 30, augment=False, class_balanced=True)
    assert np.bincount(labels).tolist() == [3] * 10
    _, labels = draw_fixed_minibatch(key, lopsided, 30, augment=False)
    assert np.bincount(labels, minlength=10).max() > 3


def test_known_data_sets_bring_their_classes_and_statistics(write):
    cifar = load_dataset("cifar100", write())
    assert cifar.num_classes == 100
    assert np.allclose(cifar.mean, [129.3 / 255, 124.1 / 255, 112.4 / 255])


def test_constant_images_are_not_divided_by_zero(write):
    assert np.array_equal(load_dataset("npz", write()).normalised(), np.zeros((4, 8, 8, 3)))


def test_unknown_name_is_refused():
    with pytest.raises(InputError, match="'mnist': unknown, expected one of digits, cifar10"):
        load_dataset("mnist")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"images": np.full((4, 8, 8, 3), 0.5)},
            "x_train: found float64 pixels from 0.5 to 0.5 that are no whole numbers",
        ),
        ({"images": np.full((4, 8, 8, 3), 255.5)}, r"found pixels from 255.5 to 255.5, expected 0"),
        ({"images": np.full((4, 8, 8, 3), -1)}, r"found pixels from -1 to -1, expected 0\.\.255"),
        ({"images": np.full((4, 8, 8, 3), np.nan)}, "found pixels from nan to nan"),
        ({"images": np.zeros((4, 8, 8, 3), bool)}, "x_train: found bool"),
        ({"images": np.zeros((4, 8, 8, 3), object)}, "not a readable archive or .npz"),
        ({"images": np.zeros((4, 3, 8, 8), np.uint8)}, r"of shape \(4, 3, 8, 8\)"),
        ({"images": np.zeros((4, 8, 8), np.uint8)}, r"x_train: found uint8 of shape \(4, 8, 8\)"),
        ({"labels": np.zeros(4)}, "y_train: found float64"),
        ({"labels": np.zeros((4, 1), int)}, "y_train: found int64 of shape"),
        ({"labels": np.zeros(3, int)}, "found 4 images and 3 labels"),
        ({"labels": np.array([0, 1, 2, 10])}, "found label 10, expected 0..9"),
        ({"labels": np.array([0, 1, 2, -1])}, "found label -1, expected 0..9"),
        ({"labels": np.array([{}, 1, 2, 3])}, "not a readable archive or .npz file"),
        (
            {"images": np.zeros((0, 8, 8, 3), np.uint8), "labels": np.zeros(0, int)},
            "expected images",
        ),
    ],
)
def test_bad_arrays_are_refused(write, arrays, message):
    with pytest.raises(InputError, match=message):
        load_dataset("cifar10", write(**arrays))


def test_bad_files_are_refused(write, tmp_path):
    with pytest.raises(
        InputError, match=r"found nothing, expected the path of cifar-10-binary.tar.gz from https"
    ):
        load_dataset("cifar10")
    with pytest.raises(InputError, match="no such file"):
        load_dataset("cifar10", str(tmp_path / "missing.npz"))
    path = Path(write())
    with pytest.raises(InputError, match="expected an array 'x_test', found x_train, y_train"):
        load_dataset("cifar10", str(path), images_key="x_test")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not a readable"):
        load_dataset("cifar10", str(path))
    path.write_text("just text")
    with pytest.raises(InputError, match="not a readable"):
        load_dataset("cifar10", str(path))
    with pytest.raises(InputError, match="found nothing of the train split of cifar10"):
        load_dataset("cifar10", str(tmp_path))
    with pytest.raises(InputError, match="not a readable"):
        load_dataset("npz", str(tmp_path))


def test_a_single_array_file_is_refused(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(InputError, match="not a readable"):
        load_dataset("cifar10", str(path))


@pytest.mark.skipif(not DATA, reason="EPE_NAS_JAX_DATA does not name a folder of real images")
def test_real_cifar10_subset():
    cifar = load_dataset("cifar10", f"{DATA}/cifar10_subset.npz")
    assert cifar.images.shape == (5085, 32, 32, 3)
    assert np.allclose(cifar.normalised().mean((0, 1, 2)), 0, atol=0.05)
    assert (
        load_dataset("cifar10", f"{DATA}/cifar10_subset.npz", split="test").images.shape[0] == 1017
    )
