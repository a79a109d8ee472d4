r"""How far scores of the same cells by other seeds, batches or protocols agree.

Spearman between any two of the files, over the cells that all of them score; and between each file
and trained accuracies.

Command:  python -m experiments.agreement --benchmark=nasbench201.csv.gz \
              --column=cifar10_test_200 a.csv.gz b.csv.gz ...

With a single file, its columns are compared.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from absl import app, flags

from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.data.score_files import SCORE, read_scores
from epe_nas_jax.reports.text import Table, as_markdown, interval
from epe_nas_jax.search import ranking
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

_BENCHMARK = flags.DEFINE_string("benchmark", "", "A table of trained accuracies.")
_COLUMN = flags.DEFINE_string("column", "", "The benchmark's column of accuracies.")


def agreement_table(scores: pd.DataFrame) -> Table:
    """Spearman of every column with every later one, on the cells that have all columns.

    Args:
      scores: by arch string, one column per file, and perhaps one of accuracies.
    """
    common = scores.dropna()
    names = [str(name) for name in common]
    rows = []
    for i, first in enumerate(names[:-1]):
        row = [first] + [""] * i
        for second in names[i + 1 :]:
            correlation = ranking.spearman(common[first].to_numpy(), common[second].to_numpy())
            row.append(interval(correlation and correlation._asdict()))
        rows.append(row)
    title = f"Spearman, 95 % interval, {len(common)} cells"
    return Table(title, ["", *names[1:]], rows)


def main(argv: Sequence[str]) -> None:
    """Prints the table as Markdown."""
    paths = argv[1:]
    if not paths:
        raise app.UsageError("expected files of scores")
    tables = [read_scores(path, space=NASBENCH201) for path in paths]
    columns = {Path(path).name: table[SCORE] for path, table in zip(paths, tables, strict=True)}
    if len(columns) < len(paths):
        raise app.UsageError("expected files of different names")
    scores = tables[0] if len(tables) == 1 else pd.DataFrame(columns)
    if _BENCHMARK.value:
        accuracies = read_accuracies(_BENCHMARK.value, _COLUMN.value, space=NASBENCH201)
        scores["accuracy"] = [accuracies.get(str(arch), np.nan) for arch in scores.index]
    print(as_markdown(agreement_table(scores)))


if __name__ == "__main__":
    app.run(main)
