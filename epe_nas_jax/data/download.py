"""Official archives from their authors' site, kept in the user's cache directory."""

import dataclasses
from pathlib import Path

import pooch
from tqdm import tqdm

from epe_nas_jax.errors import InputError

_CHUNK_BYTES = 2**20
# Seconds: a bar appears with the first bytes, not with an attempt that fails.
_BAR_DELAY = 1e-6


@dataclasses.dataclass(frozen=True)
class Archive:
    """A published file.

    Attributes:
      url: where its authors offer it; the last part is the file's name.
      md5: its checksum as they give it.
    """

    url: str
    md5: str

    @property
    def file_name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1]


class _Bar(tqdm):  # type: ignore[type-arg]
    """A progress bar as pooch uses it: true before its size is known, and begun anew to fill it."""

    def __bool__(self) -> bool:
        return True

    def reset(self, total: float | None = None) -> None:  # noqa: ARG002
        self.n = 0


def default_cache() -> Path:
    """The folder of the user's cache directory in which downloads are kept."""
    return Path(pooch.os_cache("epe_nas_jax")) / "data"


def fetch(archive: Archive, cache: Path) -> Path:
    """Downloads an archive unless the cache has it, with a progress bar on stderr.

    A file appears in the cache when it is whole and its checksum right. A download that was cut off
    starts anew: pooch does not resume.

    Args:
      archive: what to get.
      cache: a folder, made if need be.

    Returns:
      Where it lies.

    Raises:
      InputError: it cannot be reached or written, or has another checksum.
    """
    pooch.get_logger().setLevel("WARNING")
    try:
        with _Bar(unit="B", unit_scale=True, mininterval=0, delay=_BAR_DELAY) as bar:
            path = pooch.retrieve(
                archive.url,
                known_hash=f"md5:{archive.md5}",
                fname=archive.file_name,
                path=cache,
                downloader=pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK_BYTES),
            )
    except (OSError, ValueError) as error:
        raise InputError(
            f"{archive.url}: could not be downloaded ({error}); get it in another way and put it "
            f"into {cache}, or name it in data.path"
        ) from None
    return Path(path)
