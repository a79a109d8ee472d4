"""Host side: from a data set's name and path to labelled images and a mini-batch."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.data.download import default_cache, fetch
from epe_nas_jax.data.files import user_path
from epe_nas_jax.data.labelled import check_brightness, number_classes
from epe_nas_jax.data.minibatch import augment_images, draw_rows
from epe_nas_jax.data.readers import Source
from epe_nas_jax.data.table import Entry, Statistics, dataset_entry
from epe_nas_jax.errors import InputError, printable

SPLITS = ("train", "test")

_LOG = logging.getLogger(__name__)

_LARGEST_SIDE = 4096
# Pixels of which float64 copies are made at one time: 6 MiB a copy.
_BLOCK_PIXELS = 2**18


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images as they lie on disk, with the statistics that normalise them.

    Attributes:
      images: uint8 `[M, H, H, 3]`.
      labels: int32 `[M]`, classes 0..K-1.
      class_names: the names of the classes 0..K-1: of the folders, of a known data set's classes,
        or else the labels as they lie on disk.
      mean: `[3]`, the channels' means of pixels divided by 255.
      std: `[3]`, their standard deviations.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def normalised(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Images with mean 0 and deviation 1 by the data set's statistics.

        Args:
          rows: which images, int `[N]`; None: all.

        Returns:
          float32 `[N, H, H, 3]`; of all images, `[M, H, H, 3]`.
        """
        images = self.images if rows is None else self.images[rows]
        normalised = np.empty(images.shape, np.float32)
        for block in _blocks(images):
            normalised[block] = (images[block] / 255 - self.mean) / self.std
        return normalised

    def black(self) -> np.ndarray:
        """A normalised black pixel, `[3]`."""
        return -self.mean / self.std


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

    What a path names is found out from the file itself: an `.npz` file, or for a known data set its
    official archive or the folder extracted from it, as in `archives.read_archive`. A data set of
    your own is an `.npz` file (`"npz"`) or a folder of images by class (`"folder"`), as in
    `folders.read_folder`.

    Args:
      name: one of `table.DATASETS`.
      path: where it lies, on this machine; `"digits"` needs none.
      split: one of `SPLITS`; the statistics and classes are those of `"train"` for both.
      images_key: name of the training images in an `.npz` file, `[M, H, H, 3]` or grey, whole
        numbers 0..255 of any dtype; for the other split, with `test` in place of `train`.
      labels_key: name of their labels, integers `[M]`, or one-hot; for the other split, likewise.
        Ids of a data set of your own may be any from 0: in ascending order they are the classes.
      side: H of the images: a folder's are resized, others are averaged over squares, for which H
        must divide their side; 0: as they are.
      download: if no path is given, get the official archive of a CIFAR into the user's cache.

    Raises:
      InputError: an unknown name or split, a side that the data set cannot have, no path where one
        is needed; or a file is missing, broken or holds something else.
    """
    entry = dataset_entry(name)
    if split not in SPLITS:
        raise InputError(f"split: found {split!r}, expected one of {', '.join(SPLITS)}")
    if side and (not 0 < side <= _LARGEST_SIDE or side % 4):
        raise InputError(
            f"data.side: found {side}, expected a multiple of 4 up to {_LARGEST_SIDE}, or 0"
        )

    source = Source(name, _find(entry, path, download), images_key, labels_key, side)
    found = train = entry.reader.read(source, split)
    if split != "train" and (entry.num_classes is None or entry.statistics is None):
        train = entry.reader.read(source, "train")
    check_brightness(found.images, f"{source.path}, {split} split")
    check_size(found.images, train.images, f"{source.path}, {split} split")
    images = _averaged(found.images, side)
    train_images = images if found is train else _averaged(train.images, side)
    mean, std = entry.statistics or _statistics(train_images)
    classes, note = np.arange(entry.num_classes or 0), ""
    if entry.num_classes is None:
        classes, note = number_classes(train.labels, str(source.path))
    for line in (*found.notes, *filter(None, [note])):
        _LOG.warning("%s", printable(line))
    return Dataset(
        images,
        _class_indices(found.labels, classes, str(source.path)),
        entry.class_names or train.class_names or tuple(map(str, classes.tolist())),
        np.asarray(mean) / 255,
        np.asarray(std) / 255,
    )


def has_test_split(
    name: str, path: str, images_key: str = "x_train", labels_key: str = "y_train"
) -> bool:
    """Whether a data set that `load_dataset` has loaded has a test split.

    Args:
      name: of the data set.
      path: where it lies; empty: in the user's cache, or it needs no path.
      images_key: name of the training images in an `.npz` file.
      labels_key: name of their labels.
    """
    entry = dataset_entry(name)
    if not path and entry.archive is not None:
        return True
    return entry.reader.has_test(Source(name, user_path(path), images_key, labels_key))


def draw_fixed_minibatch(
    key: jax.Array,
    dataset: Dataset,
    batch_size: int,
    *,
    augment: bool,
    class_balanced: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Draws the one mini-batch on which all cells are scored.

    It is the one that `draw_minibatch` draws from the normalised data set, but only the images that
    are drawn are normalised.

    Args:
      key: random key, consumed.
      dataset: the data set.
      batch_size: N.
      augment: crop and flip the images as the released code does.
      class_balanced: as many images of each class as possible, as `draw_balanced_rows` draws them.

    Returns:
      Normalised images, float32 `[N, H, H, 3]`, and labels, int32 `[N]`.

    Raises:
      InputError: N is less than 2, or more than the data set has images.
    """
    check_batch_size(batch_size, dataset)
    labels = jnp.asarray(dataset.labels)
    rows, augment_key = draw_rows(
        key,
        labels,
        batch_size,
        balanced_classes=dataset.num_classes if class_balanced else None,
    )
    images = jnp.asarray(dataset.normalised(np.asarray(rows)))
    if augment:
        images = augment_images(augment_key, images, jnp.asarray(dataset.black(), jnp.float32))
    return images, labels[rows]


def check_batch_size(batch_size: int, dataset: Dataset) -> None:
    """Checks that a mini-batch of N images can be drawn.

    Raises:
      InputError: N is less than 2, or more than the data set has images.
    """
    if not 2 <= batch_size <= len(dataset.images):
        raise InputError(
            f"data.batch_size: found {batch_size}, expected 2..{len(dataset.images)}, "
            "the size of the data set"
        )


def check_size(images: np.ndarray, train_images: np.ndarray, where: str) -> None:
    """Checks that images `[M, H, W, 3]` have the size of the training images.

    Args:
      images: of another split.
      train_images: of the training split.
      where: what the images are, for messages.

    Raises:
      InputError: they have another one.
    """
    (_, *size, _), (_, *expected, _) = images.shape, train_images.shape
    if size != expected:
        raise InputError(
            f"{where}: found {size[1]}x{size[0]} pixels, "
            f"expected {expected[1]}x{expected[0]} as the training images"
        )


def _class_indices(labels: np.ndarray, classes: np.ndarray, where: str) -> np.ndarray:
    """Which of the classes `[K]`, in ascending order, each label is: int32 `[M]`."""
    wrong = labels[~np.isin(labels, classes)]
    if len(wrong):
        last = classes[-1]
        expected = f"0..{last}" if last == len(classes) - 1 else "one of the training images'"
        raise InputError(f"{where}: found label {wrong[0]}, expected {expected}")
    return np.searchsorted(classes, labels).astype(np.int32)


def _find(entry: Entry, path: str, download: bool) -> Path:
    """Where a data set lies: at the path given, else in the cache, if it is to be downloaded."""
    archive = entry.archive
    if not (archive or entry.where):
        if path:
            raise InputError(f"data.path: found {path!r}, expected none for {entry.name}")
        return Path()
    if path:
        return user_path(path)
    wanted = "data.path: found nothing, expected the path of"
    if archive is None:
        if download:
            raise InputError(
                f"data.download: found True, expected False: {entry.name} has no download"
            )
        raise InputError(f"{wanted} {entry.where}")
    if download:
        return fetch(archive, default_cache())
    raise InputError(
        f"{wanted} {archive.file_name} from {archive.url}, its folder or an .npz file "
        "(or data.download=True)"
    )


def _averaged(images: np.ndarray, side: int) -> np.ndarray:
    """Images, uint8 `[M, H, W, 3]`, made smaller: a pixel is the mean of a square, rounded.

    Args:
      images: the images.
      side: of the smaller ones; 0: as they are.

    Raises:
      InputError: the side does not divide that of the images, or they are not square.
    """
    num_images, height, width, channels = images.shape
    if side in (0, height) and side in (0, width):
        return images
    if height != width or height % side:
        raise InputError(
            f"data.side: found {side}, expected a multiple of 4 that divides "
            f"the images' {width}x{height} pixels, or 0"
        )
    square = height // side
    smaller = np.empty((num_images, side, side, channels), np.uint8)
    for block in _blocks(images):
        squares = images[block].reshape(-1, side, square, side, square, channels)
        smaller[block] = np.rint(squares.mean((2, 4)))
    return smaller


def _statistics(images: np.ndarray) -> Statistics:
    """The statistics of images, uint8 `[M, H, H, 3]`; deviations of 0 are given as 1.

    The deviations are those of `images.std`, bit for bit, without its float64 copy of all images.
    """
    mean = images.mean((0, 1, 2))
    squares = np.zeros((1, len(mean)))
    for block in _blocks(images):
        parts = np.square(images[block] - mean).reshape(-1, len(mean))
        squares = np.concatenate([squares, parts]).sum(0, keepdims=True)
    std = np.sqrt(squares[0] / (images.size // len(mean)))
    return Statistics(tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist()))


def _blocks(images: np.ndarray) -> Iterator[slice]:
    """Splits images `[M, H, H, 3]` into runs of images that float64 has room for."""
    num_images = max(1, _BLOCK_PIXELS // max(1, images.shape[1] * images.shape[2]))
    for start in range(0, len(images), num_images):
        yield slice(start, start + num_images)
