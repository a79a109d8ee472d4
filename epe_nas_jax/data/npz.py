"""Labelled images from an `.npz` file: arrays by name, as NumPy saves them."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from epe_nas_jax.data.files import regular_file
from epe_nas_jax.data.labelled import Labelled, colour_bytes, integer_labels
from epe_nas_jax.errors import InputError

_NPY = b"\x93NUMPY"
# Names of the training split's images and labels: our defaults, as Keras has them, then MedMNIST's.
_KEYS = (("x_train", "y_train"), ("train_images", "train_labels"))


def read_npz(path: Path, images_key: str, labels_key: str, split: str) -> Labelled:
    """Reads images and labels of a split from an `.npz` file.

    Args:
      path: the file.
      images_key: name of the training images, as for `colour_bytes`. If it and `labels_key` are the
        defaults and the file lacks them, MedMNIST's `train_images` and `train_labels` are read.
      labels_key: name of their labels, as for `integer_labels`.
      split: `"train"` or `"test"`, which takes the place of `train` in the names.

    Raises:
      InputError: the file is missing or broken, or one of the arrays is missing or of another
        shape or dtype.
    """
    file = regular_file(path, "an .npz file")
    try:
        with file.open("rb") as opened:
            if opened.read(len(_NPY)) == _NPY:
                raise InputError(
                    f"{path}: found an .npy file of one array, expected an .npz file of "
                    "images and labels (numpy.savez)"
                )
            opened.seek(0)
            archive = np.load(opened, allow_pickle=False)
            keys = _keys_of_split(archive, images_key, labels_key, split)
            for key in keys:
                if key not in archive:
                    found = ", ".join(archive)
                    raise InputError(f"{path}: expected an array {key!r}, found {found}")
            images, labels = (_read_array(archive, key) for key in keys)
    except InputError:
        raise
    # NumPy and the parsers beneath it can raise any exception on a damaged file.
    except Exception as error:
        raise InputError(f"{path}: not a readable archive or .npz file ({error})") from None

    images = colour_bytes(images, f"{path}, {keys[0]}")
    labels = integer_labels(labels, f"{path}, {keys[1]}")
    if len(images) != len(labels):
        raise InputError(f"{path}: found {len(images)} images and {len(labels)} labels")
    return Labelled(images, labels)


def key_of_split(key: str, split: str) -> str:
    """The name of a split's array, made from the name of the training split's array.

    Args:
      key: name for the training split, such as `"x_train"`.
      split: `"train"` or `"test"`, which takes the place of `train` in the name.

    Raises:
      InputError: there is no `train` in the name to replace.
    """
    if split != "train" and "train" not in key:
        raise InputError(f"key {key!r}: found no 'train' in it, expected one to name {split!r} by")
    return key.replace("train", split)


def has_test_array(path: Path, images_key: str, labels_key: str) -> bool:
    """Whether a readable `.npz` file has images of the test split beside `images_key`."""
    with np.load(path, allow_pickle=False) as archive:
        images_key, _ = _known_keys(archive, images_key, labels_key)
        return "train" in images_key and key_of_split(images_key, "test") in archive


def _read_array(archive: Mapping[str, Any], key: str) -> np.ndarray:
    array = archive[key]
    # NumPy returns bytes for a member that does not begin as an array does.
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{key} is no array")
    return array


def _keys_of_split(
    archive: Collection[str], images_key: str, labels_key: str, split: str
) -> tuple[str, str]:
    images_key, labels_key = _known_keys(archive, images_key, labels_key)
    return key_of_split(images_key, split), key_of_split(labels_key, split)


def _known_keys(archive: Collection[str], images_key: str, labels_key: str) -> tuple[str, str]:
    """The given names or, if they are the defaults and the file lacks them, other known ones."""
    given = images_key, labels_key
    if given != _KEYS[0] or given[0] in archive:
        return given
    return next((keys for keys in _KEYS if set(keys) <= set(archive)), given)
