from pathlib import Path

import numpy as np
import pytest

from epe_nas_jax import InputError
from epe_nas_jax.data.datasets import load_dataset
from epe_nas_jax.data.npz import has_test_array, key_of_split


def test_npz_of_your_own(write_npz):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    path = write_npz(images, pictures=images[:2], kinds=np.array([0, 6]))
    own = load_dataset("npz", path)
    assert np.array_equal(own.images, images)
    assert own.num_classes == 4
    assert np.allclose(own.mean, images.mean((0, 1, 2)) / 255)
    other = load_dataset("npz", path, images_key="pictures", labels_key="kinds")
    assert len(other.images) == 2
    assert other.num_classes == 7


def test_pixels_of_another_dtype_are_taken_if_whole(write_npz):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3))
    for dtype in (np.float32, np.float64, np.int64):
        own = load_dataset("npz", write_npz(images.astype(dtype)))
        assert own.images.dtype == np.uint8
        assert np.array_equal(own.images, images)


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
def test_bad_arrays_are_refused(write_npz, arrays, message):
    with pytest.raises(InputError, match=message):
        load_dataset("cifar10", write_npz(**arrays))


def test_bad_files_are_refused(write_npz, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_dataset("cifar10", str(tmp_path / "missing.npz"))
    path = Path(write_npz())
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


def test_the_test_split_is_told_by_its_array(write_npz):
    assert key_of_split("x_train", "test") == "x_test"
    assert key_of_split("pictures", "train") == "pictures"
    images = np.zeros((4, 8, 8, 3), np.uint8)
    path = Path(write_npz(x_test=images))
    assert has_test_array(path, "x_train")
    assert not has_test_array(path, "x_test")
    assert not has_test_array(path, "train_pictures")
