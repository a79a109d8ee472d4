"""Host side: from a data set's name and path to labelled images and a mini-batch.

Shape legend: M images in the data set, N in the mini-batch, H height and width.
"""

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from epe_nas_jax.errors import InputError
from epe_nas_jax.minibatch import draw_minibatch

_DIGIT_UPSCALING = 4


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images as they lie on disk, with the statistics that normalise them.

    Attributes:
      images: uint8 `[M, H, H, 3]`.
      labels: int32 `[M]`, classes 0..num_classes-1.
      num_classes: number of classes.
      mean: `[3]`, channel mean of pixels divided by 255.
      std: `[3]`, channel deviation of the same.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    mean: np.ndarray
    std: np.ndarray

    def normalised(self) -> np.ndarray:
        """The images with mean 0 and deviation 1 by the data set's statistics, float32."""
        return ((self.images / 255 - self.mean) / self.std).astype(np.float32)

    def black(self) -> np.ndarray:
        """A normalised black pixel, `[3]`."""
        return -self.mean / self.std


@dataclasses.dataclass(frozen=True)
class _Known:
    """Classes and channel statistics (of pixels in 0..255) as NAS-Bench-201 uses them."""

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


_KNOWN = {
    "cifar10": _Known(10, (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "cifar100": _Known(100, (129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
    "imagenet16_120": _Known(120, (122.68, 116.66, 104.01), (63.22, 61.26, 65.09)),
}
NAMES = ("digits", *_KNOWN, "npz")


def load_dataset(
    name: str,
    path: str = "",
    *,
    images_key: str = "x_train",
    labels_key: str = "y_train",
) -> Dataset:
    """Loads a data set.

    Args:
      name: one of `NAMES`; `"npz"` is a data set of your own.
      path: an `.npz` file with the images and labels; `"digits"` needs none.
      images_key: name of the images in the file, uint8 `[M, H, H, 3]`.
      labels_key: name of the labels in the file, integers `[M]`.

    Raises:
      InputError: unknown name, or a file that is missing, broken or holds something else.
    """
    if name not in NAMES:
        raise InputError(f"data set {name!r}: unknown, expected one of {', '.join(NAMES)}")
    if name == "digits":
        return _digits()
    images, labels = _read_npz(path, images_key, labels_key)
    known = _KNOWN.get(name)
    num_classes = known.num_classes if known else int(labels.max()) + 1
    if labels.min() < 0 or labels.max() >= num_classes:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise InputError(
            f"{path}, {labels_key}: found label {wrong}, expected 0..{num_classes - 1}"
        )
    mean, std = (known.mean, known.std) if known else _statistics(images)
    return _dataset(images, labels, num_classes, mean, std)


def draw_fixed_minibatch(
    key: jax.Array, dataset: Dataset, batch_size: int, *, augment: bool
) -> tuple[jax.Array, jax.Array]:
    """Draws the one mini-batch on which all cells are scored.

    Args:
      key: random key, consumed.
      dataset: the data set.
      batch_size: N.
      augment: crop and flip the images as the released code does.

    Returns:
      Normalised images, float32 `[N, H, H, 3]`, and labels, int32 `[N]`.

    Raises:
      InputError: fewer than 2 images, or more than there are.
    """
    check_batch_size(batch_size, dataset)
    return draw_minibatch(
        key,
        jnp.asarray(dataset.normalised()),
        jnp.asarray(dataset.labels),
        batch_size,
        augment=augment,
        black=jnp.asarray(dataset.black(), jnp.float32),
    )


def check_batch_size(batch_size: int, dataset: Dataset) -> None:
    """Checks that a mini-batch can be drawn.

    Raises:
      InputError: fewer than 2 images, or more than there are.
    """
    if not 2 <= batch_size <= len(dataset.images):
        raise InputError(
            f"data.batch_size: found {batch_size}, expected 2..{len(dataset.images)}, "
            "the size of the data set"
        )


def _digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8x8 and 0..16, as 32x32 colour images."""
    digits = load_digits()
    pixels = np.kron(digits.images, np.ones((1, _DIGIT_UPSCALING, _DIGIT_UPSCALING)))
    images = np.repeat(np.round(pixels * (255 / 16)).astype(np.uint8)[..., None], 3, axis=-1)
    return _dataset(images, digits.target, 10, *_statistics(images))


def _dataset(
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Dataset:
    """A data set from statistics in units of 0..255."""
    return Dataset(
        images, labels.astype(np.int32), num_classes, np.asarray(mean) / 255, np.asarray(std) / 255
    )


def _statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    return mean.tolist(), np.where(std > 0, std, 1).tolist()


def _read_npz(path: str, images_key: str, labels_key: str) -> tuple[np.ndarray, np.ndarray]:
    if not path:
        raise InputError("data.path: found nothing, expected the path of an .npz file")
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for key in (images_key, labels_key):
                if key not in archive:
                    found = ", ".join(archive)
                    raise InputError(f"{path}: expected an array {key!r}, found {found}")
            images, labels = archive[images_key], archive[labels_key]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected an .npz file") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable .npz file ({error})".splitlines()[0]) from None

    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise InputError(
            f"{path}, {images_key}: found {images.dtype} of shape {images.shape}, "
            "expected uint8 [images, side, side, 3]"
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{path}, {labels_key}: found {labels.dtype} of shape {labels.shape}, "
            "expected integers [images]"
        )
    if len(images) != len(labels):
        raise InputError(f"{path}: found {len(images)} images and {len(labels)} labels")
    if not len(images):
        raise InputError(f"{path}: the data set is empty, expected images")
    return images, labels
