"""Downloads official archives from their authors' sites into the user's cache directory."""

import dataclasses
from pathlib import Path

import platformdirs
from tqdm import tqdm

from epe_nas_jax.errors import InputError

_CHUNK_BYTES = 2**20
# Seconds: a bar appears with the first bytes, and not if nothing can be downloaded.
_BAR_DELAY = 1e-6


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file that the authors of a data set publish.

    Attributes:
      url: where they publish it; the last part is the file's name.
      md5: the MD5 checksum that they give.
    """

    url: str
    md5: str

    @property
    def file_name(self) -> str:
        """The file's name, the last part of the URL."""
        return self.url.rsplit("/", 1)[1]


class _Bar(tqdm):  # type: ignore[type-arg]
    """A progress bar for pooch: true before its size is known, and reset to 0 before it is full."""

    def __bool__(self) -> bool:
        return True

    def reset(self, total: float | None = None) -> None:  # noqa: ARG002
        self.n = 0


def default_cache() -> Path:
    """The folder of the user's cache directory in which downloads are kept."""
    return platformdirs.user_cache_path("epe_nas_jax") / "data"


def fetch(archive: Archive, cache: Path) -> Path:
    """Downloads an archive unless the cache has it, with a progress bar on stderr.

    A file appears in the cache when it is complete and its checksum is right. A download that was
    interrupted starts from the beginning, because pooch does not resume.

    Args:
      archive: what to download.
      cache: a folder, which is created if it does not exist.

    Returns:
      The path of the file in the cache.

    Raises:
      InputError: the file cannot be downloaded or written, or has another checksum.
    """
    # Imported late: it makes a notebook warn of its own progress bar.
    import pooch

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
