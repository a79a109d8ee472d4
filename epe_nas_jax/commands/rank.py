r"""The rank command: candidate networks of any framework, from a Python file to a ranking.

The file defines `networks(num_classes, side)`, which returns a dict of networks by name, or yields
pairs of name and network, so that only one network at a time is in memory (docs/any-network.md).

Command:  epe-nas rank --networks=candidates.py --config=folder --workdir=runs/rank \
              --config.data.path=images --config.data.side=64 --config.data.batch_size=32
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import flags
from ml_collections import ConfigDict

from epe_nas_jax.commands.cli import run_command
from epe_nas_jax.commands.config import dataset_of, minibatch_of, plain_config
from epe_nas_jax.data.files import regular_file
from epe_nas_jax.errors import InputError
from epe_nas_jax.networks.columns import NETWORK_COLUMNS, NETWORK_RANKING, check_objective
from epe_nas_jax.networks.rank import (
    make_minibatch,
    network_row,
    networks_by_name,
    ranking_table,
)
from epe_nas_jax.reports.ranking_page import ranking_page
from epe_nas_jax.reports.text import Table, as_text, number
from epe_nas_jax.runs.run import Run, open_run
from epe_nas_jax.runs.workdir import RANKING_FILE, REPORT_FILE, device_name
from epe_nas_jax.search import ranking
from epe_nas_jax.seeds import random_key

_FUNCTION = "networks"
_COSTS = ("params", "latency_ms")
_SHOWN_COLUMNS = ("rank", "score", "params", "mflops", "latency_ms", "peak_mb")


def rank_and_report(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    file: str,
    objective: Sequence[str],
    *,
    smaller_batches: bool,
) -> str:
    """Ranks the networks of a file and leaves `ranking.csv`, best first, and `report.html`.

    A run that was stopped continues after the last network that it measured. A network that cannot
    be measured has a row with its error.

    Args:
      config: as in `configs/base.py`, of which `data` and `seed` are read.
      workdir: the work directory, which is created if it does not exist, and may hold an earlier
        part of this run.
      file: a file of Python code with a function `networks(num_classes, side)`.
      objective: as for `rank_networks`.
      smaller_batches: as for `rank_networks`.

    Returns:
      The ranking as a table to print.

    Raises:
      InputError: something in the config, the data, the file or the work directory cannot be used.
      StopRequested: SIGTERM or SIGINT came.
    """
    aim = check_objective(objective)
    if config.data.fresh_minibatch:
        raise InputError(
            "data.fresh_minibatch: found True, expected False where networks are ranked"
        )
    place = regular_file(file, "a file of Python code")
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    settings = {
        **plain_config(config),
        "networks_sha256": digest,
        "objective": list(aim),
        "smaller_batches": smaller_batches,
    }
    with open_run(settings, workdir) as run:
        dataset = dataset_of(config)
        images, labels = minibatch_of(config, dataset, random_key(config.seed))
        minibatch = make_minibatch(images, labels, dataset.num_classes)
        make = function_of(place)
        run.begin((minibatch.images, minibatch.labels))
        rows = _earlier_rows(run)
        for name, network in _made(place, make, dataset.num_classes, images.shape[1]):
            if name not in rows:
                rows[name] = network_row(
                    name,
                    network,
                    minibatch,
                    tuple(NETWORK_COLUMNS),
                    smaller_batches=smaller_batches,
                )
                run.write(RANKING_FILE, _csv(ranking_table(rows.values(), aim)))
            run.check_stop()
        table = ranking_table(rows.values(), aim)
        best_first = _best_first(table)
        run.write(REPORT_FILE, _report(best_first, run, file).encode())
        return _as_text(best_first)


def function_of(file: Path) -> Callable[[int, int], Any]:
    """Runs a file of Python code and returns its function `networks`.

    The file can import modules from its own folder.

    Raises:
      InputError: the code fails, or defines no such function.
    """
    spec = importlib.util.spec_from_file_location("candidate_networks", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file}: found no Python code, expected a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.absolute().parent))
    # The user's code can raise any exception.
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{file}: {type(error).__name__}: {error}") from None
    function = getattr(module, _FUNCTION, None)
    if not callable(function):
        raise InputError(f"{file}: found no function {_FUNCTION}(num_classes, side), expected one")
    made: Callable[[int, int], Any] = function
    return made


def _made(
    file: Path, make: Callable[[int, int], Any], num_classes: int, side: int
) -> Iterator[tuple[str, Any]]:
    """The networks that a file makes, by name."""
    try:
        yield from networks_by_name(make(num_classes, side))
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    except Exception as error:
        raise InputError(f"{file}: {type(error).__name__}: {error}") from None


def _earlier_rows(run: Run) -> dict[str, dict[str, Any]]:
    """The networks that an earlier part of the run measured, by name."""
    path = run.directory / RANKING_FILE
    if not path.exists():
        return {}
    with path.open() as file:
        table = pd.read_csv(file, dtype={"network": str})
    rows = {}
    for found in table.sort_values("place").to_dict("records"):
        row: dict[str, Any] = {name: found[name] for name in ("network", *NETWORK_COLUMNS)}
        # pandas reads an empty text as a missing number.
        row["note"] = found["note"] if isinstance(found["note"], str) else ""
        row["error"] = found["error"] if isinstance(found["error"], str) else None
        rows[row["network"]] = row
    return rows


def _csv(table: pd.DataFrame) -> bytes:
    """The ranking as a file: best first, with each network's place in the given order."""
    placed = table.assign(place=range(1, len(table) + 1)).sort_values("rank", kind="stable")
    return placed.to_csv(index=False).encode()


def _best_first(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a ranking, best first, with None for what is missing."""
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in table.sort_values("rank", kind="stable").to_dict("records")
    ]


def _report(rows: list[dict[str, Any]], run: Run, file: str) -> str:
    """The page of the ranking, from its rows, best first."""
    scores, *costs = (
        np.array([row[name] for row in rows], np.float64) for name in ("score", *_COSTS)
    )
    fronts = {
        name: ranking.pareto_front(scores, cost) for name, cost in zip(_COSTS, costs, strict=True)
    }
    return ranking_page(rows, run.origin, fronts, file=file, device=device_name())


def _as_text(rows: list[dict[str, Any]]) -> str:
    """The text that the command prints: the ranking, and below it the errors and notes."""
    shown = [
        [
            row["network"],
            *("-" if row[name] is None else number(row[name]) for name in _SHOWN_COLUMNS),
        ]
        for row in rows
    ]
    num_scored = sum(row["score"] is not None for row in rows)
    title = f"{len(rows)} networks, {num_scored} with a score"
    lines = [as_text(Table(title, ["network", *_SHOWN_COLUMNS], shown)), ""]
    for row in rows:
        if row["error"]:
            lines.append(row["error"])
        elif row["note"]:
            lines.append(f"network {row['network']!r}: {row['note']}")
    return "\n".join(lines).rstrip()


def main() -> None:
    """Defines the flags and runs the command."""
    file = flags.DEFINE_string(
        "networks", None, "A file of Python code with networks(num_classes, side).", required=True
    )
    objective = flags.DEFINE_list(
        "objective",
        list(NETWORK_RANKING),
        "The columns whose ranks are added up; a single one is the score itself.",
    )
    smaller = flags.DEFINE_bool(
        "smaller_batches",
        False,
        "Measure a network that does not fit the memory on fewer images, which changes signals.",
    )
    run_command(
        lambda config, workdir: rank_and_report(
            config, workdir, file.value, objective.value, smaller_batches=smaller.value
        )
    )
