"""The recommended ranking as one call, from cells to a table of proxies, scores and ranks."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from epe_nas_jax.scoring.columns import (
    BEST_RANKING,
    COLUMNS,
    MEASURED,
    Objective,
    RunCells,
    objective_of,
    proxies_to_score,
)
from epe_nas_jax.scoring.config import ScoringConfig
from epe_nas_jax.scoring.scorer import compile_scorer
from epe_nas_jax.spaces.base import CellNetwork, genotypes_of


def score_table(
    cells: Any,
    images: Any,
    labels: Any,
    *,
    columns: Sequence[str] = (),
    objective: Sequence[str] = BEST_RANKING,
    combine: str = "log_rank_sum",
    seed: int = 0,
    network: CellNetwork | None = None,
    init: str = "shared",
    num_inits: int = 1,
    cells_per_step: int | str = "auto",
    devices: Sequence[jax.Device] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Ranks cells by the recommended combination of proxies, or by an objective of your own.

    Args:
      cells: genotypes, int `[A, E]`, or A texts of cells.
      images: the mini-batch, as in `compile_scorer`.
      labels: as in `compile_scorer`.
      columns: further proxies to compute, names of `proxies.table.PROXIES`. Those of
        `columns.COLUMNS` that need no measurement are always in the table.
      objective: names of the proxies and of the `columns.COLUMNS` that are combined to the score;
        by default the recommended five (docs/ranking.md). `("epe",)` is EPE-NAS.
      combine: how the ranks of several columns are added, `"log_rank_sum"` or `"rank_sum"`; a rank
        is among these cells.
      seed: seed of the weights.
      network: as in `compile_scorer`.
      init: as in `ScoringConfig`.
      num_inits: as in `ScoringConfig`.
      cells_per_step: as in `compile_scorer`.
      devices: as in `compile_scorer`.
      progress: as in `compile_scorer`.

    Returns:
      One row per cell, in the given order, with `arch`, `score` (larger is better, NaN for a cell
      without one), `rank` (1 is the best, equal scores have equal ranks, missing for a cell without
      a score), then the proxies and those of `columns.COLUMNS` that need no measurement.

    Raises:
      InputError: an unknown column, or as `score_cells`.

    Examples:
      >>> cells = [[3, 3, 3, 3, 3, 3], [3, 0, 0, 1, 0, 3], [0, 0, 0, 0, 0, 0]]
      >>> table = epe_nas_jax.score_table(cells, images, labels, network=network)
      >>> table["rank"].tolist()  # the third cell has no path from input to output
      [1, 2, <NA>]
      >>> table["live_params"].tolist()
      [23255, 4775, 4775]
    """
    aim = objective_of(tuple(objective), combine)
    further = tuple(name for name in columns if name not in COLUMNS or name in MEASURED)
    proxies = proxies_to_score(aim, further)
    scorer = compile_scorer(
        images,
        labels,
        seed=seed,
        network=network,
        config=ScoringConfig(init=init, proxies=proxies, num_inits=num_inits),
        cells_per_step=cells_per_step,
        devices=devices,
        progress=progress,
    )
    genotypes = genotypes_of(cells, scorer.network.space)
    found = dict(zip(proxies, scorer.proxies(genotypes).T, strict=True))
    run = RunCells(genotypes, scorer.network, *scorer.inputs[1].shape[2:])
    scores = aim.values(found, run)
    if aim.combine:
        scores = aim.combine(scores)
    table = table_of(run, scores, found, aim, scorer.network)
    rank = table["score"].rank(method="min", ascending=False).astype("Int64")
    table.insert(2, "rank", rank)
    return table


def table_of(
    cells: RunCells,
    scores: np.ndarray,
    proxies: Mapping[str, np.ndarray],
    objective: Objective,
    network: CellNetwork,
) -> pd.DataFrame:
    """Makes a table of scored cells: `arch`, `score`, proxies, and further columns.

    Args:
      cells: the cells.
      scores: the cells' scores, `[A]`.
      proxies: the cells' proxies by name, `[A]` each. A proxy that is the whole score appears as
        `score` only.
      objective: what the scores are made of.
      network: the network around the cells.
    """
    archs = [network.space.format(genotype) for genotype in cells.genotypes]
    table = pd.DataFrame({"arch": archs, "score": scores})
    for name, values in proxies.items():
        if objective.columns != (name,):
            table[name] = values
    for name, column in cells.columns.items():
        table[name] = column.values(cells)
    return table
