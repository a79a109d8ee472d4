"""Latencies of cells for a search: read from a table, or measured one at a time and kept."""

import csv
import hashlib
import io
import json
import logging
import math
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from epe_nas_jax.data.files import regular_file
from epe_nas_jax.data.latencies import read_latencies
from epe_nas_jax.errors import InputError
from epe_nas_jax.networks.latency import latency_ms
from epe_nas_jax.runs import hosts
from epe_nas_jax.runs.run import Run
from epe_nas_jax.runs.storage import Location
from epe_nas_jax.runs.workdir import LATENCY_FILE
from epe_nas_jax.scoring.columns import Latency
from epe_nas_jax.spaces.base import CellNetwork, SearchSpace

_LOG = logging.getLogger(__name__)
_COLUMN = "latency_ms"
_HEADER = ["arch", _COLUMN]


def latency_of(
    config: ConfigDict, network: CellNetwork, image_shape: tuple[int, ...], run: Run
) -> Latency | None:
    """Makes the function that returns cells' latencies, as a config describes them.

    Args:
      config: the config.
      network: the network around the cells.
      image_shape: of one image, `(H, W, C)`.
      run: the run, in whose directory measurements are kept.

    Returns:
      A function from genotypes to milliseconds, NaN where a table has none; None if the config does
      not use latencies: no limit, no cost, no table and no column of them.

    Raises:
      InputError: a setting is out of range or does not go with another, or as `read_latencies`;
        the table lacks a cell of a space that can be listed; measurements of an earlier part of
        the run are damaged.
    """
    settings, space = config.search, network.space
    path, column, batch_size = (settings[f"latency_{key}"] for key in ("path", "column", "batch"))
    if batch_size < 1:
        raise InputError(f"search.latency_batch: found {batch_size}, expected at least 1")
    if path:
        return _from_table(path, read_latencies(path, column, space=space), space)
    if column:
        found = f"found {column!r} without a search.latency_path"
        raise InputError(f"search.latency_column: {found}, expected both or neither")
    is_cost = settings.algorithm == "nsga2" and settings.cost == _COLUMN
    if not (settings.max_latency_ms or is_cost or _COLUMN in config.score.proxies):
        return None
    return MeasuredLatency(
        run, space, lambda genotype: latency_ms(network, genotype, image_shape, batch_size)
    )


def table_of_latencies(config: ConfigDict) -> dict[str, str]:
    """The SHA-256 of a config's table of latencies, to be kept in the record of a run.

    Returns:
      A dict with the key `latency_sha256`, which is empty without such a table.

    Raises:
      InputError: there is no such file.
    """
    path = config.search.latency_path
    if not path:
        return {}
    content = regular_file(path, "a table of latencies").read_bytes()
    return {"latency_sha256": hashlib.sha256(content).hexdigest()}


def _from_table(path: str, latencies: dict[str, float], space: SearchSpace) -> Latency:
    """A function that looks cells up; the table must have all cells of a space that is listed."""

    def look_up(genotypes: np.ndarray) -> np.ndarray:
        archs = [space.format(genotype) for genotype in genotypes]
        for arch in archs:
            if arch not in latencies:
                raise InputError(f"{path}: found no cell {arch}, expected its latency")
        return np.array([latencies[arch] for arch in archs])

    if space.every is not None:
        look_up(space.every())
    return look_up


class MeasuredLatency:
    """Measures latencies of cells, one at a time, and keeps them in the work directory.

    Cells with the same live form are one network, which is measured once. Process 0 measures while
    the others wait. Nothing is written before the run begins: earlier measurements are written
    together with the first one after that.
    """

    def __init__(self, run: Run, space: SearchSpace, measure: Callable[[np.ndarray], float]):
        """Takes over what an earlier part of the run measured.

        Args:
          run: the run.
          space: the search space of the cells.
          measure: from a live form, int `[E]`, to milliseconds.

        Raises:
          InputError: the file of measurements is damaged.
        """
        self._run = run
        self._space = space
        self._measure = measure
        known = _read(run.directory / LATENCY_FILE) if run.is_first else {}
        self._known: dict[str, float] = json.loads(_of_first(known))

    def __call__(self, genotypes: np.ndarray) -> np.ndarray:
        """Milliseconds `[A]` of genotypes `[A, E]`; raises as `Run.check_stop` and `Run.write`."""
        networks = self._space.prune_dead(np.asarray(genotypes))
        archs = [self._space.format(network) for network in networks]
        for arch, network in zip(archs, networks, strict=True):
            if arch not in self._known:
                found = self._measure(network) if self._run.is_first else None
                self._known[arch] = json.loads(_of_first(found))
                self._keep(arch)
        return np.array([self._known[arch] for arch in archs])

    def _keep(self, arch: str) -> None:
        if not self._run.origin:
            return
        _LOG.info("%s: %.3g ms", arch, self._known[arch])
        if self._run.is_first:
            self._run.write(LATENCY_FILE, _to_csv(self._known))
        self._run.check_stop()


def _of_first(content: object) -> bytes:
    """The content of process 0, as JSON; what the other processes pass is ignored."""
    return hosts.exchange(json.dumps(content).encode())[0]


def _to_csv(latencies: dict[str, float]) -> bytes:
    text = io.StringIO()
    # The shortest decimal form of a float reads back as that float.
    csv.writer(text, lineterminator="\n").writerows([_HEADER, *latencies.items()])
    return text.getvalue().encode()


def _read(path: Location) -> dict[str, float]:
    """The measurements in a file, which need not exist."""
    if not path.exists():
        return {}
    try:
        header, *rows = csv.reader(io.StringIO(path.read_bytes().decode()), strict=True)
        latencies = {arch: float(text) for arch, text in rows}
    except (ValueError, csv.Error):
        header, latencies = [], {}
    if header != _HEADER or not all(0 < latency < math.inf for latency in latencies.values()):
        raise InputError(
            f"{path}: damaged, expected lines of arch and {_COLUMN}; "
            "delete it to have its cells measured again"
        )
    return latencies
