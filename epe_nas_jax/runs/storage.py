"""How files of a work directory are written, so that no kill and no second run can damage them.

A work directory is a path of this machine, or a URL that fsspec can write to, such as `gs://` or
`s3://`. Such a store writes an object completely or not at all, but cannot append to one, and has
no locks. So a log is a growing file on this machine, and a folder with one object per line in a
store; of two runs in one folder of a store, the one that writes a line second fails.
"""

import errno
import io
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from upath import UPath

from epe_nas_jax.data.files import user_path
from epe_nas_jax.errors import InputError

# A directory or a file: of this machine, or in a store.
Location = Path | UPath

_OBJECT = re.compile(r"\d{8}")


def location_of(path: str | os.PathLike[str]) -> Location:
    """The location of a path of this machine, or of a URL.

    Raises:
      InputError: the URL's kind is unknown, or its store cannot be reached.
    """
    if "://" not in os.fspath(path):
        return user_path(path)
    if os.fspath(path).startswith("file:"):
        raise InputError(f"{path}: found a URL, expected a path without file://")
    try:
        # No cache: another run may write at any time.
        location = UPath(path, use_listings_cache=False)
        location.exists()
    # Every store raises exceptions of its own.
    except Exception as error:
        raise InputError(f"{path}: {error}") from None
    return location


def local_path(path: str | os.PathLike[str]) -> Path:
    """The location of a path of this machine; a URL is refused.

    Raises:
      InputError: the path is a URL.
    """
    if "://" in os.fspath(path):
        raise InputError(f"{path}: found a URL, expected a path of this machine")
    return user_path(path)


def write(path: Location, content: bytes) -> None:
    """Writes a file that appears complete or not at all, even if the power fails.

    Raises:
      OSError: it cannot be written; nothing is left of it.
    """
    if not isinstance(path, Path):
        path.fs.pipe_file(path.path, content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb", buffering=0) as file:
            _write_through(file, path, content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_directory(path.parent)


def check_new_folder(path: Path) -> None:
    """Checks that `write_folder` may write a folder.

    Raises:
      InputError: the path exists and is no empty folder.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: found a file, expected no such folder yet, or an empty one")
    if path.is_dir() and any(path.iterdir()):
        raise InputError(
            f"{path}: found a folder that is not empty, expected none, or an empty one"
        )


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder of files that appears complete or not at all.

    Args:
      path: of the folder, as `check_new_folder` accepts it.
      files: contents by name.

    Raises:
      OSError: it cannot be written; nothing is left of it.
    """
    path = path.resolve()
    partial = path.with_name(f".{path.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    try:
        for name, content in files.items():
            write(partial / name, content)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _sync_directory(path.parent)


def create(path: UPath, content: bytes) -> None:
    """Creates an object of a store; of several runs that try it, only one succeeds.

    Raises:
      FileExistsError: the object exists, with another content.
      OSError: it cannot be written.
    """
    try:
        path.fs.pipe_file(path.path, content, mode="create")
    except FileExistsError:
        # With the same content, this was a second try after the answer to the first was lost.
        if path.fs.cat_file(path.path) != content:
            raise


class Log(Protocol):
    """A log of lines to which others can only be appended.

    Attributes:
      lines: the lines that it held when it was read; the last one may be incomplete.
    """

    lines: list[bytes]

    def where(self, number: int) -> str:
        """The place of a line, counted from 1, in words for messages."""

    def open(self, num_lines: int) -> None:
        """Opens the log for more lines after its first `num_lines`; all later ones are removed.

        Raises:
          InputError: it is a link, which could lead out of the directory.
          OSError: it cannot be written.
        """

    def append(self, line: bytes) -> None:
        """Appends a line, which is on disk when this returns.

        Raises:
          InputError: another run appended one.
          OSError: it cannot be written, for example because the disk is full.
        """

    def close(self) -> None:
        """Closes the log after `open`."""


def log_at(path: Location) -> Log:
    """Reads the log at a location, where there may be none yet.

    Raises:
      InputError: there is something else.
      OSError: it cannot be read.
    """
    return _FileLog(path) if isinstance(path, Path) else _ObjectLog(path)


class _FileLog:
    """A log that is a file."""

    def __init__(self, path: Path):
        self._path = path
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: found something else, expected a file")
        content = path.read_bytes() if path.exists() else b""
        self.lines = io.BytesIO(content).readlines()

    def where(self, number: int) -> str:
        return f"{self._path}, line {number}"

    def open(self, num_lines: int) -> None:
        self._file = open_for_appending(self._path)
        self._file.truncate(sum(map(len, self.lines[:num_lines])))

    def append(self, line: bytes) -> None:
        _write_through(self._file, self._path, line)

    def close(self) -> None:
        self._file.close()


class _ObjectLog:
    """A log that is a folder of objects, one per line, whose names are numbers."""

    def __init__(self, path: UPath):
        self._path = path
        names = [name.rpartition("/")[2] for name in path.fs.find(path.path)]
        self._objects = [path / name for name in sorted(filter(_OBJECT.fullmatch, names))]
        # In one request, if the store can.
        contents = path.fs.cat([place.path for place in self._objects]) if self._objects else {}
        self.lines = [contents[place.path] for place in self._objects]

    def where(self, number: int) -> str:
        return f"{self._objects[number - 1]}, a line of the log"

    def open(self, num_lines: int) -> None:
        for place in self._objects[num_lines:]:
            place.unlink()
        self._next = 1 + int(self._objects[num_lines - 1].name) if num_lines else 0

    def append(self, line: bytes) -> None:
        try:
            create(self._path / f"{self._next:08d}", line)
        except FileExistsError:
            directory = self._path.parent
            raise InputError(f"workdir {directory}: another run is at work in it") from None
        self._next += 1

    def close(self) -> None:
        pass


def check_no_links(directory: Path) -> None:
    """Checks that a directory, which need not exist, is no link and holds none.

    Raises:
      InputError: there is a link, which could lead out of the directory.
    """
    for path in (directory, *directory.rglob("*")):
        if path.is_symlink():
            raise InputError(f"{path}: found a link, expected none in a work directory")


def open_for_appending(path: Path) -> BinaryIO:
    """Opens a file of a work directory for appending, which is created if it does not exist.

    Raises:
      InputError: it is a link, or has another name too, which may be outside the directory.
      OSError: it cannot be opened.
    """
    # Follows no link, and does not wait for a pipe.
    safely = os.O_NOFOLLOW | os.O_NONBLOCK
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | safely
    try:
        file = os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path}: found a link, expected a file") from None
        raise
    if os.fstat(file.fileno()).st_nlink > 1:
        file.close()
        raise InputError(f"{path}: found a file that has another name too, expected one of its own")
    _sync_directory(path.parent)
    return file


def _write_through(file: BinaryIO, path: Path, content: bytes) -> None:
    """Writes to an open file and returns when the content is on disk.

    Raises:
      OSError: with the path in its message, which the system leaves out.
    """
    view = memoryview(content)
    try:
        while view:
            view = view[file.write(view) :]
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _sync_directory(directory: Path) -> None:
    """Makes sure that names created or changed in a directory are on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
