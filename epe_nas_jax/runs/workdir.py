"""The work directory of a command: which files it may hold, and which run may continue in it."""

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

# Names of files and folders in work directories.
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
# Names of the score logs: of a search, and of the stage that scores its best cells again.
SEARCH_LOG, REFINING_LOG = "steps", "refine"
_LOG_FILE = "{}-{}.jsonl"
_LOCK_FILE = ".lock-{}"
# Config keys that may change between the parts of a run, because they change no score.
_FREE_KEYS = ("cells_per_step", "benchmark")
# Packages whose versions may not: scores of different programs would be mixed.
_FIXED_VERSIONS = ("epe_nas_jax", "flax", "jax", "jaxlib")
# JAX settings that decide which numbers a random key becomes.
_RANDOM_NUMBERS = ("jax_default_prng_impl", "jax_threefry_partitionable")


def check_workdir(directory: Location, config: Mapping[str, Any]) -> None:
    """Checks that a directory is free, or holds files of a run with the same config.

    Args:
      directory: the work directory, which need not exist.
      config: the resolved config in types of JSON.

    Raises:
      InputError: it is a file, or holds files of another run.
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
    """Locks a work directory, which is created if it does not exist, for one run at a time.

    The system frees the lock when the process ends, however it ends. A store has no locks: there
    the run that writes the next step first continues, and the other one fails.

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
    """Checks that a run may continue in a directory: its scores must be those of the run there.

    In a store without `config.json` that file is created here: of several runs that begin, one
    creates it, and the others are compared with that one.

    Args:
      directory: the work directory.
      content: what `provenance` returns for this run.

    Raises:
      InputError: the config, the data, the code, a version or the kind of device differs.
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
    """The first difference of two results of `provenance` that may change scores, or None.

    Such differences are in the config, the data, the code, a version or the kind of device.
    """
    return _first_difference(_fixed(found), _fixed(expected), "")


def checkpoints_of(directory: Path, seed: int) -> Path:
    """The folder of the checkpoints of a training with a seed.

    Examples:
      >>> from pathlib import Path
      >>> from epe_nas_jax.runs.workdir import checkpoints_of
      >>> checkpoints_of(Path("runs/trained"), seed=1).as_posix()
      'runs/trained/checkpoints/seed_1'
    """
    return directory / CHECKPOINTS / f"seed_{seed}"


def log_file(directory: Location, process: int, log: str = SEARCH_LOG) -> Location:
    """The path of the score log of a process."""
    return directory / _LOG_FILE.format(log, process)


def log_files(directory: Location, log: str = SEARCH_LOG) -> list[Location]:
    """The paths of the score logs of all processes that ever took part in the run."""
    return sorted(directory.glob(_LOG_FILE.format(log, "*")))


def provenance(
    config: Mapping[str, Any],
    inputs: Sequence[np.ndarray | jax.Array],
    packages: Iterable[str] = (),
) -> dict[str, Any]:
    """A record of where results come from: the content of `config.json`.

    Args:
      config: the resolved config in types of JSON.
      inputs: the images of the mini-batch or data set, and their labels; empty for a command
        without images.
      packages: packages that the run uses, besides those of every command.
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
    """Reads the `config.json` of a work directory, as `provenance` made it.

    Raises:
      InputError: there is no such file, or it holds something else.

    Examples:
      >>> from pathlib import Path
      >>> from epe_nas_jax.runs.workdir import read_provenance
      >>> read_provenance(Path("runs/trained"))["config"]["data"]["name"]
      'digits'
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
    """The SHA-256 of the code of a package and its sub-packages, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def device_name() -> str:
    """The devices of this process in words, such as `CPU, 2 cores`."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        num_cores = jax.local_device_count()
        return f"CPU, {num_cores} core" + ("s" if num_cores > 1 else "")
    return f"{jax.local_device_count()} x {device.device_kind}"


def to_json(content: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file with some content."""
    return (json.dumps(content, indent=2) + "\n").encode()


def _scoring(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that decides what is scored and how."""
    return {key: value for key, value in config.items() if key not in _FREE_KEYS}


def _fixed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `config.json` that must be the same in all parts of a run."""
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
