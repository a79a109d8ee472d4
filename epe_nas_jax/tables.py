r"""The paper's tables from scored cells and their trained accuracies.

Command:  python -m epe_nas_jax.tables --scores=scores.csv --benchmark=nasbench201.csv.gz
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from absl import flags
from tqdm import tqdm

from epe_nas_jax import evaluation, plots, report, scored
from epe_nas_jax.benchmark import read_accuracies
from epe_nas_jax.cli import run_with_flags
from epe_nas_jax.errors import InputError
from epe_nas_jax.scored import ScoredCells
from epe_nas_jax.storage import write

# A data set and the benchmark's columns of its test and, where there is one, validation accuracies.
_COLUMNS = (
    "cifar10=cifar10_test_200,cifar10_xvalid_200",
    "cifar100=cifar100_test_200",
    "imagenet16_120=imagenet16_test_200",
)

# Which cells a correlation is computed on.
_SCORED = "scored"
_SHARED = "in both"

_PUBLISHED_NOTE = "EPE-NAS, published: README of github.com/VascoLopes/EPE-NAS, 3 runs."


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
) -> str:
    """Makes the table of simulated searches and the tables of correlations.

    Args:
      scores: files of scored cells: `PATH` for every data set, or `DATASET=PATH`.
      benchmark: a table of trained accuracies.
      columns: `DATASET=TEST` or `DATASET=TEST,VALIDATION`: the benchmark's columns; by default, of
        a CSV file, those of NAS-Bench-201's data sets that it has.
      published: a table of published proxies, if there is one.
      summary: a run's `summary.json`, for the time that scoring a cell takes.
      ms_per_cell: that time, instead.
      num_searches: how many searches a mean is of.
      seed: of the draws and the bootstrap.
      out: a directory for the same as CSV and Markdown, and for plots.

    Returns:
      The tables as text.

    Raises:
      InputError: a file or an argument cannot be used.
    """
    columns_of = _columns_of(benchmark, columns)
    path_of = _path_of(scores, list(columns_of))
    scores_of = {dataset: scored.read_scores(path) for dataset, path in path_of.items()}
    if summary:
        ms_per_cell = _ms_per_cell(summary)
    simulate = {"num_searches": num_searches, "seed": seed}
    searches: list[dict[str, Any]] = []
    correlations: list[dict[str, Any]] = []
    notes = [_PUBLISHED_NOTE]
    files: dict[str, bytes] = {}
    for dataset, path in path_of.items():
        accuracies = {
            what: read_accuracies(benchmark, column) for what, column in columns_of[dataset].items()
        }
        scores_read = scores_of[dataset]
        cells = scored.with_accuracies(dataset, scores_read, accuracies)
        notes += _notes(cells, path, len(scores_read))
        searches += evaluation.search_rows(cells, ms_per_cell=ms_per_cell, **simulate)
        compared = {_SCORED: cells}
        others = scored.read_published(published, dataset) if published else None
        if others is not None:
            compared[_SHARED] = scored.beside_published(cells, others)
        elif published:
            notes.append(f"{dataset}: {published} has no scores of it.")
        for which, some in compared.items():
            for proxy in tqdm(
                list(some.scores), desc=f"{dataset}, {which}", unit="proxy", leave=False
            ):
                row = evaluation.correlation_row(some, str(proxy), **simulate)
                correlations.append({"cells": which, **row})
        if out:
            files |= _plots(cells, **simulate)

    tables = [report.search_table(searches, num_searches), *_correlation_tables(correlations)]
    if out:
        files |= {
            "searches.csv": _csv(searches),
            "correlations.csv": _csv(correlations),
            "tables.md": "\n\n".join([*map(report.as_markdown, tables), *notes, ""]).encode(),
        }
    for name, content in files.items():
        write(Path(out) / name, content)
    return "\n\n".join([*map(report.as_text, tables), "\n".join(notes)])


def _correlation_tables(rows: Sequence[Mapping[str, Any]]) -> list[report.Table]:
    """Published EPE-NAS beside ours where both are known, then every proxy by data set."""
    tables = []
    shared = {(row["proxy"], row["dataset"]): row for row in rows if row["cells"] == _SHARED}
    published = [row for (proxy, _), row in shared.items() if proxy == scored.PUBLISHED_EPE_NAS]
    if published:
        ours = [shared[scored.SCORE, row["dataset"]] for row in published]
        tables.append(report.same_cells_table(published, ours))
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        tables += report.correlation_tables([row for row in rows if row["dataset"] == dataset])
    return tables


def _columns_of(benchmark: str, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """The benchmark's columns by data set and by what they measure."""
    columns_of = {}
    for entry in columns or _COLUMNS:
        dataset, _, names = entry.partition("=")
        of_dataset = dict(zip(("test", "validation"), names.split(","), strict=False))
        if not names or names.count(",") > 1 or "" in of_dataset.values():
            raise InputError(f"columns: found {entry!r}, expected DATASET=TEST[,VALIDATION]")
        columns_of[dataset] = of_dataset
    if columns:
        return columns_of
    header = scored.read_header(benchmark)
    known = {
        dataset: {what: name for what, name in of_dataset.items() if name in header}
        for dataset, of_dataset in columns_of.items()
        if of_dataset["test"] in header
    }
    if not known:
        expected = ", ".join(of_dataset["test"] for of_dataset in columns_of.values())
        raise InputError(
            f"{benchmark}: found none of the columns {expected}; name yours with --columns"
        )
    return known


def _path_of(scores: Sequence[str], datasets: Sequence[str]) -> dict[str, str]:
    """The file of each data set's scores; one without a name is for those without their own."""
    named: dict[str, str] = {}
    for entry in scores:
        dataset, equals, path = entry.partition("=")
        if equals and dataset not in datasets and not Path(entry).exists():
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
        return float(json.loads(Path(summary).read_text())["ms_per_cell"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{summary}: found no ms_per_cell, expected a run's summary") from None


def _notes(cells: ScoredCells, path: str, num_read: int) -> list[str]:
    """What the searches of a data set draw from, and what is left out."""
    num_cells = len(cells.scores)
    num_degenerate = int(cells.scores[scored.SCORE].isna().sum())
    notes = [
        f"{num_cells} cells of {path}, {num_degenerate} without a score and never chosen. Searches "
        "draw without replacement: the nearer N is to all, the more alike they are."
    ]
    if num_read > num_cells:
        notes.append(f"{num_read - num_cells} scored cells left out, without an accuracy.")
    beyond = [str(size) for size in evaluation.SIZES if size > num_cells]
    if beyond:
        notes.append(f"N = {', '.join(beyond)} left out: more than the {num_cells} cells scored.")
    return [f"{cells.dataset}: {note}" for note in notes]


def _plots(cells: ScoredCells, *, num_searches: int, seed: int) -> dict[str, bytes]:
    """The plots of a data set by file name."""
    scores, accuracies = cells.scores[scored.SCORE].to_numpy(), cells.accuracies["test"].to_numpy()
    sizes, curves = evaluation.best_of_n(cells, num_searches=num_searches, seed=seed)
    measured = f"{cells.dataset} test accuracy"
    scatter = plots.accuracy_scatter(scores, accuracies, measured)
    curve = plots.best_of_n(sizes, curves, float(accuracies.mean()), measured)
    return {
        f"{cells.dataset}_accuracy.png": plots.to_png(scatter),
        f"{cells.dataset}_best_of_n.png": plots.to_png(curve),
    }


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
    benchmark = flags.DEFINE_string("benchmark", None, "Trained accuracies, CSV.", required=True)
    columns = flags.DEFINE_multi_string(
        "columns", [], "The benchmark's columns: DATASET=TEST[,VALIDATION]; may be repeated."
    )
    published = flags.DEFINE_string("published", "", "Published scores of other proxies, CSV.")
    summary = flags.DEFINE_string("summary", "", "A run's summary.json, for the time of a search.")
    ms_per_cell = flags.DEFINE_float("ms_per_cell", None, "The same time, given.", lower_bound=0)
    num_searches = flags.DEFINE_integer("num_searches", 500, "Searches simulated.", lower_bound=1)
    seed = flags.DEFINE_integer("seed", 0, "Of the draws and the bootstrap.", lower_bound=0)
    out = flags.DEFINE_string("out", "", "Directory for CSV, Markdown and plots.")
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
        )
    )


if __name__ == "__main__":
    main()
