"""A folder of images by class: any number of classes, any format that Pillow reads."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from epe_nas_jax.errors import InputError

_SPLIT_FOLDERS = frozenset(("train", "val", "test"))
# Modes of at most 8 bits a channel, which RGB can hold.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# What Pillow raises on files that are no images, or broken ones.
_UNREADABLE = (
    EOFError,
    OSError,
    OverflowError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)


def read_folder(path: Path, split: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads images, each class from a folder of its own.

    Args:
      path: the class folders, or the folders `train` and `test` of class folders. The classes
        0..K-1 are the folders in alphabetical order, those of `train` if there is one. Files and
        folders whose names begin with a dot are passed over.
      split: `"train"` or `"test"`; the first is the whole folder if it has no split.
      side: H; 0: as the images are, all of one size. Other images are resized with a box filter,
        as those of downsampled ImageNet are, and what is not square is stretched.

    Returns:
      Images, uint8 `[M, H, H, 3]`, and labels, int32 `[M]`. Of `"train"`, every class 0..K-1 is
      among the labels.

    Raises:
      InputError: no such folder, fewer than two classes, a class without images, a file that is no
        image of at most 8 bits a channel, or images of different sizes or not square.
    """
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, folder in _folders_of_split(path, split):
        files = sorted(_visible(folder))
        if not files:
            raise InputError(f"{folder}: found no images, expected those of a class")
        for file in files:
            image = _read_image(file, side)
            if images and image.shape != images[0].shape:
                raise InputError(
                    f"{file}: found {_size(image)} pixels, expected {_size(images[0])} "
                    "as the first image (data.side resizes all)"
                )
            images.append(image)
            labels.append(label)
    return np.stack(images), np.array(labels, np.int32)


def _folders_of_split(path: Path, split: str) -> list[tuple[int, Path]]:
    """The class folders of a split with their classes; raises `InputError` as `read_folder`."""
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise InputError(f"{path}: found {found}, expected a folder of images by class")
    folders = _class_folders(path)
    names = {folder.name for folder in folders}
    is_split = "train" in names and names <= _SPLIT_FOLDERS
    if is_split:
        folders = _class_folders(path / "train")
    if len(folders) < 2:
        raise InputError(
            f"{folders[0].parent if folders else path}: found {len(folders)} class folders, "
            "expected at least 2"
        )
    labels_of = {folder.name: label for label, folder in enumerate(folders)}
    if split != "train":
        if not (is_split and split in names):
            raise InputError(f"{path}: found no folder {split!r} beside 'train'")
        folders = _class_folders(path / split)
        if not folders:
            raise InputError(f"{path / split}: found no class folders, expected some of 'train'")
        for folder in folders:
            if folder.name not in labels_of:
                raise InputError(f"{folder}: found a class that {path / 'train'} does not have")
    return [(labels_of[folder.name], folder) for folder in folders]


def _read_image(file: Path, side: int) -> np.ndarray:
    """An image, uint8 `[H, H, 3]`."""
    try:
        with Image.open(file) as image:
            if image.mode not in _MODES:
                raise InputError(
                    f"{file}: found pixels of mode {image.mode}, expected 8 bits a channel"
                )
            picture = image.convert("RGB")
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"{file}: not a readable image ({error})".splitlines()[0]) from None
    if side:
        picture = picture.resize((side, side), Image.Resampling.BOX)
    elif picture.width != picture.height:
        raise InputError(
            f"{file}: found {picture.width}x{picture.height} pixels, expected a square "
            "(data.side resizes all)"
        )
    return np.asarray(picture)


def _class_folders(path: Path) -> list[Path]:
    return sorted(entry for entry in _visible(path) if entry.is_dir())


def _visible(path: Path) -> Iterator[Path]:
    return (entry for entry in path.iterdir() if not entry.name.startswith("."))


def _size(image: np.ndarray) -> str:
    height, width, _ = image.shape
    return f"{width}x{height}"
