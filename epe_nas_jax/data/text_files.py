"""Host side: the text of a file, plain or compressed.

Compression and encoding are recognised by a file's content, not by its name.
"""

import bz2
import codecs
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from epe_nas_jax.errors import InputError

# How messages about unreadable text end.
EXPECTED = "expected CSV or JSON in UTF-8"

# Bytes that decompressing xz may use: a broken file can ask for any number of them.
_XZ_MEMORY = 1 << 30
# What the decompressors raise on broken files.
_BROKEN = (
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def read_text(path: Path) -> str:
    """Reads a file's text, which may be compressed by gzip, bzip2, xz or zip.

    Args:
      path: a regular file: UTF-8, or UTF-16 with a byte order mark; a zip archive must hold one
        file of text, besides hidden files that operating systems add.

    Returns:
      The text, without a byte order mark.

    Raises:
      InputError: the file is no text, or broken; the caller says which file.
      OSError: it cannot be read.
    """
    content = _decompressed(path.read_bytes())
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"found no text, {EXPECTED}") from None


def _decompressed(content: bytes) -> bytes:
    for form, (magic, decompress) in _COMPRESSED.items():
        if content.startswith(magic):
            try:
                return decompress(content)
            except InputError:
                raise
            except _BROKEN as error:
                raise InputError(
                    f"not a readable table (broken {form}: {error}), {EXPECTED}"
                ) from None
    return content


def _unzipped(content: bytes) -> bytes:
    """The only file of a zip archive, besides hidden files that operating systems add."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [
            member
            for member in archive.infolist()
            if not member.is_dir()
            and not member.filename.startswith("__MACOSX/")
            and not Path(member.filename).name.startswith(".")
        ]
        if len(members) != 1:
            raise InputError(
                f"found a zip archive of {len(members)} files (an Excel workbook is one, too), "
                "expected one file, CSV or JSON"
            )
        if members[0].flag_bits & 1:
            raise InputError("found an encrypted zip archive, expected one without a password")
        return archive.read(members[0])


def _unxz(content: bytes) -> bytes:
    return lzma.decompress(content, lzma.FORMAT_XZ, _XZ_MEMORY)


_COMPRESSED: dict[str, tuple[bytes | tuple[bytes, ...], Callable[[bytes], bytes]]] = {
    "gzip": (b"\x1f\x8b", gzip.decompress),
    "bzip2": (b"BZh", bz2.decompress),
    "xz": (b"\xfd7zXZ\0", _unxz),
    # An archive without files begins with the second.
    "zip": ((b"PK\x03\x04", b"PK\x05\x06"), _unzipped),
}
