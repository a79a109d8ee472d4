"""A folder of images by class: any number of classes, any format that Pillow reads."""

import struct
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from epe_nas_jax.data.files import check_no_special_file
from epe_nas_jax.data.labelled import Labelled
from epe_nas_jax.errors import InputError

# The names of splits, in any case. Without a test split, the validation split takes its place.
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}
# Folders that operating systems and programs create by themselves, in any case.
_SYSTEM_FOLDERS = frozenset(
    (
        *("__macosx", "@eadir", "lost+found", "#recycle", "$recycle.bin"),
        *("system volume information", "__pycache__"),
    )
)
# Modes of at most 8 bits a channel, which RGB can hold.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# Formats that Pillow names but has no reader for, and endings of images that it does not know.
_NO_READER = ("BUFR", "GRIB", "HDF5", "MPEG")
_UNKNOWN_SUFFIXES = (
    ".heic",
    ".heif",
    ".jxl",
    ".svg",
    ".raw",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".dng",
)
# What Pillow raises on files that are no images, or broken ones.
_UNREADABLE = (
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    MemoryError,
    SyntaxError,
    TypeError,
    ValueError,
    ZeroDivisionError,
    struct.error,
    Image.DecompressionBombError,
)


class _Layout(NamedTuple):
    """Where the class folders of a data set are.

    Attributes:
      train: the class folders of training images, in alphabetical order.
      test: the folder that holds the class folders of test images; None if there are none.
    """

    train: list[Path]
    test: Path | None


def read_folder(path: Path, split: str, side: int) -> Labelled:
    """Reads images from a folder that has one folder for each class.

    Images are rotated as their EXIF orientation says, and transparent pixels become white. Files
    whose names do not end as those of images do are skipped and counted. Folders that operating
    systems create, and names that begin with a dot, are ignored.

    Args:
      path: a folder of class folders; or a folder of splits that hold class folders: `train` or
        `training`, and `test` or `testing` or, where it is missing, `valid`, `val` or `validation`.
        The classes 0..K-1 are the class folders in alphabetical order, those of `train` if there
        is one.
      split: `"train"` or `"test"`; where the folder has no splits, all of it is `"train"`.
      side: H, to which images are resized with a box filter, as those of downsampled ImageNet are;
        images that are not square are stretched. 0: images stay as they are, and must have one
        size.

    Returns:
      Images, labels and the names of the class folders. In `"train"` every class has an image.

    Raises:
      InputError: no such folder, fewer than two classes, a class without training images, a folder
        within a class, a file that is no image of at most 8 bits a channel, or images of different
        sizes or not square.
    """
    layout = _layout_of(path)
    folders = layout.train if split == "train" else _test_folders(path, layout)
    root = folders[0].parent
    class_of = {folder.name: label for label, folder in enumerate(layout.train)}
    suffixes = _image_suffixes()
    images: list[np.ndarray] = []
    labels: list[int] = []
    others: list[Path] = []
    for folder in folders:
        files, passed_over = _images_of_class(folder, suffixes)
        others += passed_over
        if not files and split == "train":
            raise InputError(f"{folder}: found no images, expected those of a class")
        for file in files:
            image = read_image(file, side)
            if images and image.shape != images[0].shape:
                raise InputError(
                    f"{file}: found {_size(image)} pixels, expected {_size(images[0])} "
                    "as the first image (data.side resizes all)"
                )
            images.append(image)
            labels.append(class_of[folder.name])
    if not images:
        raise InputError(f"{root}: found no images, expected those of the test split")
    notes = _notes(root, others, suffixes)
    if split != "train" and root.name.casefold() not in _SPLITS["test"]:
        notes = [f"{root}: used as the test split, which is missing", *notes]
    return Labelled(np.stack(images), np.array(labels, np.int32), tuple(notes), tuple(class_of))


def has_test_folder(path: Path) -> bool:
    """Whether a folder that `read_folder` has read has a test split."""
    return _layout_of(path).test is not None


def images_below(path: Path) -> list[Path]:
    """Finds the images of a folder and of all folders in it, in alphabetical order.

    Files whose names do not end as those of images do are skipped, and so are folders that
    operating systems create, and names that begin with a dot.

    Raises:
      InputError: no such folder, or no image in it.
      OSError: a folder cannot be listed.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise InputError(f"{path}: found {found}, expected a folder of images")
    suffixes = _image_suffixes()
    found_images: list[Path] = []
    folders = [path]
    while folders:
        for entry in _visible(folders.pop()):
            # A link to a folder could lead back to it.
            if entry.is_dir() and not entry.is_symlink():
                folders.append(entry)
            elif not entry.is_dir() and _is_image(entry, suffixes):
                found_images.append(entry)
    if not found_images:
        raise InputError(f"{path}: found no images, expected some")
    return sorted(found_images)


def read_image(file: Path, side: int) -> np.ndarray:
    """Reads one image file as RGB: upright, on white where it is transparent, and square.

    Args:
      file: the image.
      side: H, to which it is resized; 0: it stays as it is.

    Returns:
      uint8 `[H, H, 3]`.

    Raises:
      InputError: the file is no image of at most 8 bits a channel, or the image is not resized and
        not square.
    """
    check_no_special_file(file, "an image")
    try:
        # Pillow warns of modes that are converted below, of large images and of broken EXIF data.
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            if image.mode not in _MODES:
                raise InputError(
                    f"{file}: found pixels of mode {image.mode}, expected 8 bits a channel"
                )
            picture = _on_white(_upright(image))
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"{file}: not a readable image ({error})") from None
    if side:
        picture = picture.resize((side, side), Image.Resampling.BOX)
    elif picture.width != picture.height:
        raise InputError(
            f"{file}: found {picture.width}x{picture.height} pixels, expected a square "
            "(data.side resizes all)"
        )
    return np.asarray(picture)


def _layout_of(path: Path) -> _Layout:
    """Where the class folders are; raises `InputError` as `read_folder`."""
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise InputError(f"{path}: found {found}, expected a folder of images by class")
    folders = _folders(path)
    splits = _splits_of(path, folders)
    if splits is None:
        _check_classes(path, folders)
        return _Layout(folders, None)
    train_folders = _folders(splits["train"])
    _check_classes(splits["train"], train_folders)
    return _Layout(train_folders, splits.get("test") or splits.get("validation"))


def _test_folders(path: Path, layout: _Layout) -> list[Path]:
    """The class folders of test images; raises `InputError` as `read_folder`."""
    if layout.test is None:
        raise InputError(f"{path}: found no folder 'test' or 'valid' beside 'train'")
    train_root = layout.train[0].parent
    folders = _folders(layout.test)
    if not folders:
        raise InputError(
            f"{layout.test}: found no class folders, expected some of {train_root.name!r}"
        )
    known = {folder.name for folder in layout.train}
    for folder in folders:
        if folder.name not in known:
            raise InputError(f"{folder}: found a class that {train_root} does not have")
    return folders


def _splits_of(path: Path, folders: list[Path]) -> dict[str, Path] | None:
    """The folders of splits by split; None if these are class folders.

    A folder `train` is a split if there are folders in it, and a class otherwise.
    """
    named: dict[str, list[Path]] = {split: [] for split in _SPLITS}
    others: list[Path] = []
    for folder in folders:
        kinds = [split for split, names in _SPLITS.items() if folder.name.casefold() in names]
        (named[kinds[0]] if kinds else others).append(folder)
    splits = [folder for kind in named.values() for folder in kind]
    if not named["train"]:
        if splits and not others and any(_folders(folder) for folder in splits):
            raise InputError(
                f"{path}: found {splits[0].name!r}, expected a folder 'train' beside it"
            )
        return None
    if others and not any(_folders(folder) for folder in named["train"]):
        return None
    if others:
        raise InputError(
            f"{others[0]}: found a folder beside {named['train'][0].name!r}, expected 'test' or "
            "'valid' (or, if all are classes, images and no folders in them)"
        )
    for kind in named.values():
        if len(kind) > 1:
            raise InputError(f"{path}: found {kind[0].name!r} and {kind[1].name!r}, expected one")
    return {split: kind[0] for split, kind in named.items() if kind}


def _check_classes(root: Path, folders: list[Path]) -> None:
    """Checks that there are at least two class folders.

    Raises:
      InputError: there are fewer; the message says where, if they are one level below.
    """
    if len(folders) >= 2:
        return
    inner = _folders(folders[0]) if folders else []
    hint = f"; {folders[0]} has {len(inner)}: data.path could be that" if len(inner) > 1 else ""
    raise InputError(f"{root}: found {len(folders)} class folders, expected at least 2{hint}")


def _images_of_class(folder: Path, suffixes: Collection[str]) -> tuple[list[Path], list[Path]]:
    """The images of a class, and the other files, which are skipped.

    Raises:
      InputError: there is a folder among them, or a pipe or device with the name of an image.
    """
    images: list[Path] = []
    others: list[Path] = []
    inner: list[Path] = []
    for entry in sorted(_visible(folder)):
        kind = inner if entry.is_dir() else images if _is_image(entry, suffixes) else others
        kind.append(entry)
    if inner and images:
        raise InputError(f"{inner[0]}: found a folder in class {folder.name!r}, expected images")
    if inner:
        raise InputError(
            f"{inner[0]}: found a folder in {folder.name!r}, expected the images of a class "
            "(data.path names the folder that holds the class folders)"
        )
    for image in images:
        check_no_special_file(image, "an image")
    return images, others


def _is_image(file: Path, suffixes: Collection[str]) -> bool:
    """Whether a file is an image by its name or, where that has no ending, by its content."""
    if file.suffix:
        return file.suffix.lower() in suffixes
    if not file.is_file():
        return False
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file):
            return True
    except _UNREADABLE:
        return False


def _image_suffixes() -> set[str]:
    """The endings of image file names, also of formats that Pillow cannot read."""
    known = Image.registered_extensions().items()
    # Pillow reads MPO, which phones write, as JPEG.
    forms = {*Image.OPEN, "MPO"} - set(_NO_READER)
    readable = {suffix for suffix, form in known if form in forms}
    return readable | set(_UNKNOWN_SUFFIXES)


def _notes(root: Path, others: list[Path], suffixes: Collection[str]) -> list[str]:
    """Lines that say how many files were skipped, and why.

    Args:
      root: the folder that holds the class folders.
      others: files in the class folders that are no images.
      suffixes: endings of images' names.
    """
    lost: list[Path] = []
    for file in sorted(_visible(root)):
        if not file.is_dir():
            kind = lost if _is_image(file, suffixes) else others
            kind.append(file)
    notes = []
    for files, what in ((others, "no images"), (lost, "in no class folder")):
        if files:
            counted = "1 file that is" if len(files) == 1 else f"{len(files)} files that are"
            notes.append(f"{root}: passed over {counted} {what}, such as {files[0].name}")
    return notes


def _upright(image: Image.Image) -> Image.Image:
    """An image rotated as its EXIF orientation says; unchanged if its EXIF data is broken."""
    try:
        is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except _UNREADABLE:
        return image
    return ImageOps.exif_transpose(image) if is_turned else image


def _on_white(image: Image.Image) -> Image.Image:
    """An image in RGB, on white where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in _visible(path) if entry.is_dir())


def _visible(path: Path) -> list[Path]:
    return [
        entry
        for entry in path.iterdir()
        if not entry.name.startswith(".") and entry.name.casefold() not in _SYSTEM_FOLDERS
    ]


def _size(image: np.ndarray) -> str:
    height, width, _ = image.shape
    return f"{width}x{height}"
