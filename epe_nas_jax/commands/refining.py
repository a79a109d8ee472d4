"""The stage of a search that scores its best cells again, at the full setting."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from epe_nas_jax.commands.settings import (
    Compiled,
    Setting,
    compile_setting,
    full_setting_of,
    naming_the_full_setting,
)
from epe_nas_jax.errors import InputError
from epe_nas_jax.runs import hosts
from epe_nas_jax.runs.run import Run
from epe_nas_jax.runs.score_log import LoggedScorer, ScoreLog, Step
from epe_nas_jax.runs.workdir import REFINING_LOG
from epe_nas_jax.scoring.columns import COLUMNS, Objective
from epe_nas_jax.search import refinement
from epe_nas_jax.search.algorithms import SearchResult, cached


class Refined(NamedTuple):
    """The best cells of a search, scored again.

    Attributes:
      scores: of all cells, `[A]`: ranks as from `refinement.refined_scores`.
      indices: which cells were scored again, int `[B]`.
      found: their scores at the full setting, `[B]`.
      proxies: their proxies by name, `[B]` each.
      num_networks: how many different networks they are.
      num_scored: how many of these networks no earlier part of the run had scored again.
      steps: the finished steps of each process, by the name of its log.
    """

    scores: np.ndarray
    indices: np.ndarray
    found: np.ndarray
    proxies: Mapping[str, np.ndarray]
    num_networks: int
    num_scored: int
    steps: Mapping[str, Sequence[Step]]


def full_setting(
    config: ConfigDict, objective: Objective, batch_key: jax.Array, own: Setting
) -> Setting | None:
    """The full setting of a search, checked; None if the search scores no cells again.

    Args:
      config: the config.
      objective: as from `objective_from`.
      batch_key: random key of the mini-batch of the search's own setting.
      own: the search's own setting.

    Raises:
      InputError: the share is out of range, or as `full_setting_of`.
    """
    share = config.search.refine
    if not 0 <= share <= 1:
        raise InputError(
            f"search.refine: found {share}, expected a share of the cells up to 1, or 0 for none"
        )
    return full_setting_of(config, objective, batch_key, own) if share else None


def compile_full(config: ConfigDict, setting: Setting) -> Compiled:
    """Compiles the scorer of the full setting; raises as `compile_setting`."""
    with naming_the_full_setting():
        num_cells = math.ceil(config.search.refine * config.search.num_samples)
        is_first = hosts.index() == 0
        return compile_setting(config, setting, num_together=num_cells, progress=is_first)


def refine(
    run: Run,
    share: float,
    objective: Objective,
    full: Compiled,
    result: SearchResult,
) -> Refined:
    """Scores the best share of a search's cells again, except those in the log of this stage.

    Args:
      run: the run, after `Run.begin`. Finished steps are in a log of its directory.
      share: the share of the cells with a score, above 0 and up to 1.
      objective: what the score is made of; several columns are ranked among the cells that are
        scored again.
      full: the full setting, compiled.
      result: the result of the search at its own setting.

    Raises:
      InputError: the log is damaged.
      OSError: the log cannot be read or written.
      StopRequested: a signal came; what is scored is on disk.
    """
    # Cells that are one network have one score.
    kinds, _, which = full.scorer.distinct(result.genotypes)
    indices = refinement.best_share(result.scores, share)
    indices = refinement.with_equal_cells(indices, kinds[which])
    num_proxies = len(full.scorer.config.proxies)
    with ScoreLog(run.directory, num_proxies, hosts.index(), REFINING_LOG) as log:
        logged = LoggedScorer(full.scorer, log, run.check_stop, full.seconds)

        def score_fn(cells: np.ndarray) -> np.ndarray:
            return objective.values(logged.by_name(cells), full.setting.cells(cells))

        again = result.genotypes[indices]
        found = cached(score_fn, objective.combine)(again)
        proxies = logged.by_name(again)
    return Refined(
        refinement.refined_scores(result.scores, indices, found),
        indices,
        found,
        proxies,
        len(logged.rows),
        logged.num_scored,
        log.steps,
    )


def add_columns(
    table: pd.DataFrame, search_scores: np.ndarray, refined: Refined, objective: Objective
) -> None:
    """Adds columns of the full setting to a search's table, empty for cells not scored again.

    The columns are `search_score` and `refined_score`, the score at either setting, and before the
    counts `refined_NAME` for the proxies at the full setting.

    Args:
      table: as from `table_of`, with the final scores; it is changed.
      search_scores: scores at the setting of the search, `[A]`.
      refined: the cells that were scored again.
      objective: what the score is made of; a proxy that is the score gets no column of its own.
    """

    def spread(values: np.ndarray) -> np.ndarray:
        column = np.full(len(table), np.nan)
        column[refined.indices] = values
        return column

    table.insert(2, "search_score", search_scores)
    table.insert(3, "refined_score", spread(refined.found))
    first_count = next(iter(COLUMNS))
    for name, values in refined.proxies.items():
        if objective.columns != (name,):
            place = list(table.columns).index(first_count)
            table.insert(place, f"refined_{name}", spread(values))
