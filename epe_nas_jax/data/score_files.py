"""Host side: scored cells from files, joined with their trained accuracies."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from epe_nas_jax.data import text_tables
from epe_nas_jax.data.text_tables import ARCH, Table
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import SearchSpace

# Column of the score in tables of scores.
SCORE = "score"
# Name of the published EPE-NAS scores among the proxies.
PUBLISHED_EPE_NAS = "epe_nas (published)"

_DATASET = "dataset"
# Columns of tables of scores that are no proxies, in small letters.
_NO_PROXIES = ("accuracy", "index", "search_score")
# Begin of the columns that are filled only for cells that a search scored again.
_OF_SOME_CELLS = "refined_"
# NASLib's score of a network on which a proxy failed.
_FAILED = -1e8


@dataclasses.dataclass(frozen=True)
class ScoredCells:
    """Scored cells of one data set, all of them with accuracies; both tables have a row per cell.

    Attributes:
      dataset: the data set's name.
      scores: one column per proxy, NaN for a cell without a score.
      accuracies: in percent, a column for `test` and, where known, one for `validation`.
      best_known: the best accuracy of the whole benchmark, for `test` and `validation`.
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
      path: a table as for `text_tables.read_table`, with columns `arch` and `score`; every other
        column of numbers is a further proxy, whose infinite values (`nwot` of a singular kernel)
        count as missing. Where columns are not separated by commas, numbers may have decimal
        commas.
      space: the search space of the cells, which reads and writes their text.

    Returns:
      Scores with a row per cell, as the space writes it, and a column per proxy, `score` first. A
      cell that occurs twice with the same scores has one row.

    Raises:
      InputError: the file is missing or broken, lacks a column or has one twice, holds a score that
        is no number, names a cell that does not exist, or gives a cell two different scores.

    Examples:
      >>> import pandas as pd
      >>> from epe_nas_jax.data.score_files import read_scores
      >>> from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
      >>> arch = "|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
      >>> pd.DataFrame({"arch": [arch], "score": [12.5]}).to_csv("scores.csv", index=False)
      >>> float(read_scores("scores.csv", space=NASBENCH201).loc[arch, "score"])
      12.5
    """
    table = text_tables.read_table(
        path, (ARCH, SCORE), expected="a table of scores", others=True, value_name=SCORE
    )
    if not table.columns[ARCH]:
        raise InputError(f"{path}: found no cells, expected scores")
    scores = _numbers_of(path, table, space)
    if SCORE not in scores:
        text = next(cell for cell in table.columns[SCORE] if _number(cell, table) is None)
        raise InputError(
            f"{path}, {SCORE}: found text, expected numbers: {text_tables.shown(text)}"
        )
    if np.isinf(scores[SCORE]).any():
        raise InputError(f"{path}, {SCORE}: found inf, expected numbers, or nothing for none")
    scores = scores.replace([np.inf, -np.inf], np.nan)
    scores = scores.reset_index().drop_duplicates().set_index(ARCH)
    repeated = scores.index[scores.index.duplicated()]
    if len(repeated):
        raise InputError(f"{path}: found two different scores of {repeated[0]}, expected one")
    return scores


def read_published(path: str, dataset: str, *, space: SearchSpace) -> pd.DataFrame | None:
    """Reads published scores of other proxies.

    Args:
      path: a table as for `text_tables.read_table`, with columns `dataset` and `arch`; every other
        column of numbers is a proxy, with decimal commas as in `read_scores`. Infinite scores, and
        -1e8, which NASLib writes where a proxy fails, count as missing.
      dataset: the data set whose rows to take; case and dashes do not matter.
      space: the search space of the cells, which reads and writes their text.

    Returns:
      Scores with a row per cell, as the space writes it, and a column per proxy; None if the table
      has no rows of this data set.

    Raises:
      InputError: the file is missing or broken, lacks a column or has one twice, names a cell that
        does not exist, or repeats one.
    """
    table = text_tables.read_table(
        path, (ARCH, _DATASET), expected="a table of published scores", others=True
    )
    numbers = _numbers_of(path, table, space)
    names = [_folded(str(name)) for name in table.columns[_DATASET]]
    rows = numbers[[name == _folded(dataset) for name in names]]
    repeated = rows.index[rows.index.duplicated()]
    if len(repeated):
        raise InputError(f"{path}, {dataset}: found cell {repeated[0]} twice, expected it once")
    return None if rows.empty else rows.mask((rows == _FAILED) | np.isinf(rows))


def with_accuracies(
    dataset: str, scores: pd.DataFrame, accuracies: Mapping[str, Mapping[str, float]]
) -> ScoredCells:
    """Joins scores with trained accuracies; a cell that lacks one of them is left out.

    Args:
      dataset: the data set's name.
      scores: as from `read_scores`.
      accuracies: from what was measured, `test` or `validation`, to the accuracies by cell.

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
    """Joins our scores with published ones, on the cells that have a score of every proxy.

    Args:
      cells: our scored cells.
      published: as from `read_published`; ` (published)` is added to the names of its proxies.
    """
    both = cells.scores.join(published.add_suffix(" (published)"), how="inner").dropna()
    return dataclasses.replace(cells, scores=both).only(both.index)


def _numbers_of(path: str, table: Table, space: SearchSpace) -> pd.DataFrame:
    """The columns of numbers that can be proxies, by cell as the space writes it.

    Raises:
      InputError: a cell is none of the space; there is text among the numbers of a column; or a
        name is a formula.
    """
    cells = text_tables.cells_of(path, table.columns[ARCH], space)
    numbers: dict[str, list[float]] = {}
    for name, column in table.columns.items():
        is_of_some = name.casefold().startswith(_OF_SOME_CELLS)
        if name not in (ARCH, _DATASET) and name.casefold() not in _NO_PROXIES and not is_of_some:
            # A spreadsheet program that opens our tables would run the formula.
            if name.startswith(("=", "+", "-", "@")):
                raise InputError(f"{path}: found a column {name!r}, expected a name, no formula")
            values = [_number(cell, table) for cell in column]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                numbers[name] = known
            elif name != SCORE and sum(not math.isnan(value) for value in known) > len(values) / 2:
                text = next(cell for cell in column if _number(cell, table) is None)
                raise InputError(
                    f"{path}, {name}: found {text_tables.shown(text)!r} among numbers, "
                    "expected numbers or nothing"
                )
    try:
        text_tables.check_decimal_marks(
            (cell for name in numbers for cell in table.columns[name]), thousands=True
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return pd.DataFrame(numbers, pd.Index(cells, dtype=str, name=ARCH), dtype=np.float64)


def _number(cell: Any, table: Table) -> float | None:
    return text_tables.number(cell, decimal_comma=table.separator not in ("", ","))


def _folded(dataset: str) -> str:
    return dataset.casefold().replace("-", "_")
