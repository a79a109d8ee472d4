"""Checks images and labels that a user passes in."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.arrays import Array, is_integer
from epe_nas_jax.errors import InputError

_CHANNELS = (1, 3)


def check_images(images: Array) -> None:
    """Checks that images have a form that every network accepts.

    Raises:
      InputError: not floating `[N, H, H, 3]` with H a multiple of 4.
    """
    if images.ndim != 4:
        raise InputError(f"images: found rank {images.ndim}, expected 4: [images, side, side, 3]")
    check_channels_last(images.shape, "images")
    _, height, width, _ = images.shape
    if height != width or height % 4 or height == 0:
        raise InputError(
            f"images: found {height}x{width} pixels, expected a square with a side divisible by 4"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"images: found dtype {images.dtype}, expected floating point")


def check_channels_last(shape: tuple[int, ...], where: str) -> None:
    """Checks that images, an array of rank 4, do not have their channels first, as in PyTorch.

    Args:
      shape: shape of the images.
      where: what the images are, for messages.

    Raises:
      InputError: they have their channels first; the message says how to change it.
    """
    _, first, height, last = shape
    if first in _CHANNELS and height == last and last not in _CHANNELS:
        raise InputError(
            f"{where}: found channels first, {tuple(shape)}, expected them last: "
            "turn them with images.transpose(0, 2, 3, 1)"
        )


def check_minibatch(images: Array, labels: Array, num_classes: int | None) -> int:
    """Checks a mini-batch, images `[N, H, W, 3]` and labels `[N]`.

    Args:
      images: the images.
      labels: classes 0..K-1.
      num_classes: K; None: one more than the largest label.

    Returns:
      K.

    Raises:
      InputError: as `check_images` and `check_labels`.
    """
    check_images(images)
    return check_labels(images, labels, num_classes)


def check_labels(images: Array, labels: Array, num_classes: int | None) -> int:
    """Checks the labels `[N]` of images `[N, ...]` of any shape.

    Args:
      images: the images, of which there are at least two.
      labels: classes 0..K-1.
      num_classes: K; None: one more than the largest label, with a warning if some class up to
        there has no image.

    Returns:
      K.

    Raises:
      InputError: wrong rank, dtype or number of labels, NaN or infinite pixels, labels out of
        range; or K is not given, and most classes up to the largest label have no image.
    """
    if len(images) < 2:
        raise InputError(f"images: found {len(images)}, expected at least 2 to correlate")
    check_label_array(labels, len(images))
    if not np.isfinite(np.asarray(images)).all():
        raise InputError("images: found NaN or infinite pixels, expected finite values")
    if num_classes is None:
        num_classes = _count_classes(labels)
    check_label_range(labels, num_classes)
    return num_classes


def check_label_array(labels: Array, num_images: int) -> None:
    """Checks that labels are integers `[N]`, one per image; they may be traced.

    Raises:
      InputError: wrong rank, dtype or number of labels.
    """
    if labels.ndim != 1 or not is_integer(labels):
        raise InputError(
            f"labels: found {labels.dtype} of shape {labels.shape}, expected integers [images]"
        )
    if len(labels) != num_images:
        raise InputError(f"labels: found {len(labels)}, expected {num_images}, one per image")


def check_label_range(labels: Array, num_classes: int) -> None:
    """Checks that labels `[N]` are 0..K-1; traced labels have no values yet and pass.

    Raises:
      InputError: a label is out of range.
    """
    if isinstance(labels, jax.core.Tracer) or not len(labels):
        return
    # In NumPy: inside a traced function, JAX would trace this even for known arrays.
    known = np.asarray(labels)
    low, high = int(known.min()), int(known.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise InputError(f"labels: found {wrong}, expected 0..{num_classes - 1}")


def _count_classes(labels: Array) -> int:
    """One more than the largest label, if this is likely the number of classes."""
    found = np.unique(labels)
    num_classes = max(int(found[-1]) + 1, 1)
    facts = f"labels: found {len(found)} different ones from {found[0]} to {found[-1]}"
    advice = "network=NasBench201Network(num_classes) says how many classes there are"
    if 2 * len(found) < num_classes:
        raise InputError(
            f"{facts}, expected classes 0..K-1: number them anew with "
            f"numpy.unique(labels, return_inverse=True)[1], or {advice}"
        )
    if len(found) < num_classes and found[0] >= 0:
        warnings.warn(f"{facts}, taken as {num_classes} classes; {advice}", stacklevel=5)
    return num_classes


def check_pairs(labels: Array) -> None:
    """Checks that some class has two images; else the EPE score would be only rounding errors."""
    if len(np.unique(labels)) == len(labels):
        raise InputError(
            f"labels: found {len(labels)} images of as many classes, "
            "expected two of some class: epe compares the images of a class"
        )
