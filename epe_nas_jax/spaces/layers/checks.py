"""Images and labels checked where they come in."""

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.errors import InputError


def check_images(images: jax.Array | np.ndarray) -> None:
    """Checks that the network accepts images.

    Raises:
      InputError: not floating `[N, H, H, 3]` with H a multiple of 4.
    """
    if images.ndim != 4:
        raise InputError(f"images: found rank {images.ndim}, expected 4: [images, side, side, 3]")
    _, height, width, _ = images.shape
    if height != width or height % 4 or height == 0:
        raise InputError(
            f"images: found {height}x{width} pixels, expected a square with a side divisible by 4"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"images: found dtype {images.dtype}, expected floating point")


def check_minibatch(
    images: np.ndarray | jax.Array, labels: np.ndarray | jax.Array, num_classes: int | None
) -> int:
    """Checks a mini-batch, images `[N, H, W, 3]` and labels `[N]`.

    Args:
      images: the images.
      labels: classes 0..K-1.
      num_classes: K; None: one more than the largest label.

    Returns:
      K.

    Raises:
      InputError: wrong rank, dtype or number, NaN or infinite pixels, labels out of range.
    """
    check_images(images)
    return check_labels(images, labels, num_classes)


def check_labels(
    images: np.ndarray | jax.Array, labels: np.ndarray | jax.Array, num_classes: int | None
) -> int:
    """Checks the labels `[N]` of images `[N, ...]` of any shape.

    Args:
      images: the images, of which there are at least two.
      labels: classes 0..K-1.
      num_classes: K; None: one more than the largest label.

    Returns:
      K.

    Raises:
      InputError: wrong rank, dtype or number, NaN or infinite pixels, labels out of range.
    """
    if len(images) < 2:
        raise InputError(f"images: found {len(images)}, expected at least 2 to correlate")
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(
            f"labels: found {labels.dtype} of shape {labels.shape}, expected integers [images]"
        )
    if len(labels) != len(images):
        raise InputError(f"labels: found {len(labels)}, expected {len(images)}, one an image")
    if not np.isfinite(np.asarray(images)).all():
        raise InputError("images: found NaN or infinite pixels, expected finite values")
    low, high = int(labels.min()), int(labels.max())
    if num_classes is None:
        num_classes = high + 1
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise InputError(f"labels: found {wrong}, expected 0..{num_classes - 1}")
    return num_classes
