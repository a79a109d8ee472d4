import os
from pathlib import Path

import numpy as np
import pytest

from epe_nas_jax import InputError
from epe_nas_jax.data import load_dataset

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
        ({"images": np.zeros((4, 8, 8, 3))}, "x_train: found float64"),
        ({"images": np.zeros((4, 8, 8), np.uint8)}, r"x_train: found uint8 of shape \(4, 8, 8\)"),
        ({"labels": np.zeros(4)}, "y_train: found float64"),
        ({"labels": np.zeros((4, 1), int)}, "y_train: found int64 of shape"),
        ({"labels": np.zeros(3, int)}, "found 4 images and 3 labels"),
        ({"labels": np.array([0, 1, 2, 10])}, "found label 10, expected 0..9"),
        ({"labels": np.array([0, 1, 2, -1])}, "found label -1, expected 0..9"),
        ({"labels": np.array([{}, 1, 2, 3])}, "not a readable .npz file"),
        (
            {"images": np.zeros((0, 8, 8, 3), np.uint8), "labels": np.zeros(0, int)},
            "the data set is empty",
        ),
    ],
)
def test_bad_arrays_are_refused(write, arrays, message):
    with pytest.raises(InputError, match=message):
        load_dataset("cifar10", write(**arrays))


def test_bad_files_are_refused(write, tmp_path):
    with pytest.raises(InputError, match="found nothing, expected the path"):
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
    with pytest.raises(InputError, match="not a readable"):
        load_dataset("cifar10", str(tmp_path))


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
