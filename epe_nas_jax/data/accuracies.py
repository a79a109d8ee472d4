"""Host side: trained accuracies of cells from a table or from NATS-Bench's own files."""

import math
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from epe_nas_jax.data import text_tables
from epe_nas_jax.data.cell_tables import different_cells, read_column
from epe_nas_jax.data.files import regular_file, user_path
from epe_nas_jax.data.table import DATASETS
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import SearchSpace

_EXPECTED = "a table of accuracies"
_NATS_FILE = "NATS-tss-v1_0-*.pickle.pbz2"
_NATS_FOLDER = "NATS-tss-v1_0-*-simple"
# What the package raises on files that are broken or of another kind.
_NATS_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


def read_accuracies(path: str, column: str, *, space: SearchSpace) -> dict[str, float]:
    """Reads trained accuracies, in percent, from a file in any of three forms.

    * A CSV table with a header, an `arch` column of cells and one of accuracies. The separator may
      be a comma, a semicolon or a tab, and the decimal mark a comma; a percent sign may follow.
      Tables of some spaces name cells by other columns (`SearchSpace.table_columns`).
    * JSON: a list of records with these two keys, one such record per line, or an object from cell
      to such a record or to the accuracy itself; in the last case `column` is ignored.
    * NATS-Bench's file `NATS-tss-v1_0-*.pickle.pbz2` or its folder `NATS-tss-v1_0-*-simple`, read
      by the `nats_bench` package, which unpickles everything in them: give it only files from a
      source that you trust. Accuracies are means over the trained seeds after the last epoch.

    A table may be compressed by gzip, bzip2, xz or zip; `text_tables.read_table` says more.

    Args:
      path: the file or folder.
      column: name of the accuracies. For NATS-Bench one of `nats_columns` of `table.DATASETS`, then
        the epochs, 12 or 200, as in `cifar10_test_200`.
      space: the search space of the cells, which reads and writes their text.

    Returns:
      Accuracy by cell, as the space writes it; a cell whose accuracy is missing is left out.

    Raises:
      InputError: the file is missing or broken, lacks a column or has it twice, repeats a cell,
        names one that does not exist, has an accuracy that is no number in 0..100, or none above 1
        and no percent sign; or the package is missing.

    Examples:
      >>> import pandas as pd
      >>> from epe_nas_jax.data.accuracies import read_accuracies
      >>> from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
      >>> arch = "|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
      >>> pd.DataFrame({"arch": [arch], "test": [91.5]}).to_csv("trained.csv", index=False)
      >>> read_accuracies("trained.csv", "test", space=NASBENCH201)[arch]
      91.5
    """
    place = user_path(path)
    if place.is_dir() or place.suffix == ".pbz2":
        archs, found = _read_nats(path, place, column)
    else:
        archs, found = read_column(path, column, space=space, expected=_EXPECTED)
    cells = different_cells(path, archs, space, expected="accuracies")
    try:
        accuracies = _as_percent(found)
    except InputError as error:
        raise InputError(f"{path}, {column}: {error}") from None
    return {
        cell: accuracy
        for cell, accuracy in zip(cells, accuracies, strict=True)
        if not math.isnan(accuracy)
    }


def _as_percent(found: Sequence[Any]) -> list[float]:
    """Accuracies in percent, NaN where they are missing."""
    has_sign = [isinstance(cell, str) and cell.endswith("%") for cell in found]
    plain = [
        cell[:-1].rstrip() if signed else cell for cell, signed in zip(found, has_sign, strict=True)
    ]
    accuracies = []
    for cell, value in zip(found, plain, strict=True):
        accuracy = text_tables.number(value, decimal_comma=True)
        if accuracy is None or accuracy < 0 or accuracy > 100:
            raise InputError(f"found {text_tables.shown(cell)}, expected accuracies in 0..100")
        accuracies.append(accuracy)
    text_tables.check_decimal_marks(plain, thousands=False)
    known = [accuracy for accuracy in accuracies if not math.isnan(accuracy)]
    if any(has_sign):
        if sum(has_sign) < len(known):
            raise InputError("found accuracies with and without a percent sign, expected one form")
    elif known and max(known) <= 1:
        raise InputError(
            f"found accuracies from {min(known):g} to {max(known):g}, expected percent, 0..100 "
            "(multiply by 100)"
        )
    return accuracies


def _read_nats(path: str, place: Path, column: str) -> tuple[list[str], list[Any]]:
    """Cells and their accuracies from NATS-Bench's file or folder."""
    dataset, metric, epochs = _nats_names(column)
    if not place.is_dir():
        regular_file(path, _EXPECTED)
    elif not any((place / name).is_file() for name in ("meta.pickle.pbz2", "meta.pickle")):
        raise InputError(
            f"{path}: found a folder without meta.pickle.pbz2, expected NATS-Bench's folder "
            f"{_NATS_FOLDER} or a table"
        )
    try:
        import nats_bench
    except ImportError:
        raise InputError(
            f"{path}: needs the nats_bench package, pip install 'epe_nas_jax[nats]'"
        ) from None
    expected = f"expected {_NATS_FILE} or the folder {_NATS_FOLDER}"
    archs, found = [], []
    try:
        api = nats_bench.create(str(place), "tss", fast_mode=place.is_dir(), verbose=False)
        indices = sorted(api.evaluated_indexes) or range(len(api))
        for index in tqdm(indices, unit="cell", disable=None):
            expected = f"expected cell {index} trained on {dataset} for {epochs} epochs"
            info: Mapping[str, Any] = api.get_more_info(index, dataset, hp=epochs, is_random=False)
            archs.append(api.arch(index))
            found.append(info.get(metric))
    except _NATS_UNREADABLE as error:
        # The message of a LookupError is only the key that was not found.
        reason = "" if isinstance(error, LookupError) else str(error)
        message = f"not readable as NATS-Bench's files{reason and f' ({reason})'}, {expected}"
        raise InputError(f"{path}: {message}") from None
    return archs, found


def _nats_names(column: str) -> tuple[str, str, str]:
    """NATS-Bench's names of the data set, the metric and the epochs of a column."""
    metrics = {
        name: names for entry in DATASETS.values() for name, names in entry.nats_columns.items()
    }
    measured, _, epochs = column.rpartition("_")
    if measured not in metrics or not epochs.isdecimal():
        names = ", ".join(f"{name}_200" for name in metrics)
        raise InputError(f"benchmark.column: found {column!r}, expected one of {names} (or _12)")
    return (*metrics[measured], epochs)
