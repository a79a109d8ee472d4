"""What experiments on several search spaces share: signals, sizes, the texts of a table's cells."""

import pandas as pd

SIGNALS = ("epe", "jacob_cov", "nwot", "grad_entropy", "grad_decay")

# Classes, channels of the first stage and cells a stage, as the benchmarks have them.
SIZES = {
    "nasbench201": (10, 16, 5),
    "nasbench101": (10, 128, 3),
    "nasbench301": (10, 32, 2),
    "transnas_micro": (100, 64, 2),
}


def texts_of(table: pd.DataFrame) -> list[str]:
    """The texts of a table's cells, row by row."""
    names = [name for name in ("arch", "genotype") if name in table]
    return list(table[names[0]] if names else table["adjacency"] + ":" + table["ops"])
