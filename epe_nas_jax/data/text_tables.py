"""Host side: tables of text, CSV or JSON, plain or compressed.

The kind of file is recognised by its content, not by its name. Numbers that could be read in two
ways are refused.
"""

import collections
import contextlib
import csv
import io
import itertools
import json
import math
import numbers
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from epe_nas_jax.data.files import regular_file
from epe_nas_jax.data.text_files import EXPECTED, read_text
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import SearchSpace

ARCH = "arch"

_SEPARATORS = (",", ";", "\t")
# Texts that mean a missing value, as in pandas.
_MISSING = re.compile(
    r"(?:[+-]?nan|null|none|<na>|n/?a|#n/?a(?: n/a)?|-?1\.#(?:ind|qnan))?", re.ASCII | re.IGNORECASE
)
_NUMBER = re.compile(
    r"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?)", re.ASCII | re.IGNORECASE
)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_MAYBE_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
# Added after the last row: a quote that is not closed would swallow it.
_END = "\0end"


class Table(NamedTuple):
    """A table as it was read.

    Attributes:
      columns: the values by column. Text has no spaces around it, and is NaN where it means a
        missing value; values of JSON can have any type.
      separator: what stands between the cells of a row; empty for JSON.
    """

    columns: Mapping[str, list[Any]]
    separator: str


def read_table(
    path: str,
    wanted: Sequence[str],
    *,
    expected: str,
    others: bool = False,
    value_name: str | None = None,
) -> Table:
    """Reads columns of a table, which may be compressed by gzip, bzip2, xz or zip.

    * CSV with a header, in UTF-8, or in UTF-16 with a byte order mark; the separator is a comma, a
      semicolon or a tab.
    * JSON: a list of records, one object per line, or an object from cell to record, or to a value.

    Spaces around column names do not matter, nor does their case unless a name matches exactly.

    Args:
      path: the file.
      wanted: names of the columns that must be there, `arch` first.
      expected: what the file should be, for messages.
      others: whether to read all other columns that have a name, too.
      value_name: the column that a JSON object from cell to value holds; None: such an object is
        refused.

    Returns:
      The wanted columns by these names, then the others.

    Raises:
      InputError: the file is missing or broken, lacks a column or has one twice.
    """
    file = regular_file(path, expected)
    with _errors_name(path):
        text = read_text(file)
        if _is_json(text):
            return _parse_json(text, wanted, others, value_name)
        return _parse_csv(text, wanted, others)


def read_header(path: str, *, expected: str) -> list[str]:
    """Reads the names of a table's columns; for JSON, the keys of its first record.

    Args:
      path: the file, as for `read_table`.
      expected: what the file should be, for messages.

    Raises:
      InputError: the file is missing or broken.
    """
    file = regular_file(path, expected)
    with _errors_name(path):
        text = read_text(file)
        if not _is_json(text):
            return _header(text, (ARCH,))[1]
        first = next(_records(_load_json(text), ""), {})
        return [key.strip() for key in first]


def columns_of_cells(path: str, space: SearchSpace, *, expected: str) -> tuple[str, ...]:
    """The columns that name a table's cells: `arch`, or else those of the space.

    Args:
      path: the file, as for `read_table`.
      space: the search space of the cells.
      expected: what the file should be, for messages.

    Raises:
      InputError: the file is missing or broken, or has neither.
    """
    if space.table_columns == (ARCH,):
        return (ARCH,)
    names = read_header(path, expected=expected)
    found = {name.casefold() for name in names}
    if ARCH in found:
        return (ARCH,)
    if not found.issuperset(space.table_columns):
        columns = " and ".join(space.table_columns)
        raise InputError(
            f"{path}: expected a column {ARCH!r}, or {columns}, found {shown(', '.join(names))}"
        )
    return space.table_columns


def texts_of_cells(columns: Sequence[Sequence[Any]]) -> list[Any]:
    """The cells' texts, row by row, from the columns that name them."""
    if len(columns) == 1:
        return list(columns[0])
    return [":".join(map(str, row)) for row in zip(*columns, strict=True)]


def cells_of(path: str, archs: Iterable[Any], space: SearchSpace) -> list[str]:
    """Rewrites cells in the form of their space.

    Args:
      path: the file that names them, for messages.
      archs: the values of its column `arch`.
      space: the search space of the cells, which reads and writes their text.

    Raises:
      InputError: one of them is no cell of the space.
    """
    with _errors_name(path):
        return [_cell_of(number, arch, space) for number, arch in enumerate(archs, 1)]


def _cell_of(number: int, arch: Any, space: SearchSpace) -> str:
    try:
        return space.format(space.parse(arch))
    except InputError as error:
        raise InputError(f"cell {number}: {error}") from None


def number(cell: Any, *, decimal_comma: bool) -> float | None:
    """Reads a number from a value of a table.

    Args:
      cell: the value.
      decimal_comma: whether text may have a comma in place of a decimal point.

    Returns:
      The number, NaN for a missing value, None for a value that is no number.
    """
    if isinstance(cell, str):
        if decimal_comma and _DECIMAL_COMMA.fullmatch(cell):
            cell = cell.replace(",", ".")
        return float(cell) if _NUMBER.fullmatch(cell) else None
    if cell is None:
        return math.nan
    if isinstance(cell, bool) or not isinstance(cell, numbers.Real):
        return None
    try:
        return float(cell)
    except OverflowError:
        return None


def check_decimal_marks(cells: Iterable[Any], *, thousands: bool) -> None:
    """Checks that the commas and points in numbers can mean one thing only.

    Args:
      cells: values that `number` has read, with decimal commas.
      thousands: whether they can be so large that a comma could separate thousands.

    Raises:
      InputError: some have a decimal comma and some a point, or all commas could separate
        thousands.
    """
    texts = [cell for cell in cells if isinstance(cell, str)]
    with_comma = [cell for cell in texts if "," in cell]
    with_point = next((cell for cell in texts if "." in cell), None)
    if with_comma and with_point is not None:
        found = f"{shown(with_comma[0])} and {shown(with_point)}"
        raise InputError(f"found {found}, expected either decimal commas or decimal points")
    if thousands and with_comma and all(map(_MAYBE_THOUSANDS.fullmatch, with_comma)):
        raise InputError(
            f"found {with_comma[0]}, whose comma may separate thousands, expected a decimal point"
        )


def shown(value: Any) -> str:
    """A value as text for a message, shortened if it is large and no text itself."""
    return value if isinstance(value, str) else reprlib.repr(value)


@contextlib.contextmanager
def _errors_name(path: str) -> Iterator[None]:
    """Turns errors into an `InputError` of one line that names the file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, RecursionError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a readable table ({error}), {EXPECTED}") from None


def _is_json(text: str) -> bool:
    return text.lstrip().startswith(("[", "{"))


def _parse_csv(text: str, wanted: Sequence[str], others: bool) -> Table:
    separator, names = _header(text, wanted)
    places = _places(names, wanted, others, "column")
    _, *rows = _rows(text, separator)
    for line, row in rows:
        if any(row[len(names) :]):
            raise InputError(f"line {line}: found {len(row)} cells, expected {len(names)}")
    columns = {
        name: [_present(row[place]) if place < len(row) else math.nan for _, row in rows]
        for name, place in places.items()
    }
    return Table(columns, separator)


def _header(text: str, wanted: Sequence[str]) -> tuple[str, list[str]]:
    """The separator with which most of the wanted columns are found, and the column names."""

    def fit(separator: str) -> tuple[int, int]:
        folded = [name.casefold() for name in headers[separator]]
        return sum(name.strip().casefold() in folded for name in wanted), len(folded)

    headers = {
        separator: next(_rows(text, separator), (0, list[str]()))[1] for separator in _SEPARATORS
    }
    best = max(_SEPARATORS, key=fit)
    if not headers[best]:
        raise InputError(f"not a readable table (found nothing in it), {EXPECTED}")
    return best, headers[best]


def _rows(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, without spaces around their values, and their line numbers."""
    lines = itertools.chain(io.StringIO(text, newline=""), [_END])
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    row: list[str] = []
    for row in reader:
        stripped = [cell.strip() for cell in row]
        if row != [_END] and any(stripped):
            yield reader.line_num, stripped
    if row != [_END]:
        raise InputError(f"not a readable table (found a quote that is not closed), {EXPECTED}")


def _present(cell: str) -> str | float:
    return math.nan if _MISSING.fullmatch(cell) else cell


def _places(names: Sequence[str], wanted: Sequence[str], others: bool, kind: str) -> dict[str, int]:
    """Indices of the wanted names and, with `others`, of all other names that are not empty."""
    places = {name: _place(names, name.strip(), kind) for name in wanted}
    if others:
        known = set(places.values())
        rest = [(name, i) for i, name in enumerate(names) if name and i not in known]
        _check_no_repetition([name for name, _ in rest], kind)
        places.update(rest)
    return places


def _place(names: Sequence[str], wanted: str, kind: str) -> int:
    for form in (str, str.casefold):
        equal = [i for i, name in enumerate(names) if name and form(name) == form(wanted)]
        if len(equal) > 1:
            found = "" if form is str else f" ({', '.join(names[i] for i in equal)})"
            raise InputError(f"found {kind} {wanted!r} twice{found}, expected it once")
        if equal:
            return equal[0]
    raise InputError(f"expected a {kind} {wanted!r}, found {shown(', '.join(names))}")


def _check_no_repetition(names: Sequence[str], kind: str) -> None:
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise InputError(f"found {kind} {shown(name)!r} twice, expected it once")


def _parse_json(text: str, wanted: Sequence[str], others: bool, value_name: str | None) -> Table:
    rows = []
    places_of: dict[tuple[str, ...], dict[str, int]] = {}
    for record in _records(_load_json(text), value_name):
        keys = tuple(record)
        # The name of an object's values was not looked up, and may be empty.
        if keys == tuple(wanted):
            places_of[keys] = {key: i for i, key in enumerate(keys)}
        if keys not in places_of:
            places_of[keys] = _places([key.strip() for key in keys], wanted, others, "key")
        values = list(record.values())
        rows.append({name: values[place] for name, place in places_of[keys].items()})
    columns = {
        name: [_plain(row.get(name)) for row in rows]
        for name in dict.fromkeys(itertools.chain(wanted, *rows))
    }
    return Table(columns, "")


def _plain(value: Any) -> Any:
    return _present(value.strip()) if isinstance(value, str) else value


def _load_json(text: str) -> Any:
    """The content of JSON, or the list of its lines' contents."""
    try:
        return json.loads(text, object_pairs_hook=_without_repetition)
    except json.JSONDecodeError as error:
        if not text.lstrip().startswith("{") or error.msg != "Extra data":
            raise
    contents = []
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip():
            try:
                contents.append(json.loads(content, object_pairs_hook=_without_repetition))
            except json.JSONDecodeError as error:
                raise InputError(
                    f"not a readable table (line {line}: {error.msg}), {EXPECTED}"
                ) from None
    return contents


def _records(content: Any, value_name: str | None) -> Iterator[dict[str, Any]]:
    """The records of any form of JSON, with a key `arch`."""
    records = content
    if isinstance(content, dict) and any(key.strip().casefold() == ARCH for key in content):
        records = [content]
    elif isinstance(content, dict):
        records = [_record(arch, value, value_name) for arch, value in content.items()]
    for record in records:
        if not isinstance(record, dict):
            raise InputError(f"found {shown(record)}, expected records with a key 'arch'")
        yield record


def _record(arch: str, value: Any, value_name: str | None) -> Any:
    """The record of a cell of a JSON object, or its value if that cannot be made into one."""
    if isinstance(value, dict):
        return {**value, ARCH: arch}
    return value if value_name is None else {ARCH: arch, value_name: value}


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which no key may occur twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        _check_no_repetition([key for key, _ in pairs], "key")
    return content
