"""Host side: scored cells from files, joined with their trained accuracies."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import SearchSpace

SCORE = "score"
PUBLISHED_EPE_NAS = "epe_nas (published)"

# Columns of tables of scores that are no proxies.
_NO_PROXIES = ("accuracy", "index")
# NASLib's score of a network on which a proxy failed.
_FAILED = -1e8


@dataclasses.dataclass(frozen=True)
class ScoredCells:
    """Scored cells of one data set, all of them with accuracies; both tables by cell.

    Attributes:
      dataset: the data set's name.
      scores: a column a proxy, NaN for a cell without a score.
      accuracies: in percent, a column for `test` and, where known, one for `validation`.
      best_known: the best of each in the whole benchmark.
    """

    dataset: str
    scores: pd.DataFrame
    accuracies: pd.DataFrame
    best_known: Mapping[str, float]

    def only(self, cells: pd.Index) -> "ScoredCells":
        """Keeps some of the cells, in the order in which they are named."""
        return dataclasses.replace(
            self, scores=self.scores.loc[cells], accuracies=self.accuracies.loc[cells]
        )


def read_scores(path: str, *, space: SearchSpace) -> pd.DataFrame:
    """Reads scored cells, such as the `scores.csv` of a run.

    Args:
      path: a CSV file, or CSV.gz, with columns `arch` and `score`; every other column of numbers is
        a further proxy, whose infinities (`nwot` of a singular kernel) are no scores.
      space: the search space of the cells, which reads and writes their text.

    Returns:
      Scores by cell, as the space writes it, a column a proxy, `score` first; a cell that was drawn
      twice is there once.

    Raises:
      InputError: the file is missing or broken, lacks a column, holds a score that is no number,
        names a cell that does not exist, or gives a cell two different scores.
    """
    table = _read(path, space)
    if SCORE not in table:
        raise InputError(f"{path}: expected a column {SCORE!r}, found {', '.join(map(str, table))}")
    if not pd.api.types.is_numeric_dtype(table[SCORE]):
        raise InputError(f"{path}, {SCORE}: found text, expected numbers")
    numbers = table.select_dtypes("number").astype(np.float64)
    proxies = [SCORE, *(name for name in numbers if name not in (SCORE, *_NO_PROXIES))]
    if np.isinf(numbers[SCORE]).any():
        raise InputError(f"{path}, {SCORE}: found inf, expected numbers, or nothing for none")
    scores = numbers[proxies].replace([np.inf, -np.inf], np.nan)
    scores = scores.reset_index().drop_duplicates().set_index("arch")
    repeated = scores.index[scores.index.duplicated()]
    if len(repeated):
        raise InputError(f"{path}: found two different scores of {repeated[0]}, expected one")
    return scores


def read_published(path: str, dataset: str, *, space: SearchSpace) -> pd.DataFrame | None:
    """Reads published scores of other proxies.

    Args:
      path: a CSV file, or CSV.gz, with columns `dataset` and `arch`; every other column of numbers
        is a proxy. A score of -1e8, which NASLib gives where a proxy fails, is no score.
      dataset: whose rows to take; case and dashes do not matter.
      space: the search space of the cells, which reads and writes their text.

    Returns:
      Scores by cell, as the space writes it, a column a proxy; None if there are none of this data
      set.

    Raises:
      InputError: the file is missing or broken, lacks a column, names a cell that does not exist,
        or repeats one.
    """
    table = _read(path, space)
    if "dataset" not in table:
        raise InputError(f"{path}: expected a column 'dataset', found {', '.join(map(str, table))}")
    names = table["dataset"].astype(str).str.lower().str.replace("-", "_")
    rows = table[names == dataset.lower().replace("-", "_")]
    repeated = rows.index[rows.index.duplicated()]
    if len(repeated):
        raise InputError(f"{path}, {dataset}: found cell {repeated[0]} twice, expected it once")
    numbers = rows.select_dtypes("number").drop(columns=list(_NO_PROXIES), errors="ignore")
    return None if rows.empty else numbers.mask(numbers == _FAILED).astype(np.float64)


def with_accuracies(
    dataset: str, scores: pd.DataFrame, accuracies: Mapping[str, Mapping[str, float]]
) -> ScoredCells:
    """Joins scores with trained accuracies; a cell that lacks one of them is left out.

    Args:
      dataset: the data set's name.
      scores: as from `read_scores`.
      accuracies: by what was measured, `test` or `validation`, the accuracies by cell.

    Raises:
      InputError: no cell has both.
    """
    known = pd.DataFrame({what: pd.Series(table) for what, table in accuracies.items()}).dropna()
    shared = scores.index[scores.index.isin(known.index)]
    if not len(shared):
        raise InputError(f"{dataset}: found no scored cell with an accuracy, expected some")
    return ScoredCells(
        dataset, scores, known, {what: float(known[what].max()) for what in accuracies}
    ).only(shared)


def beside_published(cells: ScoredCells, published: pd.DataFrame) -> ScoredCells:
    """Keeps the cells on which ours and the published proxies all have a score, with all scores.

    Args:
      cells: ours.
      published: as from `read_published`; its proxies are marked as published.
    """
    both = cells.scores.join(published.add_suffix(" (published)"), how="inner").dropna()
    return dataclasses.replace(cells, scores=both).only(both.index)


def read_header(path: str) -> list[str]:
    """Reads the column names of a CSV file; raises `InputError` if it cannot be read."""
    return [str(name) for name in _read_csv(path, nrows=0)]


def _read(path: str, space: SearchSpace) -> pd.DataFrame:
    """A CSV table by cell, as the space writes it."""
    table = _read_csv(path)
    if "arch" not in table:
        raise InputError(f"{path}: expected a column 'arch', found {', '.join(map(str, table))}")
    try:
        cells = table["arch"].map(lambda arch: space.format(space.parse(arch)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return table.assign(arch=cells).set_index("arch")


def _read_csv(path: str, nrows: int | None = None) -> pd.DataFrame:
    try:
        return pd.read_csv(Path(path), nrows=nrows)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected a CSV table") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable CSV table ({error})".splitlines()[0]) from None
