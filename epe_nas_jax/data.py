"""Host side: from a data set's name and path to labelled images and a mini-batch.

Shape legend: M images in the data set, N in the mini-batch, H height and width.
"""

import dataclasses
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from epe_nas_jax.archives import is_archive, read_archive
from epe_nas_jax.download import ARCHIVES, default_cache, fetch
from epe_nas_jax.errors import InputError
from epe_nas_jax.folders import read_folder
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
    mean: Sequence[float]
    std: Sequence[float]


_KNOWN = {
    "cifar10": _Known(10, (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "cifar100": _Known(100, (129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
    "imagenet16_120": _Known(120, (122.68, 116.66, 104.01), (63.22, 61.26, 65.09)),
}
NAMES = ("digits", *_KNOWN, "npz", "folder")
SPLITS = ("train", "test")


def load_dataset(
    name: str,
    path: str = "",
    *,
    split: str = "train",
    images_key: str = "x_train",
    labels_key: str = "y_train",
    side: int = 0,
    download: bool = False,
) -> Dataset:
    """Loads a data set.

    A path is told apart by what it is: an `.npz` file, or for a known data set its official archive
    or the folder extracted from it, as in `archives.read_archive`. A data set of your own is an
    `.npz` file (`"npz"`) or a folder of images by class (`"folder"`), as in `folders.read_folder`.

    Args:
      name: one of `NAMES`.
      path: where it lies; `"digits"` needs none.
      split: one of `SPLITS`; the statistics and classes are those of `"train"` for both.
      images_key: name of the training images in an `.npz` file, `[M, H, H, 3]`, whole numbers
        0..255 of any dtype; for the other split, with `test` in place of `train`.
      labels_key: name of their labels, integers `[M]`; likewise.
      side: H to which a folder's images are resized; 0: as they are.
      download: without a path, get the official archive of a CIFAR into the user's cache.

    Raises:
      InputError: an argument is not as said above, or a file is missing, broken or holds something
        else.
    """
    if name not in NAMES:
        raise InputError(f"data set {name!r}: unknown, expected one of {', '.join(NAMES)}")
    if split not in SPLITS:
        raise InputError(f"split: found {split!r}, expected one of {', '.join(SPLITS)}")
    if side and (name != "folder" or side < 0 or side % 4):
        expected = "a multiple of 4" if name == "folder" else "0 (only a folder is resized)"
        raise InputError(f"data.side: found {side}, expected {expected}")
    if name == "digits":
        if split != "train":
            raise InputError("data set 'digits': has no test split")
        return _digits()

    place = Path(path) if path else _without_path(name, download)
    if name == "folder":
        images, labels, num_classes = read_folder(place, "train", side)
        statistics = _statistics(images)
        if split != "train":
            images, labels, _ = read_folder(place, split, side)
        return _dataset(images, labels, num_classes, *statistics)

    def read(split: str) -> tuple[np.ndarray, np.ndarray]:
        if name in _KNOWN and is_archive(place):
            return read_archive(name, place, split)
        keys = (_key_of(key, split) for key in (images_key, labels_key))
        return _read_npz(place, *keys)

    images, labels = read(split)
    known = _KNOWN.get(name)
    if known is None:
        of_train, its_labels = (images, labels) if split == "train" else read("train")
        known = _Known(int(its_labels.max()) + 1, *_statistics(of_train))
    wrong = labels[(labels < 0) | (labels >= known.num_classes)]
    if len(wrong):
        raise InputError(f"{place}: found label {wrong[0]}, expected 0..{known.num_classes - 1}")
    return _dataset(images, labels, known.num_classes, known.mean, known.std)


def draw_fixed_minibatch(
    key: jax.Array,
    dataset: Dataset,
    batch_size: int,
    *,
    augment: bool,
    class_balanced: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Draws the one mini-batch on which all cells are scored.

    Args:
      key: random key, consumed.
      dataset: the data set.
      batch_size: N.
      augment: crop and flip the images as the released code does.
      class_balanced: as many images of each class as possible, as `draw_balanced_rows` draws them.

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
        balanced_classes=dataset.num_classes if class_balanced else None,
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


def _statistics(images: np.ndarray) -> tuple[Sequence[float], Sequence[float]]:
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    return mean.tolist(), np.where(std > 0, std, 1).tolist()


def _without_path(name: str, download: bool) -> Path:
    """Where a data set lies of which the user gave no path."""
    archive = ARCHIVES.get(name)
    if download:
        if archive is None:
            raise InputError(f"data.download: found True, expected False: {name} has no download")
        return fetch(archive, default_cache())
    if archive is not None:
        expected = (
            f"{archive.file_name} from {archive.url}, its folder or an .npz file "
            "(or data.download=True)"
        )
    elif name in _KNOWN:
        expected = (
            "Imagenet16_train.zip, the downsampled ImageNet of image-net.org (behind a login), "
            "its folder or an .npz file"
        )
    else:
        expected = "an .npz file" if name == "npz" else "a folder of images by class"
    raise InputError(f"data.path: found nothing, expected the path of {expected}")


def _key_of(key: str, split: str) -> str:
    """The name of a split's array from that of the training split's."""
    if split != "train" and "train" not in key:
        raise InputError(f"key {key!r}: found no 'train' in it, expected one to name {split!r} by")
    return key.replace("train", split)


def _read_npz(path: Path, images_key: str, labels_key: str) -> tuple[np.ndarray, np.ndarray]:
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
