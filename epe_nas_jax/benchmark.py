"""Host side: trained accuracies of cells by arch string."""

from pathlib import Path

import numpy as np
import pandas as pd

from epe_nas_jax.errors import InputError
from epe_nas_jax.genotype import parse_arch


def read_accuracies(path: str, column: str) -> dict[str, float]:
    """Reads a table of trained accuracies.

    Args:
      path: a CSV file, or CSV.gz, with a header, an `arch` column and one of accuracies.
      column: name of the accuracy column, in percent.

    Returns:
      Accuracy by arch string; a cell whose accuracy is missing is left out.

    Raises:
      InputError: the file is missing or broken, lacks a column, repeats a cell, names one that does
        not exist, or has an accuracy that is no number in 0..100.
    """
    try:
        header = pd.read_csv(Path(path), nrows=0)
        for wanted in ("arch", column):
            if wanted not in header.columns:
                found = ", ".join(header.columns)
                raise InputError(f"{path}: expected a column {wanted!r}, found {found}")
        table = pd.read_csv(Path(path), usecols=["arch", column])
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected a CSV table of accuracies") from None
    except InputError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable CSV table ({error})".splitlines()[0]) from None

    repeated = table["arch"][table["arch"].duplicated()]
    if len(repeated):
        raise InputError(f"{path}: found cell {repeated.iloc[0]} twice, expected each cell once")
    for arch in table["arch"]:
        parse_arch(arch)
    values = pd.to_numeric(table[column], errors="coerce")
    bad = table[column][(values.isna() & table[column].notna()) | (values < 0) | (values > 100)]
    if len(bad):
        raise InputError(f"{path}, {column}: found {bad.iloc[0]}, expected accuracies in 0..100")
    known = values.notna()
    return dict(zip(table["arch"][known], values[known].to_numpy(np.float64).tolist(), strict=True))
