"""Host side: trained accuracies of cells from a table or from NATS-Bench's own files."""

import gzip
import io
import json
import pickle
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from epe_nas_jax.data.table import DATASETS
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import SearchSpace

_GZIP_MAGIC = b"\x1f\x8b"
# What the package raises on files that are not its own, or broken.
_NATS_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


def read_accuracies(path: str, column: str, *, space: SearchSpace) -> dict[str, float]:
    """Reads trained accuracies, in percent, from a file in any of three forms.

    * A CSV table with a header, an `arch` column of cells and one of accuracies.
    * JSON: a list of records with these two keys, or an object from cell to such a record or to the
      accuracy itself, in which case the column is not asked for.
    * NATS-Bench's file `NATS-tss-v1_0-*.pickle.pbz2` or its folder `NATS-tss-v1_0-*-simple`, read
      by the `nats_bench` package, which unpickles whatever they hold: give it files from a source
      that you trust. The mean over the trained seeds after the last epoch.

    A table may be compressed by gzip.

    Args:
      path: the file or folder.
      column: name of the accuracies. For NATS-Bench one of `nats_columns` of `table.DATASETS`, then
        the epochs, 12 or 200, as in `cifar10_test_200`.
      space: the search space of the cells, which reads and writes their text.

    Returns:
      Accuracy by cell, as the space writes it; a cell whose accuracy is missing is left out.

    Raises:
      InputError: the file is missing or broken, lacks a column, repeats a cell, names one that does
        not exist, or has an accuracy that is no number in 0..100; or the package is missing.
    """
    place = Path(path)
    if not place.exists():
        raise InputError(f"{path}: no such file, expected a table of accuracies")
    if place.is_dir() or place.suffix == ".pbz2":
        table = _read_nats(place, column)
    else:
        try:
            text = _read_text(place)
            is_json = text.lstrip().startswith(("[", "{"))
            table = _parse_json(text, column) if is_json else _parse_csv(text, column)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (OSError, ValueError, EOFError, RecursionError, zlib.error) as error:
            raise InputError(f"{path}: not a readable table ({error})".splitlines()[0]) from None
    return _accuracies_of(path, table, column, space)


def _accuracies_of(
    path: str, table: pd.DataFrame, column: str, space: SearchSpace
) -> dict[str, float]:
    """Accuracy by cell, from the columns `arch` and the wanted one."""
    if not len(table):
        raise InputError(f"{path}: found no cells, expected accuracies")
    try:
        cells = table["arch"].map(lambda arch: space.format(space.parse(arch)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    repeated = cells[cells.duplicated()]
    if len(repeated):
        raise InputError(f"{path}: found cell {repeated.iloc[0]} twice, expected each cell once")
    found = table[column]
    may_be_number = found.map(lambda value: np.isscalar(value) and not isinstance(value, bool))
    values = pd.to_numeric(found.where(may_be_number), errors="coerce")
    bad = found[(values.isna() & found.notna()) | (values < 0) | (values > 100)]
    if len(bad):
        raise InputError(f"{path}, {column}: found {bad.iloc[0]}, expected accuracies in 0..100")
    known = values.notna()
    return dict(zip(cells[known], values[known].to_numpy(np.float64).tolist(), strict=True))


def _read_text(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(_GZIP_MAGIC):
        content = gzip.decompress(content)
    return content.decode()


def _parse_csv(text: str, column: str) -> pd.DataFrame:
    header = pd.read_csv(io.StringIO(text), nrows=0)
    _check_names(header.columns, column, "column")
    return pd.read_csv(io.StringIO(text), usecols=["arch", column])


def _parse_json(text: str, column: str) -> pd.DataFrame:
    content = json.loads(text, object_pairs_hook=_without_repetition)
    records = content
    if isinstance(content, dict):
        records = [
            {**value, "arch": arch} if isinstance(value, dict) else {"arch": arch, column: value}
            for arch, value in content.items()
        ]
    for record in records:
        if not isinstance(record, dict):
            raise InputError(f"found {record!r}, expected records with a key 'arch'")
        _check_names(record, column, "key")
    return pd.DataFrame(records, columns=["arch", column], dtype=object)


def _check_names(names: Collection[str], column: str, kind: str) -> None:
    for wanted in ("arch", column):
        if wanted not in names:
            raise InputError(f"expected a {kind} {wanted!r}, found {', '.join(names)}")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, which may name each key once."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"found {twice} twice, expected it once")
    return content


def _read_nats(path: Path, column: str) -> pd.DataFrame:
    metrics = {
        name: names for entry in DATASETS.values() for name, names in entry.nats_columns.items()
    }
    measured, _, epochs = column.rpartition("_")
    if measured not in metrics or not epochs.isdecimal():
        names = ", ".join(f"{name}_200" for name in metrics)
        raise InputError(f"benchmark.column: found {column!r}, expected one of {names} (or _12)")
    dataset, metric = metrics[measured]
    try:
        import nats_bench
    except ImportError:
        raise InputError(
            f"{path}: needs the nats_bench package, pip install 'epe_nas_jax[nats]'"
        ) from None
    try:
        api = nats_bench.create(str(path), "tss", fast_mode=path.is_dir(), verbose=False)
        indices = sorted(api.evaluated_indexes) or range(len(api))
        records: list[Mapping[str, Any]] = []
        for index in tqdm(indices, unit="cell"):
            info = api.get_more_info(index, dataset, hp=epochs, is_random=False)
            records.append({"arch": api.arch(index), column: info.get(metric)})
    except _NATS_UNREADABLE as error:
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        raise InputError(f"{path}: not readable as NATS-Bench's files ({reason})") from None
    return pd.DataFrame(records, columns=["arch", column])
