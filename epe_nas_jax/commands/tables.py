r"""The tables command: the paper's tables from scored cells and their trained accuracies.

Command:  epe-nas tables --scores=scores.csv --benchmark=nasbench201.csv.gz
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from absl import flags
from tqdm import tqdm

from epe_nas_jax.commands.cli import run_with_flags
from epe_nas_jax.data import score_files, text_tables
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.data.files import regular_file, user_path
from epe_nas_jax.data.score_files import ScoredCells
from epe_nas_jax.data.table import DATASETS
from epe_nas_jax.errors import InputError
from epe_nas_jax.reports import plots, text
from epe_nas_jax.runs.run import open_run
from epe_nas_jax.search import paper_tables
from epe_nas_jax.seeds import check_seed
from epe_nas_jax.spaces.table import space_entry

_DATASET_NAME = re.compile(r"[\w-]+")
# Names for the cells on which a correlation is computed: all scored ones, or the shared ones.
_SCORED = "scored"
_SHARED = "in both"

_PUBLISHED_NOTE = "EPE-NAS, published: README of github.com/VascoLopes/EPE-NAS, 3 runs."


class _Dataset(NamedTuple):
    """Scored cells of one data set, read.

    Attributes:
      path: the file of their scores.
      num_scored: how many cells that file has.
      cells: the cells that also have accuracies.
      published: published proxies; None if there are none.
    """

    path: str
    num_scored: int
    cells: ScoredCells
    published: pd.DataFrame | None


class _Job(NamedTuple):
    """The input of the command, read and checked.

    Attributes:
      datasets: the scored cells.
      space: name of the search space of the cells.
      published: the file of published proxies; empty without one.
      ms_per_cell: milliseconds that scoring a cell takes, if known.
      simulate: keyword arguments for simulated searches: their number and seed.
    """

    datasets: list[_Dataset]
    space: str
    published: str
    ms_per_cell: float | None
    simulate: dict[str, int]


class _Found(NamedTuple):
    """The content of the tables.

    Attributes:
      searches: rows of simulated searches.
      correlations: rows of rank correlations.
      notes: lines below the tables.
    """

    searches: list[dict[str, Any]]
    correlations: list[dict[str, Any]]
    notes: list[str]


def make_tables(
    scores: Sequence[str],
    benchmark: str,
    *,
    columns: Sequence[str] = (),
    published: str = "",
    summary: str = "",
    ms_per_cell: float | None = None,
    num_searches: int = 500,
    seed: int = 0,
    out: str = "",
    space: str = "nasbench201",
) -> str:
    """Makes the table of simulated searches and the tables of correlations.

    Args:
      scores: files of scored cells: `PATH` for every data set, or `DATASET=PATH`.
      benchmark: a table of trained accuracies.
      columns: `DATASET=TEST` or `DATASET=TEST,VALIDATION`: the benchmark's columns; by default
        those of NAS-Bench-201's data sets that it has, if it is CSV or JSON.
      published: a table of published proxies, if there is one.
      summary: a run's `summary.json`, for the time that scoring a cell takes.
      ms_per_cell: milliseconds that scoring a cell takes, instead of a summary.
      num_searches: how many searches are simulated for each mean.
      seed: seed of the simulated searches and the bootstrap.
      out: a work directory for the tables as CSV and Markdown, and for plots; empty: none.
      space: name of the search space of the cells.

    Returns:
      The tables as text.

    Raises:
      InputError: a file or an argument cannot be used, or `out` holds tables by other arguments.
      StopRequested: SIGTERM or SIGINT came, where there is an `out`.
    """
    # All arguments: they are the config of the work directory.
    arguments = dict(locals())
    job = _check(**arguments)
    if not out:
        return _as_text(job, _collect(job, lambda: None))
    with open_run(json.loads(json.dumps(arguments)), out) as run:
        run.begin()
        found = _collect(job, run.check_stop)
        tables = _tables(job, found)
        files = {
            **_plots([dataset.cells for dataset in job.datasets], **job.simulate),
            "searches.csv": _csv(found.searches),
            "correlations.csv": _csv(found.correlations),
            "tables.md": "\n\n".join([*map(text.as_markdown, tables), *found.notes, ""]).encode(),
        }
        for name, content in files.items():
            run.write(name, content)
    return _as_text(job, found)


def _check(
    scores: Sequence[str],
    benchmark: str,
    *,
    columns: Sequence[str],
    published: str,
    summary: str,
    ms_per_cell: float | None,
    num_searches: int,
    seed: int,
    out: str,
    space: str,
) -> _Job:
    """Reads the scored cells and checks the other arguments of `make_tables`."""
    del out
    known = space_entry(space).space
    columns_of = _columns_of(benchmark, columns)
    path_of = _path_of(scores, list(columns_of))
    scores_of = {name: score_files.read_scores(path, space=known) for name, path in path_of.items()}
    if summary and ms_per_cell is not None:
        raise InputError("ms_per_cell: found it beside a summary, expected one of them")
    if summary:
        ms_per_cell = _ms_per_cell(summary)
    if ms_per_cell is not None and not 0 <= ms_per_cell < math.inf:
        raise InputError(f"ms_per_cell: found {ms_per_cell}, expected at least 0")
    datasets = []
    for name, read in scores_of.items():
        accuracies = {
            what: read_accuracies(benchmark, column, space=known)
            for what, column in columns_of[name].items()
        }
        cells = score_files.with_accuracies(name, read, accuracies)
        others = score_files.read_published(published, name, space=known) if published else None
        datasets.append(_Dataset(path_of[name], len(read), cells, others))
    simulate = {"num_searches": num_searches, "seed": check_seed(seed)}
    return _Job(datasets, space, published, ms_per_cell, simulate)


def _collect(job: _Job, check_stop: Callable[[], None]) -> _Found:
    """Simulates searches and correlates scores, one data set after another."""
    is_published = job.space == paper_tables.PUBLISHED_SPACE
    found = _Found([], [], [_PUBLISHED_NOTE] if is_published else [])
    for path, num_scored, cells, published in job.datasets:
        found.notes.extend(_notes(cells, path, num_scored))
        found.searches.extend(
            paper_tables.search_rows(
                cells, space=job.space, ms_per_cell=job.ms_per_cell, **job.simulate
            )
        )
        compared = {_SCORED: cells}
        if published is not None:
            compared[_SHARED] = score_files.beside_published(cells, published)
        elif job.published:
            found.notes.append(f"{cells.dataset}: {job.published} has no scores of it.")
        for which, some in compared.items():
            proxies = list(some.scores)
            title = f"{cells.dataset}, {which}"
            for proxy in tqdm(proxies, desc=title, unit="proxy", leave=False, disable=None):
                row = paper_tables.correlation_row(some, str(proxy), **job.simulate)
                found.correlations.append({"cells": which, **row})
                check_stop()
    return found


def _tables(job: _Job, found: _Found) -> list[text.Table]:
    searches = text.search_table(found.searches, job.simulate["num_searches"])
    return [searches, *_correlation_tables(found.correlations)]


def _as_text(job: _Job, found: _Found) -> str:
    return "\n\n".join([*map(text.as_text, _tables(job, found)), "\n".join(found.notes)])


def _correlation_tables(rows: Sequence[Mapping[str, Any]]) -> list[text.Table]:
    """Published EPE-NAS beside ours where both are known, then every proxy by data set."""
    tables = []
    shared = {(row["proxy"], row["dataset"]): row for row in rows if row["cells"] == _SHARED}
    published = [
        row for (proxy, _), row in shared.items() if proxy == score_files.PUBLISHED_EPE_NAS
    ]
    if published:
        ours = [shared[score_files.SCORE, row["dataset"]] for row in published]
        tables.append(text.same_cells_table(published, ours))
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        tables += text.correlation_tables([row for row in rows if row["dataset"] == dataset])
    return tables


def _known_columns() -> list[str]:
    """The columns of the known data sets, in the form of the argument `columns`."""
    return [
        f"{entry.name}={','.join(entry.accuracy_columns)}"
        for entry in DATASETS.values()
        if entry.accuracy_columns
    ]


def _columns_of(benchmark: str, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """The benchmark's columns by data set and by what they measure."""
    columns_of = {}
    for entry in columns or _known_columns():
        dataset, _, names = entry.partition("=")
        of_dataset = dict(zip(("test", "validation"), names.split(","), strict=False))
        if not names or names.count(",") > 1 or "" in of_dataset.values():
            raise InputError(f"columns: found {entry!r}, expected DATASET=TEST[,VALIDATION]")
        # It is a part of file names.
        if not _DATASET_NAME.fullmatch(dataset):
            raise InputError(f"columns: found data set {dataset!r}, expected letters, digits, -, _")
        if dataset in columns_of:
            raise InputError(f"columns: found data set {dataset!r} twice, expected it once")
        columns_of[dataset] = of_dataset
    if columns:
        return columns_of
    header = text_tables.read_header(benchmark, expected="a table of accuracies")
    folded = [name.casefold() for name in header]
    known = {
        dataset: {what: name for what, name in of_dataset.items() if name.casefold() in folded}
        for dataset, of_dataset in columns_of.items()
        if of_dataset["test"].casefold() in folded
    }
    if not known:
        expected = ", ".join(of_dataset["test"] for of_dataset in columns_of.values())
        raise InputError(
            f"{benchmark}: found none of the columns {expected}; name yours with --columns"
        )
    return known


def _path_of(scores: Sequence[str], datasets: Sequence[str]) -> dict[str, str]:
    """The file of each data set's scores; a file without a name is for all others."""
    named: dict[str, str] = {}
    for entry in scores:
        dataset, equals, path = entry.partition("=")
        if equals and dataset not in datasets and not user_path(entry).exists():
            known = ", ".join(datasets)
            raise InputError(f"scores: found data set {dataset!r}, expected one of {known}")
        if not equals or dataset not in datasets:
            dataset, path = "", entry
        if dataset in named:
            raise InputError(f"scores: found {entry!r}, after {named[dataset]!r} for the same")
        named[dataset] = path
    return {
        dataset: named.get(dataset, named.get("", ""))
        for dataset in datasets
        if dataset in named or "" in named
    }


def _ms_per_cell(summary: str) -> float:
    try:
        path = regular_file(summary, "a run's summary")
        found = json.loads(path.read_text())["ms_per_cell"]
        if isinstance(found, bool):
            raise TypeError
        return float(found)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise InputError(f"{summary}: found no ms_per_cell, expected a run's summary") from None


def _notes(cells: ScoredCells, path: str, num_read: int) -> list[str]:
    """Lines that say from what the searches of a data set draw, and what is left out."""
    num_cells = len(cells.scores)
    num_degenerate = int(cells.scores[score_files.SCORE].isna().sum())
    notes = [
        f"{num_cells} cells of {path}, {num_degenerate} without a score and never chosen. Searches "
        "draw without replacement: the nearer N is to all, the more alike they are."
    ]
    if num_read > num_cells:
        notes.append(f"{num_read - num_cells} scored cells left out, without an accuracy.")
    beyond = [str(size) for size in paper_tables.SIZES if size > num_cells]
    if beyond:
        notes.append(f"N = {', '.join(beyond)} left out: more than the {num_cells} cells scored.")
    return [f"{cells.dataset}: {note}" for note in notes]


def _plots(datasets: Sequence[ScoredCells], *, num_searches: int, seed: int) -> dict[str, bytes]:
    """The plots of all data sets, by file name."""
    files = {}
    for cells in datasets:
        scores = cells.scores[score_files.SCORE].to_numpy()
        accuracies = cells.accuracies["test"].to_numpy()
        sizes, curves = paper_tables.best_of_n(cells, num_searches=num_searches, seed=seed)
        measured = f"{cells.dataset} test accuracy"
        scatter = plots.accuracy_scatter(scores, accuracies, measured)
        curve = plots.best_of_n(sizes, curves, float(accuracies.mean()), measured)
        files[f"{cells.dataset}_accuracy.png"] = plots.to_png(scatter)
        files[f"{cells.dataset}_best_of_n.png"] = plots.to_png(curve)
    return files


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as CSV, nested values in columns such as `spearman.all.value`."""
    return (
        pd.json_normalize([dict(row) for row in rows])
        .to_csv(index=False, float_format="%.9g")
        .encode()
    )


def main() -> None:
    """Defines the flags and runs the command."""
    scores = flags.DEFINE_multi_string(
        "scores", None, "Scored cells: PATH, or DATASET=PATH; may be repeated.", required=True
    )
    benchmark = flags.DEFINE_string(
        "benchmark", None, "Trained accuracies, CSV or JSON.", required=True
    )
    columns = flags.DEFINE_multi_string(
        "columns", [], "The benchmark's columns: DATASET=TEST[,VALIDATION]; may be repeated."
    )
    published = flags.DEFINE_string("published", "", "Published scores of other proxies.")
    summary = flags.DEFINE_string("summary", "", "A run's summary.json, for the time of a search.")
    ms_per_cell = flags.DEFINE_float(
        "ms_per_cell", None, "Milliseconds to score a cell, instead of a summary.", lower_bound=0
    )
    num_searches = flags.DEFINE_integer("num_searches", 500, "Simulated searches.", lower_bound=1)
    seed = flags.DEFINE_integer("seed", 0, "Seed of searches and bootstrap.", lower_bound=0)
    out = flags.DEFINE_string("out", "", "Work directory for CSV, Markdown and plots.")
    space = flags.DEFINE_string("space", "nasbench201", "Search space of the cells.")
    run_with_flags(
        lambda: make_tables(
            scores.value,
            benchmark.value,
            columns=columns.value,
            published=published.value,
            summary=summary.value,
            ms_per_cell=ms_per_cell.value,
            num_searches=num_searches.value,
            seed=seed.value,
            out=out.value,
            space=space.value,
        )
    )
