"""What experiments on several search spaces share: signals, sizes, the texts of a table's cells."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pandas as pd

from epe_nas_jax.data import text_tables
from epe_nas_jax.scoring.columns import COLUMNS, RunCells
from epe_nas_jax.spaces.table import space_entry

SIGNALS = ("epe", "jacob_cov", "nwot", "grad_entropy", "grad_decay")

# Classes, channels of the first stage and cells a stage, as the benchmarks have them.
SIZES = {
    "nasbench201": (10, 16, 5),
    "nasbench301": (10, 32, 2),
    "nasbench101": (10, 128, 3),
    "transnas_micro": (100, 64, 2),
}


# All columns that follow from the genotype, without `params` and `mflops`.
COUNTS = tuple(name for name, column in COLUMNS.items() if not column.is_limit)


def read_scores(path: str, archs: Sequence[str], space_name: str) -> pd.DataFrame:
    """Scores of some cells, a row each, with the counts of their genotypes beside them."""
    scores = pd.read_csv(path).set_index("arch").loc[list(archs)]
    # FLOPs depend on the side, which only the file's own know.
    missing = [name for name in COUNTS if name not in scores and name != "live_mflops"]
    entry = space_entry(space_name)
    network = entry.make_network(*SIZES[space_name], jnp.dtype(jnp.float32))
    genotypes = np.stack([entry.space.parse(arch) for arch in archs])
    cells = RunCells(genotypes, network, side=32)
    return scores.assign(**{name: COLUMNS[name].values(cells) for name in missing})


def texts_of(table: pd.DataFrame, space_name: str) -> list[str]:
    """The texts of a table's cells, row by row, as the space writes them."""
    space = space_entry(space_name).space
    names = ("arch",) if "arch" in table else space.table_columns
    texts = text_tables.texts_of_cells([list(table[name]) for name in names])
    return [space.format(space.parse(text)) for text in texts]
