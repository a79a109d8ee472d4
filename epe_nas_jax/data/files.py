"""Paths as users give them: `~` is their home, and only regular files are read."""

import os
from pathlib import Path

from epe_nas_jax.errors import InputError


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path of this machine, with the home directory in place of a leading `~`.

    Shells do not expand the `~` of `--config.data.path=~/images`.

    Raises:
      InputError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: found no such user, expected a path") from None


def regular_file(path: str | os.PathLike[str], expected: str) -> Path:
    """The path of a regular file, with the home directory in place of a leading `~`.

    Anything else is refused before it is opened: reading a named pipe or a device could wait for
    ever.

    Args:
      path: of the file, or of a link to it.
      expected: what it should be, for messages, such as `"an .npz file"`.

    Raises:
      InputError: there is no file, or something else than a regular file.
    """
    file = user_path(path)
    try:
        if file.is_file():
            return file
        check_no_special_file(file, expected)
        found = "found a folder" if file.is_dir() else "no such file"
    except OSError as error:
        found = str(error.strerror)
    raise InputError(f"{path}: {found}, expected {expected}")


def check_no_special_file(path: Path, expected: str) -> None:
    """Checks that a path names no pipe, socket or device, if it names anything.

    Args:
      path: of this machine.
      expected: what it should be, for messages.

    Raises:
      InputError: it names a pipe, a socket or a device.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: found a pipe or a device, expected {expected}")
