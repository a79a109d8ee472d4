"""From a config to a finished work directory."""

import hashlib
import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from epe_nas_jax import benchmark, ranking
from epe_nas_jax._version import __version__
from epe_nas_jax.batching import CellScorer, Protocol
from epe_nas_jax.data import Dataset, load_dataset
from epe_nas_jax.errors import InputError
from epe_nas_jax.genotype import check_num_samples, format_arch
from epe_nas_jax.minibatch import draw_minibatch
from epe_nas_jax.network import Network
from epe_nas_jax.report import result_table
from epe_nas_jax.search import SearchResult, random_search

CONFIG_FILE = "config.json"
SCORES_FILE = "scores.csv"
SUMMARY_FILE = "summary.json"

_NUM_BEST = 5


def search_and_report(config: ConfigDict, workdir: str | os.PathLike[str]) -> str:
    """Searches as the config says and leaves `config.json`, `scores.csv`, `summary.json`.

    Everything that can be wrong is checked before the first cell is scored, and the files appear
    when the search is over, each of them whole.

    Args:
      config: as in `configs/base.py`.
      workdir: the work directory; it is made if need be, and may hold an earlier run of the very
        same config, which is replaced.

    Returns:
      The result as a table to print.

    Raises:
      InputError: something in the config, the data or the work directory cannot be used.
    """
    directory = Path(workdir)
    _check_workdir(directory, config)
    check_num_samples(config.search.num_samples, replace=config.search.replace)
    accuracies = None
    if config.benchmark.path:
        accuracies = benchmark.read_accuracies(config.benchmark.path, config.benchmark.column)
    dataset = load_dataset(
        config.data.name,
        config.data.path,
        images_key=config.data.images_key,
        labels_key=config.data.labels_key,
    )
    search_key, batch_key = jax.random.split(jax.random.key(config.seed))
    images, labels = _images_to_score_on(config, dataset, batch_key)
    scorer = CellScorer(
        images,
        labels,
        seed=config.seed,
        network=Network(
            num_classes=dataset.num_classes,
            channels=_at_least_one("network.channels", config.network.channels),
            cells_per_stage=_at_least_one(
                "network.cells_per_stage", config.network.cells_per_stage
            ),
        ),
        protocol=Protocol(
            init=config.score.init,
            variant=config.score.variant,
            num_inits=config.score.num_inits,
            fresh_batch=config.data.batch_size if config.data.fresh_minibatch else None,
            augment=config.data.augment and config.data.fresh_minibatch,
        ),
        cells_per_step=_cells_per_step(config.cells_per_step),
        black=dataset.black(),
        progress=True,
    )

    start = time.perf_counter()
    scorer.compile()
    compile_seconds = time.perf_counter() - start
    start = time.perf_counter()
    result = random_search(
        search_key,
        scorer,
        num_samples=config.search.num_samples,
        replace=config.search.replace,
    )
    seconds = time.perf_counter() - start

    archs = [format_arch(genotype) for genotype in result.genotypes]
    summary = _summarise(result, archs, accuracies, seconds, compile_seconds)
    provenance = _provenance(config, images, labels)
    _write(directory / CONFIG_FILE, _to_json(provenance))
    _write(directory / SCORES_FILE, _scores_csv(archs, result.scores, accuracies))
    _write(directory / SUMMARY_FILE, _to_json(summary))
    return result_table(summary, _best_cells(result, archs, accuracies))


def _images_to_score_on(
    config: ConfigDict, dataset: Dataset, key: jax.Array
) -> tuple[np.ndarray | jax.Array, np.ndarray | jax.Array]:
    """The mini-batch of all cells or, for fresh ones, the whole data set."""
    size = config.data.batch_size
    if not 2 <= size <= len(dataset.images):
        raise InputError(
            f"data.batch_size: found {size}, expected 2..{len(dataset.images)}, "
            f"the size of the data set {config.data.name!r}"
        )
    images = dataset.normalised()
    if config.data.fresh_minibatch:
        return images, dataset.labels
    black = np.asarray(dataset.black(), np.float32)
    return draw_minibatch(
        key,
        jax.numpy.asarray(images),
        jax.numpy.asarray(dataset.labels),
        size,
        augment=config.data.augment,
        black=jax.numpy.asarray(black),
    )


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{name}: found {value}, expected at least 1")
    return value


def _cells_per_step(value: int | str) -> int | str:
    """On the command line the number arrives as text."""
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _summarise(
    result: SearchResult,
    archs: list[str],
    accuracies: dict[str, float] | None,
    seconds: float,
    compile_seconds: float,
) -> dict[str, Any]:
    num_scored = len(archs)
    summary: dict[str, Any] = {
        "best_arch": None if result.best is None else archs[result.best],
        "best_score": None if result.best is None else float(result.scores[result.best]),
        "num_scored": num_scored,
        "num_degenerate": int(np.isnan(result.scores).sum()),
        "seconds": seconds,
        "compile_seconds": compile_seconds,
        "ms_per_cell": 1000 * seconds / num_scored,
        "device": _device(),
    }
    if accuracies is not None:
        known = np.array([accuracies.get(arch, np.nan) for arch in archs])
        both = ~(np.isnan(known) | np.isnan(result.scores))
        correlations = {
            "spearman": ranking.spearman(result.scores, known),
            "kendall": ranking.kendall(result.scores, known),
        }
        best_arch = summary["best_arch"]
        summary["best_accuracy"] = None if best_arch is None else accuracies.get(best_arch)
        summary["sample_best_accuracy"] = None if np.isnan(known).all() else float(np.nanmax(known))
        summary["rank_correlation"] = {
            "num_cells": int(both.sum()),
            **{name: value and value._asdict() for name, value in correlations.items()},
        }
    return summary


def _best_cells(
    result: SearchResult, archs: list[str], accuracies: dict[str, float] | None
) -> list[dict[str, Any]]:
    """The best different cells, best first."""
    best: dict[str, dict[str, Any]] = {}
    for index in ranking.top_k(result.scores, len(archs)):
        if len(best) == _NUM_BEST:
            break
        cell = {"arch": archs[index], "score": float(result.scores[index])}
        if accuracies is not None:
            cell["accuracy"] = accuracies.get(archs[index])
        best.setdefault(archs[index], cell)
    return list(best.values())


def _scores_csv(archs: list[str], scores: np.ndarray, accuracies: dict[str, float] | None) -> str:
    header = "arch,score" if accuracies is None else "arch,score,accuracy"
    lines = [header]
    for arch, score in zip(archs, scores, strict=True):
        cells = [arch, _number(float(score))]
        if accuracies is not None:
            cells.append(_number(accuracies.get(arch, np.nan)))
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.9g}"


def _provenance(
    config: ConfigDict,
    images: np.ndarray | jax.Array,
    labels: np.ndarray | jax.Array,
) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(images).tobytes())
    digest.update(np.ascontiguousarray(labels).tobytes())
    packages = ("jax", "jaxlib", "flax", "numpy")
    return {
        "config": config.to_dict(),
        "versions": {
            "epe_nas_jax": __version__,
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in packages},
        },
        "devices": [str(device.device_kind) for device in jax.local_devices()],
        "minibatch_sha256": digest.hexdigest(),
    }


def _device() -> str:
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return f"CPU, {len(os.sched_getaffinity(0))} cores"
    return f"{jax.local_device_count()} x {device.device_kind}"


def _check_workdir(directory: Path, config: ConfigDict) -> None:
    """Refuses a directory that holds another run's files."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"workdir {directory}: found a file, expected a directory")
    earlier = directory / CONFIG_FILE
    if not earlier.exists():
        for name in (SCORES_FILE, SUMMARY_FILE):
            if (directory / name).exists():
                raise InputError(f"workdir {directory}: holds {name} of another run, expected none")
        return
    try:
        found = json.loads(earlier.read_text())["config"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"workdir {directory}: holds a {CONFIG_FILE} of something else") from None
    difference = _first_difference(found, json.loads(config.to_json()))
    if difference:
        raise InputError(f"workdir {directory}: holds another run, {difference}")


def _first_difference(found: Any, expected: Any, key: str = "config") -> str | None:
    """The first key in which two configs differ, as text."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted({*found, *expected}):
            difference = _first_difference(found.get(name), expected.get(name), f"{key}.{name}")
            if difference:
                return difference
        return None
    return None if found == expected else f"{key}: found {found!r}, expected {expected!r}"


def _to_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


def _write(path: Path, text: str) -> None:
    """Writes a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
