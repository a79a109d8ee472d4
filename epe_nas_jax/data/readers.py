"""The ways in which a data set is read: from its official files, an `.npz` file, folders, or none.

An entry of `table.DATASETS` names one of them.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from epe_nas_jax.data.archives import Form, has_split, is_archive, read_archive
from epe_nas_jax.data.digits import read_digits
from epe_nas_jax.data.folders import has_test_folder, read_folder
from epe_nas_jax.data.labelled import Labelled
from epe_nas_jax.data.npz import has_test_array, read_npz
from epe_nas_jax.errors import InputError


class Source(NamedTuple):
    """A data set that is to be read, and where it is.

    Attributes:
      name: of the data set, for messages.
      path: its file or folder.
      images_key: name of the training images in an `.npz` file.
      labels_key: name of their labels.
      side: H to which a folder's images are resized; 0: they stay as they are.
    """

    name: str
    path: Path
    images_key: str
    labels_key: str
    side: int = 0


class Reader(NamedTuple):
    """One way to read a data set.

    Attributes:
      read: from a source and a split, `"train"` or `"test"`, to its images and labels; raises
        `InputError`.
      has_test: whether a source that can be read has a test split.
    """

    read: Callable[[Source, str], Labelled]
    has_test: Callable[[Source], bool]


def official(*forms: Form) -> Reader:
    """The reader of a data set's official files, in any of its forms, or of an `.npz` file."""

    def has_test(source: Source) -> bool:
        if is_archive(source.path):
            return has_split(forms, source.path, "test")
        return _has_test_array(source)

    return Reader(functools.partial(_read_official, forms), has_test)


def _read_official(forms: tuple[Form, ...], source: Source, split: str) -> Labelled:
    if is_archive(source.path):
        return Labelled(*read_archive(source.name, forms, source.path, split))
    return _read_npz(source, split)


def _read_npz(source: Source, split: str) -> Labelled:
    return read_npz(source.path, source.images_key, source.labels_key, split)


def _has_test_array(source: Source) -> bool:
    return has_test_array(source.path, source.images_key, source.labels_key)


def _read_folder(source: Source, split: str) -> Labelled:
    return read_folder(source.path, split, source.side)


def _read_digits(source: Source, split: str) -> Labelled:
    if split != "train":
        raise InputError(f"data set {source.name!r}: has no test split")
    return Labelled(*read_digits())


NPZ = Reader(_read_npz, _has_test_array)
FOLDER = Reader(_read_folder, lambda source: has_test_folder(source.path))
DIGITS = Reader(_read_digits, lambda _: False)
