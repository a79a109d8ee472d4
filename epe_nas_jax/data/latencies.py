"""Host side: latencies of cells from a table."""

import math

from epe_nas_jax.data import text_tables
from epe_nas_jax.data.cell_tables import different_cells, read_column
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import SearchSpace


def read_latencies(path: str, column: str, *, space: SearchSpace) -> dict[str, float]:
    """Reads how long the networks of cells take, in milliseconds.

    >>> read_latencies("nasbench201_hw.csv.gz", "cifar10_edgegpu_latency", space=NASBENCH201)

    Args:
      path: a table, CSV or JSON, plain or compressed, as for `accuracies.read_accuracies`.
      column: name of the latencies.
      space: the search space of the cells, which reads and writes their text.

    Returns:
      Latency by cell, as the space writes it; NaN where the table has none.

    Raises:
      InputError: the file is missing or broken, lacks a column or has it twice, repeats a cell,
        names one that does not exist, has a latency that is no finite number from 0 on, or none.
    """
    archs, found = read_column(path, column, space=space, expected="a table of latencies")
    cells = different_cells(path, archs, space, expected="latencies")
    latencies = []
    for cell in found:
        latency = text_tables.number(cell, decimal_comma=True)
        if latency is None or latency < 0 or math.isinf(latency):
            shown = text_tables.shown(cell)
            raise InputError(f"{path}, {column}: found {shown}, expected milliseconds")
        latencies.append(latency)
    try:
        text_tables.check_decimal_marks(found, thousands=True)
    except InputError as error:
        raise InputError(f"{path}, {column}: {error}") from None
    if all(map(math.isnan, latencies)):
        raise InputError(f"{path}, {column}: found no numbers, expected milliseconds")
    return dict(zip(cells, latencies, strict=True))
