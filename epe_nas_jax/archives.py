"""The official files of CIFAR-10, CIFAR-100 and downsampled ImageNet, as their authors give them.

CIFAR comes as records of bytes or as pickled batches (Krizhevsky 2009), ImageNet16 as pickled
batches (Chrabaszcz et al. 2017), of which ImageNet16-120 takes the first 120 classes (Dong & Yang
2020). Each in a tar or zip archive, or a folder that an archive was extracted to. Nothing is
extracted to disk, and a pickle is read for arrays and plain containers only.

Shape legend: M images, H their side.
"""

import contextlib
import dataclasses
import functools
import io
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from epe_nas_jax.errors import InputError

_CHANNELS = 3
_CIFAR_SIDE = 32
_IMAGENET_SIDE = 16
_IMAGENET_CLASSES = 1000
_IMAGENET_TAKEN = 120

# What tar and zip readers raise on bytes that are no archive, a part of one, or locked.
_BROKEN_ARCHIVE = (
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
# What the unpickler raises on bytes that are no pickle, or a part of one.
_BROKEN_PICKLE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)

Batch = tuple[np.ndarray, np.ndarray]
# The files of a folder or archive: their contents by name without folders.
_Files = Mapping[str, Callable[[], bytes]]


@dataclasses.dataclass(frozen=True)
class _Form:
    """One of the forms in which a data set is published.

    Attributes:
      splits: the files of every split, in order.
      parse: from a file's name and content to pixels `[M, 3 * H * H]` and labels `[M]`.
      side: H.
    """

    splits: Mapping[str, tuple[str, ...]]
    parse: Callable[[str, bytes], Batch]
    side: int


def is_archive(path: Path) -> bool:
    """Whether a path is a folder, or a tar or zip archive other than an `.npz` file."""
    if path.is_dir():
        return True
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return not any(file.endswith(".npy") for file in archive.namelist())
    try:
        return path.exists() and tarfile.is_tarfile(path)
    except EOFError:
        return False


def read_archive(name: str, path: Path, split: str) -> Batch:
    """Reads a split of a data set from its official files.

    Args:
      name: `"cifar10"`, `"cifar100"` or `"imagenet16_120"`.
      path: an archive, or a folder with the files in it or one folder below.
      split: `"train"` or `"test"`.

    Returns:
      Images, uint8 `[M, H, H, 3]`, and labels, int32 `[M]`, in the official order.

    Raises:
      InputError: a file is missing, broken, or names a class that is no array.
    """
    try:
        with _open(path) as files:
            form = _choose_form(name, split, files)
            wanted = form.splits[split]
            # In the archive's order, which is the fast one.
            parts = {file: form.parse(file, files[file]()) for file in files if file in wanted}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except _BROKEN_ARCHIVE as error:
        raise InputError(f"{path}: broken or truncated ({error})") from None
    pixels = np.concatenate([parts[file][0] for file in wanted])
    labels = np.concatenate([parts[file][1] for file in wanted])
    if not len(pixels):
        raise InputError(f"{path}: found no images of the classes of {name}")
    images = pixels.reshape(-1, _CHANNELS, form.side, form.side).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int32)


def _choose_form(name: str, split: str, files: _Files) -> _Form:
    """The first form of which all files are there."""
    forms = _FORMS[name]
    for form in forms:
        if set(form.splits[split]) <= set(files):
            return form
    for form in forms:
        missing = [file for file in form.splits[split] if file not in files]
        if len(missing) < len(form.splits[split]):
            raise InputError(f"found no {missing[0]} beside the other files of {name}")
    expected = " or ".join(form.splits[split][0] for form in forms)
    raise InputError(f"found nothing of the {split} split of {name}, expected {expected}")


@contextlib.contextmanager
def _open(path: Path) -> Iterator[_Files]:
    if path.is_dir():
        found = [*path.glob("*/*"), *path.glob("*")]
        yield {file.name: file.read_bytes for file in found if file.is_file()}
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield {
                Path(file).name: functools.partial(archive.read, file)
                for file in archive.namelist()
            }
    else:
        with tarfile.open(path) as archive:
            yield {
                Path(member.name).name: functools.partial(_read_member, archive, member)
                for member in archive.getmembers()
                if member.isfile()
            }


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _parse_records(file: str, content: bytes, *, label_bytes: int) -> Batch:
    """Records of labels, of which the last is the finest, and pixels."""
    size = label_bytes + _CHANNELS * _CIFAR_SIDE**2
    if not content or len(content) % size:
        raise InputError(f"{file}: found {len(content)} bytes, expected records of {size}")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return records[:, label_bytes:], records[:, label_bytes - 1]


def _parse_pickle(file: str, content: bytes, *, labels_key: str, side: int) -> Batch:
    batch = _unpickle(file, content)
    if not isinstance(batch, dict):
        raise InputError(f"{file}: found {type(batch).__name__}, expected a dict")
    by_name = {key.decode() if isinstance(key, bytes) else key: _plain(batch[key]) for key in batch}
    for key in ("data", labels_key):
        if key not in by_name:
            found = ", ".join(map(str, by_name))
            raise InputError(f"{file}: expected a key {key!r}, found {found}")
    pixels, labels = by_name["data"], np.asarray(by_name[labels_key])
    size = _CHANNELS * side**2
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        found = pixels.dtype if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise InputError(f"{file}, data: found {found}, expected an array of uint8")
    if pixels.ndim != 2 or pixels.shape[1] != size:
        raise InputError(f"{file}, data: found shape {pixels.shape}, expected [images, {size}]")
    if labels.shape != (len(pixels),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{file}, {labels_key}: found {labels.dtype} of shape {labels.shape}, "
            f"expected {len(pixels)} integers"
        )
    return pixels, labels


def _parse_imagenet(file: str, content: bytes) -> Batch:
    """The images of the first 120 classes; the files count classes from 1."""
    pixels, labels = _parse_pickle(file, content, labels_key="labels", side=_IMAGENET_SIDE)
    wrong = labels[(labels < 1) | (labels > _IMAGENET_CLASSES)]
    if len(wrong):
        raise InputError(f"{file}: found label {wrong[0]}, expected 1..{_IMAGENET_CLASSES}")
    taken = labels <= _IMAGENET_TAKEN
    return pixels[taken], labels[taken] - 1


class _Dtype:
    """What a pickled dtype becomes: a code, and which byte comes first."""

    def __init__(self, code: str | bytes, align: Any = False, copy: Any = False):
        del align, copy
        self._code, self._order = _text(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = _text(state[1])

    def of_numbers(self) -> np.dtype[Any]:
        """NumPy's own; never of objects, of which an array's content would be the addresses."""
        dtype = np.dtype(self._order + self._code)
        if dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"an array of {dtype}")
        return dtype


class _Array:
    """What a pickled array becomes; NumPy's own parts trust what they are told."""

    array = np.zeros(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        self._fill(content, dtype, shape, "F" if is_fortran else "C")

    def _fill(self, content: bytes, dtype: _Dtype, shape: Any, order: Any) -> None:
        self.array = np.frombuffer(content, dtype.of_numbers()).reshape(shape, order=order)

    @classmethod
    def empty(cls, *_: Any) -> "_Array":
        """NumPy's `_reconstruct`, which leaves the rest to `__setstate__`."""
        return cls()

    @classmethod
    def from_buffer(cls, content: bytes, dtype: _Dtype, shape: Any, order: Any) -> "_Array":
        """NumPy's `_frombuffer`, which protocol 5 names."""
        array = cls()
        array._fill(content, dtype, shape, order)
        return array


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler to which arrays of numbers and plain containers are all there is."""

    def __init__(self, name: str, content: bytes):
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 has another name for the module that older pickles call numpy.core.
        known = _KNOWN.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise InputError(
                f"{self._name}: names the class {module}.{name}, "
                "expected NumPy arrays and plain containers only"
            )
        return known


def _text(value: str | bytes) -> str:
    """A string; Python 2 wrote it as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _encode_latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"bytes as {encoding!r}")
    return text.encode("latin1")


# What a pickled array names, by module and name.
_KNOWN = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array.empty,
    ("numpy.core.numeric", "_frombuffer"): _Array.from_buffer,
    # Bytes by Python 3 in protocol 2.
    ("_codecs", "encode"): _encode_latin1,
}


def _plain(value: Any) -> Any:
    return value.array if isinstance(value, _Array) else value


def _unpickle(file: str, content: bytes) -> Any:
    try:
        return _ArrayUnpickler(file, content).load()
    except InputError:
        raise
    except _BROKEN_PICKLE as error:
        raise InputError(f"{file}: not a readable pickle ({error})") from None


_CIFAR10_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_FORMS = {
    "cifar10": (
        _Form(
            {
                "train": tuple(f"{file}.bin" for file in _CIFAR10_BATCHES),
                "test": ("test_batch.bin",),
            },
            functools.partial(_parse_records, label_bytes=1),
            _CIFAR_SIDE,
        ),
        _Form(
            {"train": _CIFAR10_BATCHES, "test": ("test_batch",)},
            functools.partial(_parse_pickle, labels_key="labels", side=_CIFAR_SIDE),
            _CIFAR_SIDE,
        ),
    ),
    "cifar100": (
        _Form(
            {"train": ("train.bin",), "test": ("test.bin",)},
            functools.partial(_parse_records, label_bytes=2),
            _CIFAR_SIDE,
        ),
        _Form(
            {"train": ("train",), "test": ("test",)},
            functools.partial(_parse_pickle, labels_key="fine_labels", side=_CIFAR_SIDE),
            _CIFAR_SIDE,
        ),
    ),
    "imagenet16_120": (
        _Form(
            {
                "train": tuple(f"train_data_batch_{i}" for i in range(1, 11)),
                "test": ("val_data",),
            },
            _parse_imagenet,
            _IMAGENET_SIDE,
        ),
    ),
}
