"""Labelled images as readers return them, and checks and conversions of users' arrays."""

from typing import NamedTuple

import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.layers.checks import check_channels_last

_COLOURS = 3


class Labelled(NamedTuple):
    """The images of a split and their labels.

    Attributes:
      images: uint8 `[M, H, H, 3]`.
      labels: integers `[M]`.
      notes: lines that tell the user how the images were read.
      class_names: the names of the classes 0..K-1, of the training split; empty if they have none.
    """

    images: np.ndarray
    labels: np.ndarray
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()


def colour_bytes(images: np.ndarray, where: str) -> np.ndarray:
    """Converts images to colour images of bytes; grey ones get three equal channels.

    Args:
      images: `[M, H, W, 3]`, `[M, H, W, 1]` or `[M, H, W]`, whole numbers 0..255 of any dtype.
      where: what they are, for messages.

    Returns:
      uint8 `[M, H, W, 3]`.

    Raises:
      InputError: the shape, the dtype or a pixel is another one; if the channels come first, the
        message says how to move them.
    """
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim == 4:
        check_channels_last(images.shape, where)
    if images.ndim != 4 or images.shape[-1] not in (1, _COLOURS) or images.dtype.kind not in "uif":
        raise InputError(
            f"{where}: found {images.dtype} of shape {images.shape}, "
            "expected uint8 [images, side, side, 3], or grey ones"
        )
    if not images.size:
        raise InputError(f"{where}: found shape {images.shape}, expected images")
    pixels = images if images.dtype == np.uint8 else _whole(images, where)
    return np.repeat(pixels, _COLOURS, axis=-1) if images.shape[-1] == 1 else pixels


def integer_labels(labels: np.ndarray, where: str) -> np.ndarray:
    """Converts labels `[M]`, `[M, 1]` or one-hot `[M, K]` to one integer per image, `[M]`.

    Args:
      labels: integers, or one-hot rows of any dtype: zeros and a single one.
      where: what they are, for messages.

    Raises:
      InputError: they are something else.
    """
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "buif":
        is_one = labels == 1
        if len(labels) and (is_one | (labels == 0)).all() and (is_one.sum(axis=1) == 1).all():
            return np.argmax(is_one, axis=1)
    column = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if column.ndim != 1 or column.dtype.kind not in "iu":
        raise InputError(
            f"{where}: found {labels.dtype} of shape {labels.shape}, "
            "expected integers [images], or a single 1 a row"
        )
    return column


def check_brightness(images: np.ndarray, where: str) -> None:
    """Checks that some pixel is above 1: otherwise white is probably 1 instead of 255.

    Args:
      images: uint8 `[M, H, W, 3]`.
      where: what they are, for messages.

    Raises:
      InputError: the largest pixel is 1.
    """
    if images.max(initial=0) == 1:
        raise InputError(
            f"{where}: found pixels that are all 0 or 1, expected 0..255 "
            "(multiply by 255 if 1 is white)"
        )


def number_classes(train_labels: np.ndarray, where: str) -> tuple[np.ndarray, str]:
    """Finds the classes of a user's data set, whose ids may have gaps.

    Args:
      train_labels: ids of the images' classes, integers `[M]`.
      where: what they are, for messages.

    Returns:
      The ids in ascending order, `[K]`, and a line that tells the user which classes they become;
      it is empty if the ids are 0..K-1.

    Raises:
      InputError: an id is negative, which often marks an image without a label.
    """
    ids = np.unique(train_labels)
    last = len(ids) - 1
    if int(ids[0]) < 0:
        raise InputError(f"{where}: found label {ids[0]}, expected 0 or more")
    if int(ids[-1]) == last:
        return ids, ""
    found = f"found {len(ids)} different labels from {ids[0]} to {ids[-1]}"
    return ids, f"{where}: {found}, which are classes 0..{last} in this order"


def _whole(images: np.ndarray, where: str) -> np.ndarray:
    """Images of any dtype whose pixels are whole numbers 0..255, as uint8."""
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):
        raise InputError(f"{where}: found pixels from {low} to {high}, expected 0..255")
    pixels = images.astype(np.uint8)
    if not np.array_equal(pixels, images):
        raise InputError(
            f"{where}: found {images.dtype} pixels from {low} to {high} that are no whole numbers, "
            "expected whole numbers 0..255" + (" (multiply by 255)" if high <= 1 else "")
        )
    return pixels
