"""The official files of data sets, as their authors publish them.

CIFAR comes as records of bytes or as pickled batches (Krizhevsky 2009), ImageNet16 as pickled
batches (Chrabaszcz et al. 2017). Each of these forms lies in a tar or zip archive, or in a folder
that an archive was extracted to. Nothing is extracted to disk.
"""

import contextlib
import dataclasses
import functools
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from epe_nas_jax.data.safe_pickle import load_arrays
from epe_nas_jax.errors import InputError

_CHANNELS = 3
_IMAGENET_CLASSES = 1000
_CHUNK_BYTES = 2**20

Batch = tuple[np.ndarray, np.ndarray]
# The files of a folder or archive: their contents by name without folders.
_Files = Mapping[str, Callable[[], bytes]]


@dataclasses.dataclass(frozen=True)
class Form:
    """One of the forms in which a data set is published.

    Attributes:
      splits: the names of every split's files, in order.
      parse: from a file's name and content to pixels, uint8 `[M, 3 * H * H]`, and labels, integers
        `[M]`; raises `InputError`.
      side: H.
    """

    splits: Mapping[str, tuple[str, ...]]
    parse: Callable[[str, bytes], Batch]
    side: int


def records(train: Sequence[str], test: Sequence[str], *, label_bytes: int, side: int) -> Form:
    """The form of records of bytes: an image's labels, then its pixels by channel.

    Args:
      train: names of the files of the training split.
      test: names of the files of the test split.
      label_bytes: how many labels a record begins with, of which the last one, the finest, is read.
      side: H.
    """
    parse = functools.partial(_parse_records, label_bytes=label_bytes, side=side)
    return Form({"train": tuple(train), "test": tuple(test)}, parse, side)


def pickled_batches(
    train: Sequence[str], test: Sequence[str], *, labels_key: str, side: int
) -> Form:
    """The form of pickled dicts of pixels, `"data"`, and labels.

    Args:
      train: names of the files of the training split.
      test: names of the files of the test split.
      labels_key: the dict's key of the labels.
      side: H.
    """
    parse = functools.partial(_parse_pickle, labels_key=labels_key, side=side)
    return Form({"train": tuple(train), "test": tuple(test)}, parse, side)


def imagenet_batches(
    train: Sequence[str], test: Sequence[str], *, num_classes: int, side: int
) -> Form:
    """The form of downsampled ImageNet: pickled dicts in which classes count from 1.

    Args:
      train: names of the files of the training split.
      test: names of the files of the test split.
      num_classes: K, how many of the 1,000 classes are taken, the first ones; images of the others
        are left out.
      side: H.
    """
    parse = functools.partial(_parse_imagenet, num_classes=num_classes, side=side)
    return Form({"train": tuple(train), "test": tuple(test)}, parse, side)


def is_archive(path: Path) -> bool:
    """Whether a path is a folder, or a readable tar or zip archive other than an `.npz` file."""
    if not path.is_file():
        return path.is_dir()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return not any(file.endswith(".npy") for file in archive.namelist())
        return tarfile.is_tarfile(path)
    # Python's readers can raise any exception on a damaged archive.
    except Exception:
        return False


def has_split(forms: Sequence[Form], path: Path, split: str) -> bool:
    """Whether an archive that `read_archive` has read has all files of a split in one form."""
    with _open(path) as files:
        return any(set(form.splits[split]) <= set(files) for form in forms)


def read_archive(name: str, forms: Sequence[Form], path: Path, split: str) -> Batch:
    """Reads a split of a data set from its official files.

    Args:
      name: of the data set, for messages.
      forms: those in which it is published; the first one whose files are all there is read.
      path: an archive, or a folder with the files in it or one folder below.
      split: `"train"` or `"test"`.

    Returns:
      Images, uint8 `[M, H, H, 3]`, and labels, integers `[M]`, in the official order.

    Raises:
      InputError: a file is missing or broken, or a pickle holds something else than arrays and
        plain containers.
    """
    try:
        with _open(path) as files:
            form = _choose_form(name, forms, split, files)
            wanted = form.splits[split]
            # In the archive's order, which is the fast one.
            parts = {file: form.parse(file, files[file]()) for file in files if file in wanted}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    # Python's readers can raise any exception on a damaged archive.
    except Exception as error:
        raise InputError(f"{path}: broken or truncated ({error})") from None
    pixels = np.concatenate([parts[file][0] for file in wanted])
    labels = np.concatenate([parts[file][1] for file in wanted])
    if not len(pixels):
        raise InputError(f"{path}: found no images of the classes of {name}")
    images = pixels.reshape(-1, _CHANNELS, form.side, form.side).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels


def _choose_form(name: str, forms: Sequence[Form], split: str, files: _Files) -> Form:
    """The first form of which all files are there."""
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
    """The files of a folder, a zip archive or a tar archive."""
    if path.is_dir():
        found = [*path.glob("*/*"), *path.glob("*")]
        yield _by_name((file.name, file.read_bytes) for file in found if file.is_file())
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield _by_name(
                (Path(file).name, functools.partial(archive.read, file))
                for file in archive.namelist()
            )
    else:
        with tarfile.open(path) as archive:
            yield _by_name(
                (Path(member.name).name, functools.partial(_read_member, archive, member))
                for member in archive.getmembers()
                if member.isfile()
            )
            # A compressed archive ends with its checksum: reading all of it checks it.
            while archive.fileobj is not None and archive.fileobj.read(_CHUNK_BYTES):
                pass


def _by_name(files: Iterable[tuple[str, Callable[[], bytes]]]) -> _Files:
    """Files by name; one that is there twice cannot be read."""
    by_name: dict[str, Callable[[], bytes]] = {}
    for name, read in files:
        by_name[name] = functools.partial(_refuse_twice, name) if name in by_name else read
    return by_name


def _refuse_twice(name: str) -> bytes:
    raise InputError(f"found {name} twice, expected it once")


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _parse_records(file: str, content: bytes, *, label_bytes: int, side: int) -> Batch:
    size = label_bytes + _CHANNELS * side**2
    if not content or len(content) % size:
        raise InputError(f"{file}: found {len(content)} bytes, expected records of {size}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, size)
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


def _parse_pickle(file: str, content: bytes, *, labels_key: str, side: int) -> Batch:
    batch = load_arrays(file, content)
    for key in ("data", labels_key):
        if key not in batch:
            found = ", ".join(map(str, batch))
            raise InputError(f"{file}: expected a key {key!r}, found {found}")
    pixels, labels = batch["data"], np.asarray(batch[labels_key])
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


def _parse_imagenet(file: str, content: bytes, *, num_classes: int, side: int) -> Batch:
    pixels, labels = _parse_pickle(file, content, labels_key="labels", side=side)
    wrong = labels[(labels < 1) | (labels > _IMAGENET_CLASSES)]
    if len(wrong):
        raise InputError(f"{file}: found label {wrong[0]}, expected 1..{_IMAGENET_CLASSES}")
    taken = labels <= num_classes
    return pixels[taken], labels[taken] - 1
