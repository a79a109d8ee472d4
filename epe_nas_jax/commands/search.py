"""The search command: from a config to a finished work directory."""

import functools
import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from epe_nas_jax.commands import refining
from epe_nas_jax.commands.cli import run_command
from epe_nas_jax.commands.config import (
    accuracies_of,
    dataset_of,
    objective_from,
    plain_config,
    space_of,
)
from epe_nas_jax.commands.latency import latency_of, table_of_latencies
from epe_nas_jax.commands.refining import Refined
from epe_nas_jax.commands.settings import Compiled, Setting, compile_setting, setting_of
from epe_nas_jax.commands.summary import best_cells, summarise, with_refined
from epe_nas_jax.errors import InputError
from epe_nas_jax.reports.search_page import ColumnRanks, run_page
from epe_nas_jax.reports.text import result_table
from epe_nas_jax.runs import hosts
from epe_nas_jax.runs.run import Run, open_run
from epe_nas_jax.runs.score_log import LoggedScorer, ScoreLog
from epe_nas_jax.runs.workdir import REPORT_FILE, SCORES_FILE, SUMMARY_FILE, to_json
from epe_nas_jax.scoring.columns import COLUMNS, LIMITS, MEASURED, Objective
from epe_nas_jax.scoring.progress import progress_bar
from epe_nas_jax.scoring.score_table import table_of
from epe_nas_jax.search import algorithms
from epe_nas_jax.search.algorithms import Algorithm, SearchResult
from epe_nas_jax.search.nsga2 import nsga2
from epe_nas_jax.search.ranking import best_index, column_ranks
from epe_nas_jax.search.restrict import restrict
from epe_nas_jax.seeds import random_key
from epe_nas_jax.spaces.base import SearchSpace, check_num_samples

_FINISHED = "This run had scored all its cells before: nothing was scored again."


class _Search(NamedTuple):
    """Everything that a search needs, checked.

    Attributes:
      algorithm: a search over the cells within the limits; None for random with replacement.
      own: the setting at which it scores.
      full: the setting at which its best cells are scored again; None if none are.
    """

    space: SearchSpace
    objective: Objective
    algorithm: Algorithm | None
    accuracies: dict[str, float] | None
    own: Compiled
    full: Compiled | None

    @property
    def inputs(self) -> tuple[np.ndarray | jax.Array, ...]:
        """The images and labels that the results depend on."""
        stages = (self.own, self.full) if self.full else (self.own,)
        return tuple(array for stage in stages for array in stage.setting.inputs)


def search_and_report(config: ConfigDict, workdir: str | os.PathLike[str]) -> str:
    """Searches as the config says and leaves its results in the work directory.

    These are `config.json`, `scores.csv`, `summary.json` and `report.html`.

    All input is checked before the first cell is scored. Every finished step is on disk before the
    next begins, so that a run that was killed continues where it stopped; the results appear when
    the search is over, each file complete.

    All processes that `hosts.join` connected call this function: each runs the same search and
    scores its part of every step. Process 0 writes the results.

    Args:
      config: as in `configs/base.py`.
      workdir: the work directory, which is created if it does not exist. It may hold a run of the
        same config, which continues or, if it is finished, returns its results again.

    Returns:
      The result as a table to print; an empty text in other processes than process 0.

    Raises:
      InputError: something in the config, the data or the work directory cannot be used.
      OSError: the work directory cannot be written.
      StopRequested: SIGTERM or SIGINT came; what is scored is on disk.
    """
    with open_run({**plain_config(config), **table_of_latencies(config)}, workdir) as run:
        search_key, batch_key = jax.random.split(random_key(config.seed))
        search = _prepare(config, batch_key, run)
        run.begin(search.inputs)
        own, share = search.own, config.search.refine
        num_proxies = len(own.scorer.config.proxies)
        with ScoreLog(run.directory, num_proxies, hosts.index()) as log:
            logged = LoggedScorer(own.scorer, log, run.check_stop, own.seconds)
            result = _run(config, search, logged, search_key)
        refined = None
        if search.full:
            refined = refining.refine(run, share, search.objective, search.full, result)
        if not run.is_first:
            return ""
        text = _write_results(run, config, search, result, refined, logged, log)
    num_scored = logged.num_scored + (refined.num_scored if refined else 0)
    return text if num_scored else f"{_FINISHED}\n\n{text}"


def _prepare(config: ConfigDict, batch_key: jax.Array, run: Run) -> _Search:
    """Reads and checks everything, then compiles the scorers."""
    space = space_of(config)
    check_num_samples(space, config.search.num_samples, replace=config.search.replace)
    accuracies = accuracies_of(config, space)
    objective = objective_from(config)
    setting = setting_of(config, dataset_of(config), objective, batch_key)
    image_shape = setting.inputs[0].shape[1:]
    latency = latency_of(config, setting.network, image_shape, run)
    setting = setting._replace(latency=latency)
    full = refining.full_setting(config, objective, batch_key, setting)
    algorithm = _algorithm_of(config, setting)
    # Random search asks for all scores at once, so that the scorer shows the progress.
    is_random = config.search.algorithm == "random"
    candidates = min(config.search.candidates_per_step, config.search.num_samples)
    return _Search(
        space,
        objective,
        algorithm,
        accuracies,
        compile_setting(
            config,
            setting,
            num_together=None if is_random else candidates,
            progress=is_random and hosts.index() == 0,
        ),
        full and refining.compile_full(config, full),
    )


def _run(config: ConfigDict, search: _Search, logged: LoggedScorer, key: jax.Array) -> SearchResult:
    """Searches, and shows the progress if the scorer does not."""
    own, objective, num_samples = search.own, search.objective, config.search.num_samples
    is_hidden = own.scorer.progress or hosts.index() != 0
    with progress_bar(num_samples, unit="cell", disable=is_hidden) as bar:

        def score_fn(genotypes: np.ndarray) -> np.ndarray:
            if own.setting.latency:
                # Before cells are scored: a table may lack one, and measuring needs an idle device.
                own.setting.latency(genotypes)
            values = objective.values(logged.by_name(genotypes), own.setting.cells(genotypes))
            bar.update(len(genotypes))
            return values

        if search.algorithm is None:
            return algorithms.random_search(
                key,
                score_fn,
                num_samples=num_samples,
                space=search.space,
                replace=True,
                combine=objective.combine,
            )
        return algorithms.run(
            search.algorithm, key, score_fn, num_samples, combine=objective.combine
        )


def _algorithm_of(config: ConfigDict, setting: Setting) -> Algorithm | None:
    """The search algorithm that a config names, over the cells within its limits.

    Returns:
      None for random search with replacement.

    Raises:
      InputError: an unknown algorithm, a setting that does not go with it, a number out of range,
        or too few cells within the limits.
    """
    settings = config.search
    name = settings.algorithm
    # No more cells are drawn than may be scored, nor than there are.
    candidates_per_step = min(settings.candidates_per_step, settings.num_samples)
    makers = {
        "random": lambda space: algorithms.random(settings.num_samples, space=space),
        "evolution": lambda space: algorithms.evolution(
            population=min(settings.population, settings.num_samples),
            tournament=settings.tournament,
            candidates_per_step=candidates_per_step,
            space=space,
        ),
        "local": lambda space: algorithms.local(
            candidates_per_step=candidates_per_step, space=space
        ),
        "nsga2": lambda space: nsga2(
            population=min(settings.population, settings.num_samples),
            candidates_per_step=candidates_per_step,
            costs=lambda cells: COLUMNS[settings.cost].values(setting.cells(cells)),
            space=space,
        ),
    }
    if name not in makers:
        raise InputError(f"search.algorithm: found {name!r}, expected one of {', '.join(makers)}")
    if settings.cost not in LIMITS:
        raise InputError(
            f"search.cost: found {settings.cost!r}, expected one of {', '.join(LIMITS)}"
        )
    limits = {limit: settings[f"max_{limit}"] for limit in LIMITS if settings[f"max_{limit}"]}
    for limit, most in limits.items():
        if not 0 < most < math.inf:
            raise InputError(f"search.max_{limit}: found {most}, expected a number above 0")
    if settings.replace and (name != "random" or limits):
        raise InputError("search.replace: found True, expected random search without limits")
    for key in ("candidates_per_step", "population", "tournament"):
        if settings[key] < 1:
            raise InputError(f"search.{key}: found {settings[key]}, expected at least 1")
    # Without a table, these are not known of the whole space.
    names = () if settings.latency_path else MEASURED
    measured = {limit: limits.pop(limit) for limit in names if limit in limits}
    space = _within_listed(limits, setting, settings.num_samples)
    space = _within_measured(measured, setting, space)
    return None if settings.replace else makers[name](space)


def _within_listed(limits: Mapping[str, float], setting: Setting, num_samples: int) -> SearchSpace:
    """The setting's space, restricted to cells that cost at most the limits."""
    space = setting.network.space
    if not limits:
        return space
    fits = functools.partial(_fits, limits, setting)
    if space.every is not None:
        every = setting.cells(space.every())
        for name, most in limits.items():
            _check_limit(name, most, np.nanmin(COLUMNS[name].values(every)))
        num_fitting = int(np.sum(fits(every.genotypes)))
        if num_samples > num_fitting:
            raise InputError(
                f"number of samples: found {num_samples}, "
                f"expected at most {num_fitting}, the cells within the limits"
            )
    return restrict(space, fits)


def _within_measured(
    limits: Mapping[str, float], setting: Setting, space: SearchSpace
) -> SearchSpace:
    """A space, restricted by costs that are measured, only for cells that a search proposes."""
    if not limits:
        return space
    # The genotype of zeros is the cell that computes least.
    smallest = setting.cells(np.zeros((1, space.num_edges), np.int32))
    for name, most in limits.items():
        _check_limit(name, most, COLUMNS[name].values(smallest)[0])
    return restrict(space, functools.partial(_fits, limits, setting), is_costly=True)


def _fits(limits: Mapping[str, float], setting: Setting, genotypes: np.ndarray) -> np.ndarray:
    """Which cells cost at most the limits; a cell of unknown cost does not."""
    cells = setting.cells(genotypes)
    return np.all([COLUMNS[name].values(cells) <= most for name, most in limits.items()], axis=0)


def _check_limit(name: str, most: float, least: float) -> None:
    if most < least:
        raise InputError(
            f"search.max_{name}: found {most:.9g}, "
            f"expected at least {least:.9g}, the smallest cell's"
        )


def _write_results(
    run: Run,
    config: ConfigDict,
    search: _Search,
    result: SearchResult,
    refined: Refined | None,
    logged: LoggedScorer,
    log: ScoreLog,
) -> str:
    """Writes scores, summary and report, and returns the table to print."""
    final = result
    if refined:
        final = result._replace(scores=refined.scores, best=best_index(refined.scores))
    objective, accuracies = search.objective, search.accuracies
    table = table_of(
        search.own.setting.cells(result.genotypes),
        final.scores,
        logged.by_name(result.genotypes),
        objective,
        search.own.setting.network,
    )
    if refined:
        refining.add_columns(table, result.scores, refined, objective)
    if accuracies is not None:
        table["accuracy"] = [accuracies.get(arch, np.nan) for arch in table["arch"]]
    summary = summarise(
        final, table, search.space, accuracies, num_networks=len(logged.rows), steps=log.steps
    )
    if refined:
        summary = with_refined(
            summary,
            num_refined=len(refined.indices),
            num_networks=refined.num_networks,
            steps=refined.steps,
        )
    best = best_cells(table)
    report = run_page(
        summary=summary,
        provenance=run.origin,
        best=best,
        ranks=_ranks(search, result, refined, logged, [cell["arch"] for cell in best]),
        scores=final.scores,
        costs={name: table[name].to_numpy(np.float64) for name in LIMITS if name in table},
        accuracies=None if accuracies is None else table["accuracy"].to_numpy(),
        benchmark_accuracies=None if accuracies is None else np.array(list(accuracies.values())),
        objective=objective.columns,
        graphs=() if final.best is None else search.space.graphs(final.genotypes[final.best]),
        **_classes(config, search, final),
    )
    run.write(SCORES_FILE, _csv(table))
    run.write(SUMMARY_FILE, to_json(summary))
    # A path in the report may be no valid UTF-8.
    run.write(REPORT_FILE, report.encode(errors="backslashreplace"))
    return result_table(summary, best)


def _classes(
    config: ConfigDict, search: _Search, result: SearchResult
) -> Mapping[str, np.ndarray | None]:
    """What each class adds to the score of the best cell, if the score is a sum over classes."""
    # Not if the best cells were scored again, at another setting.
    if result.best is None or search.objective.columns != ("epe",) or search.full:
        return {"class_scores": None, "class_sizes": None}
    sizes, setting = None, search.own.setting
    if not config.data.fresh_minibatch:
        sizes = np.bincount(setting.inputs[1], minlength=setting.dataset.num_classes)
    best = result.genotypes[result.best]
    return {"class_scores": search.own.scorer.class_scores(best), "class_sizes": sizes}


def _ranks(
    search: _Search,
    result: SearchResult,
    refined: Refined | None,
    logged: LoggedScorer,
    archs: Sequence[str],
) -> ColumnRanks | None:
    """How cells rank by each column of an objective of several columns; None of a single one.

    Ranks are among the cells that the score was combined over: the different cells of the search,
    or those that were scored again, at the full setting.
    """
    objective = search.objective
    if objective.combine is None:
        return None
    genotypes, setting = result.genotypes, search.own.setting
    if search.full and refined:
        genotypes, setting = genotypes[refined.indices], search.full.setting
    genotypes, first = np.unique(genotypes, axis=0, return_index=True)
    proxies = refined.proxies if refined else logged.by_name(result.genotypes)
    found = {name: values[first] for name, values in proxies.items()}
    ranks = column_ranks(objective.values(found, setting.cells(genotypes)))
    row_of = {search.space.format(cell): row for row, cell in enumerate(genotypes)}
    shown = np.full((len(archs), ranks.shape[1]), np.nan)
    for place, arch in enumerate(archs):
        if arch in row_of:
            shown[place] = ranks[row_of[arch]]
    return ColumnRanks(shown, int(np.sum(~np.isnan(ranks[:, 0]))))


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()


def main() -> None:
    """Runs the command."""
    run_command(search_and_report, many_hosts=True)
