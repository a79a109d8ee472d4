"""The work directory of a command: what it may hold, and how its files are written."""

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from epe_nas_jax._version import __version__
from epe_nas_jax.errors import InputError

CONFIG_FILE = "config.json"
SCORES_FILE = "scores.csv"
SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"
COMPARE_FILE = "compare.json"
PLOT_FILE = "compare.png"
METRICS_FILE = "metrics.csv"
CHECKPOINTS = "checkpoints"

_RESULT_FILES = (
    SCORES_FILE,
    SUMMARY_FILE,
    REPORT_FILE,
    COMPARE_FILE,
    PLOT_FILE,
    METRICS_FILE,
    CHECKPOINTS,
)


def check_workdir(directory: Path, config: Mapping[str, Any]) -> None:
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
        for name in _RESULT_FILES:
            if (directory / name).exists():
                raise InputError(f"workdir {directory}: holds {name} of another run, expected none")
        return
    try:
        found = json.loads(earlier.read_text())["config"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"workdir {directory}: holds a {CONFIG_FILE} of something else") from None
    difference = _first_difference(found, config)
    if difference:
        raise InputError(f"workdir {directory}: holds another run, {difference}")


def provenance(
    config: Mapping[str, Any],
    images: np.ndarray | jax.Array,
    labels: np.ndarray | jax.Array,
    packages: Iterable[str] = (),
) -> dict[str, Any]:
    """Where results come from: the content of `config.json`.

    Args:
      config: the resolved config in JSON's types.
      images: the mini-batch or the data set.
      labels: its classes.
      packages: packages that took part, besides those of every command.
    """
    digest = hashlib.sha256(np.ascontiguousarray(images).tobytes())
    digest.update(np.ascontiguousarray(labels).tobytes())
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
        "minibatch_sha256": digest.hexdigest(),
    }


def device_name() -> str:
    """The device in words a person reads."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return f"CPU, {len(os.sched_getaffinity(0))} cores"
    return f"{jax.local_device_count()} x {device.device_kind}"


def to_json(content: Mapping[str, Any]) -> bytes:
    """A JSON file's content."""
    return (json.dumps(content, indent=2) + "\n").encode()


def write(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _first_difference(found: Any, expected: Any, key: str = "config") -> str | None:
    """The first key in which two configs differ, as text."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted({*found, *expected}):
            difference = _first_difference(found.get(name), expected.get(name), f"{key}.{name}")
            if difference:
                return difference
        return None
    return None if found == expected else f"{key}: found {found!r}, expected {expected!r}"
