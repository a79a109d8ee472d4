"""The work directory of a command: what it may hold, and what may go on in it."""

import contextlib
import fcntl
import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from epe_nas_jax._version import __version__
from epe_nas_jax.errors import InputError
from epe_nas_jax.runs.storage import Location, create, log_at, open_for_appending

CONFIG_FILE = "config.json"
SCORES_FILE = "scores.csv"
SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"
COMPARE_FILE = "compare.json"
PLOT_FILE = "compare.png"
METRICS_FILE = "metrics.csv"
RANKING_FILE = "ranking.csv"
CONFUSION_FILE = "confusion.csv"
LATENCY_FILE = "latency.csv"
CHECKPOINTS = "checkpoints"

_RESULT_FILES = (
    SCORES_FILE,
    SUMMARY_FILE,
    REPORT_FILE,
    COMPARE_FILE,
    PLOT_FILE,
    METRICS_FILE,
    RANKING_FILE,
    CONFUSION_FILE,
    LATENCY_FILE,
    CHECKPOINTS,
)
_PACKAGE = Path(__file__).parents[1]
# The score logs: of a search, and of the stage that scores its best cells again.
SEARCH_LOG, REFINING_LOG = "steps", "refine"
_LOG_FILE = "{}-{}.jsonl"
_LOCK_FILE = ".lock-{}"
# What may change between the parts of a run: it changes no score.
_FREE_KEYS = ("cells_per_step", "benchmark")
# What may not, besides the config: numbers of different programs or devices would be mixed.
_FIXED_VERSIONS = ("epe_nas_jax", "flax", "jax", "jaxlib")
# By which of JAX's generators a key becomes numbers.
_RANDOM_NUMBERS = ("jax_default_prng_impl", "jax_threefry_partitionable")


def check_workdir(directory: Location, config: Mapping[str, Any]) -> None:
    """Checks that a directory is free, or holds files of the very same config.

    Args:
      directory: the work directory, which need not exist.
      config: the resolved config in JSON's types.

    Raises:
      InputError: it is a file, or holds another run's files.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"workdir {directory}: found a file, expected a directory")
    earlier = directory / CONFIG_FILE
    if not earlier.exists():
        results = [directory / name for name in _RESULT_FILES if (directory / name).exists()]
        # A kill between opening a log and writing the config leaves an empty one.
        files = [path for log in (SEARCH_LOG, REFINING_LOG) for path in log_files(directory, log)]
        logs = [path for path in files if log_at(path).lines]
        for path in (*results, *logs):
            raise InputError(
                f"workdir {directory}: holds {path.name} of another run, expected none"
            )
        return
    found = read_provenance(directory)
    difference = _first_difference(_scoring(found["config"]), _scoring(config))
    if difference:
        raise InputError(f"workdir {directory}: holds another run, {difference}")


@contextlib.contextmanager
def locked(directory: Location, process: int = 0) -> Iterator[None]:
    """Keeps a work directory, which is made if need be, to one run at a time.

    The system frees the lock when the process ends, however it ends. A store has none: there the
    first to write the next step goes on, and the other one is refused.

    Args:
      directory: the work directory.
      process: index of this process in the run.

    Raises:
      InputError: another run is at work in it.
    """
    if not isinstance(directory, Path):
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    with open_for_appending(directory / _LOCK_FILE.format(process)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"workdir {directory}: another run is at work in it") from None
        yield


def check_same_run(directory: Location, content: Mapping[str, Any]) -> None:
    """Checks that going on with what a directory holds gives the scores of one run.

    In a store without `config.json` it is made here: of several runs that begin, one does it, and
    the others are compared with that one.

    Args:
      directory: the work directory.
      content: what `provenance` says of this run.

    Raises:
      InputError: the config, the data, the code, a version or the kind of device is another one.
    """
    path = directory / CONFIG_FILE
    if not path.exists():
        if isinstance(path, Path):
            return
        with contextlib.suppress(FileExistsError):
            create(path, to_json(content))
    difference = difference_in_scores(read_provenance(directory), content)
    if difference:
        raise InputError(
            f"workdir {directory}: holds a run whose scores may differ, {difference}; "
            "finish it as it was begun or take another directory"
        )


def difference_in_scores(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """The first thing in which two results of `provenance` differ that may change scores, if any.

    It is the config, the data, the code, a version or the kind of device.
    """
    return _first_difference(_fixed(found), _fixed(expected), "")


def checkpoints_of(directory: Path, seed: int) -> Path:
    """Where the checkpoints of a training with a seed lie."""
    return directory / CHECKPOINTS / f"seed_{seed}"


def log_file(directory: Location, process: int, log: str = SEARCH_LOG) -> Location:
    """The score log of a process."""
    return directory / _LOG_FILE.format(log, process)


def log_files(directory: Location, log: str = SEARCH_LOG) -> list[Location]:
    """The score logs of all processes that ever took part."""
    return sorted(directory.glob(_LOG_FILE.format(log, "*")))


def provenance(
    config: Mapping[str, Any],
    inputs: Sequence[np.ndarray | jax.Array],
    packages: Iterable[str] = (),
) -> dict[str, Any]:
    """Where results come from: the content of `config.json`.

    Args:
      config: the resolved config in JSON's types.
      inputs: the images of the mini-batch or data set, and their labels; none for a command that
        has none.
      packages: packages that took part, besides those of every command.
    """
    digest = hashlib.sha256()
    for array in inputs:
        digest.update(np.ascontiguousarray(array).tobytes())
    return {
        "config": dict(config),
        "versions": {
            "epe_nas_jax": __version__,
            "python": platform.python_version(),
            **{
                package: metadata.version(package)
                for package in ("jax", "jaxlib", "flax", "numpy", *packages)
            },
        },
        "devices": [str(device.device_kind) for device in jax.local_devices()],
        "random_numbers": {name: getattr(jax.config, name) for name in _RANDOM_NUMBERS},
        "minibatch_sha256": digest.hexdigest() if inputs else None,
        "code_sha256": code_digest(_PACKAGE),
    }


def read_provenance(directory: Location) -> dict[str, Any]:
    """Reads what `provenance` said of the run that a directory holds.

    Raises:
      InputError: it holds no such `config.json`.
    """
    try:
        path = directory / CONFIG_FILE
        content = json.loads(path.read_text()) if path.is_file() else {}
        dicts = content["config"], content.get("versions", {})
        texts = content.get("devices", [])
        if all(isinstance(part, dict) for part in dicts) and all(
            isinstance(text, str) for text in texts
        ):
            return content
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise InputError(f"workdir {directory}: holds a {CONFIG_FILE} of something else")


def code_digest(package: Path) -> str:
    """One number for the code of a package, that of its sub-packages included."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def device_name() -> str:
    """The device in words a person reads."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        num_cores = jax.local_device_count()
        return f"CPU, {num_cores} core" + ("s" if num_cores > 1 else "")
    return f"{jax.local_device_count()} x {device.device_kind}"


def to_json(content: Mapping[str, Any]) -> bytes:
    """A JSON file's content."""
    return (json.dumps(content, indent=2) + "\n").encode()


def _scoring(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that says what is scored and how."""
    return {key: value for key, value in config.items() if key not in _FREE_KEYS}


def _fixed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `config.json` that all parts of a run have in common."""
    versions = content.get("versions", {})
    return {
        "config": _scoring(content["config"]),
        "minibatch_sha256": content.get("minibatch_sha256"),
        "versions": {name: versions.get(name) for name in _FIXED_VERSIONS},
        "code_sha256": content.get("code_sha256"),
        "random_numbers": content.get("random_numbers"),
        "kinds of devices": sorted(set(content.get("devices", ()))),
    }


def _first_difference(found: Any, expected: Any, key: str = "config") -> str | None:
    """The first key in which two configs differ, as text."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted({*found, *expected}):
            place = f"{key}.{name}" if key else name
            difference = _first_difference(found.get(name), expected.get(name), place)
            if difference:
                return difference
        return None
    return None if found == expected else f"{key}: found {found!r}, expected {expected!r}"
