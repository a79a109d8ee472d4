"""Host side: one column of a table of cells."""

from collections.abc import Sequence
from typing import Any

from epe_nas_jax.data import text_tables
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import SearchSpace


def read_column(
    path: str, column: str, *, space: SearchSpace, expected: str
) -> tuple[list[Any], list[Any]]:
    """Reads one column of a table of cells.

    Args:
      path: a table as for `text_tables.read_table`, with a column `arch` or the space's own
        (`SearchSpace.table_columns`).
      column: name of the column to read; ignored if the file is a JSON object from cell to value.
      space: the search space of the cells.
      expected: what the file should be, for messages.

    Returns:
      The cells as the table writes them, and the column's value for each.

    Raises:
      InputError: the file is missing or broken, or lacks a column or has it twice.
    """
    names = text_tables.columns_of_cells(path, space, expected=expected)
    table = text_tables.read_table(path, (*names, column), expected=expected, value_name=column)
    return text_tables.texts_of_cells([table.columns[name] for name in names]), table.columns[
        column
    ]


def different_cells(
    path: str, archs: Sequence[Any], space: SearchSpace, *, expected: str
) -> list[str]:
    """Rewrites a table's cells in the form of their space, and checks that each occurs once.

    Args:
      path: the table, for messages.
      archs: the cells as the table writes them.
      space: the search space of the cells, which reads and writes their text.
      expected: what the table should have, for messages.

    Raises:
      InputError: there are none, one is no cell of the space, or one is there twice.
    """
    if not archs:
        raise InputError(f"{path}: found no cells, expected {expected}")
    cells = text_tables.cells_of(path, archs, space)
    known = set[str]()
    for cell in cells:
        if cell in known:
            raise InputError(f"{path}: found cell {cell} twice, expected each cell once")
        known.add(cell)
    return cells
