"""Labelled images from an `.npz` file: arrays by name, as NumPy saves them."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from epe_nas_jax.errors import InputError


def read_npz(path: Path, images_key: str, labels_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads images and labels from an `.npz` file.

    Args:
      path: the file.
      images_key: name of the images, `[M, H, H, 3]`, whole numbers 0..255 of any dtype.
      labels_key: name of their labels, integers `[M]`.

    Returns:
      Images, uint8 `[M, H, H, 3]`, and labels, integers `[M]`.

    Raises:
      InputError: the file is missing or broken, or one of the arrays is missing or of another
        shape or dtype.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for key in (images_key, labels_key):
                if key not in archive:
                    found = ", ".join(archive)
                    raise InputError(f"{path}: expected an array {key!r}, found {found}")
            images, labels = archive[images_key], archive[labels_key]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: not a readable archive or .npz file ({error})".splitlines()[0]
        ) from None

    images = _as_bytes(images, f"{path}, {images_key}")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{path}, {labels_key}: found {labels.dtype} of shape {labels.shape}, "
            "expected integers [images]"
        )
    if len(images) != len(labels):
        raise InputError(f"{path}: found {len(images)} images and {len(labels)} labels")
    return images, labels


def key_of_split(key: str, split: str) -> str:
    """The name of a split's array, made from that of the training split's.

    Args:
      key: of the training split, as `"x_train"`.
      split: `"train"` or `"test"`, which takes the place of `train` in the name.

    Raises:
      InputError: there is no `train` in the name to replace.
    """
    if split != "train" and "train" not in key:
        raise InputError(f"key {key!r}: found no 'train' in it, expected one to name {split!r} by")
    return key.replace("train", split)


def has_test_array(path: Path, images_key: str) -> bool:
    """Whether a readable `.npz` file has images of the test split beside `images_key`."""
    with np.load(path, allow_pickle=False) as archive:
        return "train" in images_key and key_of_split(images_key, "test") in archive


def _as_bytes(images: np.ndarray, where: str) -> np.ndarray:
    """Images of any dtype whose pixels are whole numbers 0..255, as uint8."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype.kind not in "uif":
        raise InputError(
            f"{where}: found {images.dtype} of shape {images.shape}, "
            "expected uint8 [images, side, side, 3]"
        )
    if not images.size:
        raise InputError(f"{where}: found shape {images.shape}, expected images")
    if images.dtype == np.uint8:
        return images
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):
        raise InputError(f"{where}: found pixels from {low} to {high}, expected 0..255")
    pixels = images.astype(np.uint8)
    if not np.array_equal(pixels, images):
        raise InputError(
            f"{where}: found {images.dtype} pixels from {low} to {high} that are no whole numbers, "
            "expected whole numbers 0..255"
        )
    return pixels
