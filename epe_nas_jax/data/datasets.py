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
    """Labelled images as they are stored, with the statistics that normalise them.

    Attributes:
      images: uint8 `[M, H, H, 3]`.
      labels: int32 `[M]`, classes 0..K-1.
      class_names: the names of the classes 0..K-1: the names of the class folders, the known names
        of a published data set, or else the labels in the file, as text.
      mean: the mean of each channel of pixels divided by 255, `[3]`.
      std: the standard deviation of each channel of pixels divided by 255, `[3]`.

    Examples:
      >>> from epe_nas_jax import load_dataset
      >>> dataset = load_dataset("digits")
      >>> dataset.normalised(np.arange(2)).shape
      (2, 32, 32, 3)
      >>> dataset.class_names[:3]
      ('0', '1', '2')
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray

    @property
    def num_classes(self) -> int:
        """How many classes there are, K."""
        return len(self.class_names)

    def normalised(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Normalises images by the data set's statistics, to mean 0 and standard deviation 1.

        Args:
          rows: which images, int `[N]`; None: all.

        Returns:
          float32 `[N, H, H, 3]`; for all images, `[M, H, H, 3]`.
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
    """Loads a data set of labelled images by its name and path.

    The kind of file is recognised by its content: an `.npz` file, or for a known data set its
    official archive or the folder extracted from it, as in `archives.read_archive`. A data set of
    your own is an `.npz` file (`"npz"`) or a folder of images by class (`"folder"`), as in
    `folders.read_folder`.

    Args:
      name: one of `table.DATASETS`.
      path: file or folder of the data set, on this machine; `"digits"` needs none.
      split: one of `SPLITS`; the statistics and classes are those of `"train"` for both.
      images_key: name of the training images in an `.npz` file, `[M, H, H, 3]` or grey, whole
        numbers 0..255 of any dtype. The test images have this name with `test` in place of `train`.
      labels_key: name of their labels, integers `[M]`, or one-hot; with `test` in place of `train`
        that of the test labels. A data set of your own may have any ids of at least 0: in ascending
        order they become the classes 0..K-1.
      side: H of the images: images of a folder are resized to it, all others are averaged over
        squares, for which H must divide their side; 0: the images stay as they are.
      download: if no path is given, download the official archive of CIFAR-10 or CIFAR-100 into
        the user's cache.

    Raises:
      InputError: an unknown name or split, a side that the data set cannot have, no path where one
        is needed; or a file is missing, broken or holds something else.

    Examples:
      >>> from epe_nas_jax import load_dataset
      >>> dataset = load_dataset("digits", side=8)
      >>> dataset.images.shape, dataset.num_classes
      ((1797, 8, 8, 3), 10)
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
      path: its file or folder; empty: it is in the user's cache, or needs no path.
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

    It has the images that `draw_minibatch` would draw from the normalised data set with this key,
    but only the images that are drawn are normalised.

    Args:
      key: random key, consumed.
      dataset: the data set.
      batch_size: N.
      augment: crop and flip the images as the released code does.
      class_balanced: draw as many images of each class as possible, by `draw_balanced_rows`.

    Returns:
      Normalised images, float32 `[N, H, H, 3]`, and labels, int32 `[N]`.

    Raises:
      InputError: N is less than 2, or more than the data set has images.

    Examples:
      >>> from epe_nas_jax import load_dataset
      >>> from epe_nas_jax.data.datasets import draw_fixed_minibatch
      >>> dataset = load_dataset("digits")
      >>> images, labels = draw_fixed_minibatch(jax.random.key(0), dataset, 16, augment=False)
      >>> images.shape, labels.shape
      ((16, 32, 32, 3), (16,))
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
      images: those of another split.
      train_images: those of the training split.
      where: what the images are, for messages.

    Raises:
      InputError: they have another size.
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
    """Where a data set is: at the given path, or else in the cache, if it is to be downloaded."""
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
      side: of the smaller images; 0: the images stay as they are.

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
    """The statistics of images, uint8 `[M, H, H, 3]`; standard deviations of 0 become 1.

    They are those of `images.std`, bit for bit, without its float64 copy of all images.
    """
    mean = images.mean((0, 1, 2))
    squares = np.zeros((1, len(mean)))
    for block in _blocks(images):
        parts = np.square(images[block] - mean).reshape(-1, len(mean))
        squares = np.concatenate([squares, parts]).sum(0, keepdims=True)
    std = np.sqrt(squares[0] / (images.size // len(mean)))
    return Statistics(tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist()))


def _blocks(images: np.ndarray) -> Iterator[slice]:
    """Splits images `[M, H, H, 3]` into slices that are small enough to be copied as float64."""
    num_images = max(1, _BLOCK_PIXELS // max(1, images.shape[1] * images.shape[2]))
    for start in range(0, len(images), num_images):
        yield slice(start, start + num_images)
