"""Host side: latencies of cells from a table."""

import math

from epe_nas_jax.data import text_tables
from epe_nas_jax.data.cell_tables import different_cells, read_column
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import SearchSpace


def read_latencies(path: str, column: str, *, space: SearchSpace) -> dict[str, float]:
    """Reads how long the networks of cells take, in milliseconds.

    Args:
      path: a table, CSV or JSON, plain or compressed, as for `accuracies.read_accuracies`.
      column: name of the latencies.
      space: the search space of the cells, which reads and writes their text.

    Returns:
      Latency by cell, as the space writes it; NaN where the table has none.

    Raises:
      InputError: the file is missing or broken, lacks a column or has it twice, repeats a cell,
        names one that does not exist, has a latency that is no finite number of at least 0, or has
        no latency at all.

    Examples:
      >>> import pandas as pd
      >>> from epe_nas_jax.data.latencies import read_latencies
      >>> from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
      >>> arch = "|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
      >>> pd.DataFrame({"arch": [arch], "phone": [3.5]}).to_csv("latencies.csv", index=False)
      >>> read_latencies("latencies.csv", "phone", space=NASBENCH201)[arch]
      3.5
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
