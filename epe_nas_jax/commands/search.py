"""The search command: from a config to a finished work directory."""

import math
import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from epe_nas_jax.commands.cli import run_command
from epe_nas_jax.commands.config import (
    accuracies_of,
    cells_per_step_of,
    dataset_of,
    minibatch_of,
    network_of,
    objective_from,
    plain_config,
    space_of,
)
from epe_nas_jax.commands.summary import best_cells, summarise
from epe_nas_jax.data.datasets import Dataset
from epe_nas_jax.errors import InputError
from epe_nas_jax.reports.search_page import run_page
from epe_nas_jax.reports.text import result_table
from epe_nas_jax.runs import hosts
from epe_nas_jax.runs.run import Run, open_run
from epe_nas_jax.runs.score_log import LoggedScorer, ScoreLog
from epe_nas_jax.runs.workdir import REPORT_FILE, SCORES_FILE, SUMMARY_FILE, to_json
from epe_nas_jax.scoring.columns import COLUMNS, LIMITS, Objective, RunCells, proxies_to_score
from epe_nas_jax.scoring.config import ScoringConfig
from epe_nas_jax.scoring.progress import progress_bar
from epe_nas_jax.scoring.score_table import table_of
from epe_nas_jax.scoring.scorer import CellScorer, compile_scorer
from epe_nas_jax.search import algorithms
from epe_nas_jax.search.algorithms import Algorithm, SearchResult
from epe_nas_jax.search.restrict import restrict
from epe_nas_jax.seeds import random_key
from epe_nas_jax.spaces.base import CellNetwork, SearchSpace, check_num_samples

_FINISHED = "This run had scored all its cells before: nothing was scored again."


class _Search(NamedTuple):
    """All that a search is made of, checked.

    Attributes:
      algorithm: over the cells within the limits; None to draw with replacement.
      inputs: images and labels to score on.
      compile_seconds: what compiling the scorer took.
    """

    space: SearchSpace
    objective: Objective
    algorithm: Algorithm | None
    dataset: Dataset
    inputs: tuple[np.ndarray | jax.Array, np.ndarray | jax.Array]
    accuracies: dict[str, float] | None
    scorer: CellScorer
    compile_seconds: float


def search_and_report(config: ConfigDict, workdir: str | os.PathLike[str]) -> str:
    """Searches as the config says and leaves its results in the work directory.

    These are `config.json`, `scores.csv`, `summary.json` and `report.html`.

    Everything that can be wrong is checked before the first cell is scored. Every finished step is
    on disk before the next begins, so that a run that was killed goes on where it stopped; the
    results appear when the search is over, each file whole.

    Processes that met by `hosts.join` all call this: each runs the same search and scores its part
    of every step. Process 0 writes the results.

    Args:
      config: as in `configs/base.py`.
      workdir: the work directory; it is made if need be, and may hold a run of the very same
        config, which goes on, or whose results are given again if it is finished.

    Returns:
      The result as a table to print; nothing, if this is another process than number 0.

    Raises:
      InputError: something in the config, the data or the work directory cannot be used.
      OSError: the work directory cannot be written.
      StopRequested: SIGTERM or SIGINT came; what is scored is on disk.
    """
    with open_run(plain_config(config), workdir) as run:
        search_key, batch_key = jax.random.split(random_key(config.seed))
        search = _prepare(config, batch_key)
        run.begin(search.inputs)
        num_proxies = len(search.scorer.config.proxies)
        with ScoreLog(run.directory, num_proxies, hosts.index()) as log:
            logged = LoggedScorer(search.scorer, log, run.check_stop, search.compile_seconds)
            result = _run(config, search, logged, search_key)
        if not run.is_first:
            return ""
        text = _write_results(run, config, search, result, logged, log)
    return text if logged.num_scored else f"{_FINISHED}\n\n{text}"


def _prepare(config: ConfigDict, batch_key: jax.Array) -> _Search:
    """Reads and checks everything, and compiles the scorer."""
    space = space_of(config)
    check_num_samples(space, config.search.num_samples, replace=config.search.replace)
    accuracies = accuracies_of(config, space)
    dataset = dataset_of(config)
    images, labels = minibatch_of(config, dataset, batch_key)
    network = network_of(config, dataset.num_classes, jnp.float32)
    algorithm = _algorithm_of(config, network, side=images.shape[1])
    objective = objective_from(config)
    fresh = config.data.fresh_minibatch
    scoring = ScoringConfig(
        init=config.score.init,
        proxies=proxies_to_score(objective, tuple(config.score.proxies)),
        precision=config.score.precision,
        num_inits=config.score.num_inits,
        fresh_batch=config.data.batch_size if fresh else None,
        augment=config.data.augment and fresh,
        class_balanced=config.data.class_balanced and fresh,
    )
    start = time.perf_counter()
    scorer = compile_scorer(
        images,
        labels,
        seed=config.seed,
        network=network,
        config=scoring,
        cells_per_step=cells_per_step_of(config),
        prune_dead=config.score.prune_dead,
        black=dataset.black(),
        # Random search hands over all cells in one, and the scorer shows how far it is.
        progress=config.search.algorithm == "random" and hosts.index() == 0,
    )
    seconds = time.perf_counter() - start
    return _Search(
        space, objective, algorithm, dataset, (images, labels), accuracies, scorer, seconds
    )


def _run(config: ConfigDict, search: _Search, logged: LoggedScorer, key: jax.Array) -> SearchResult:
    """Searches, and shows how far it is where the scorer does not."""
    scorer, objective, num_samples = search.scorer, search.objective, config.search.num_samples
    is_hidden = scorer.progress or hosts.index() != 0
    with progress_bar(num_samples, unit="cell", disable=is_hidden) as bar:

        def score_fn(genotypes: np.ndarray) -> np.ndarray:
            values = objective.values(_proxies(logged, genotypes), _cells_of(search, genotypes))
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


def _proxies(logged: LoggedScorer, genotypes: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(logged.names, logged.proxies(genotypes).T, strict=True))


def _cells_of(search: _Search, genotypes: np.ndarray) -> RunCells:
    return RunCells(genotypes, search.scorer.network, search.inputs[0].shape[1])


def _algorithm_of(config: ConfigDict, network: CellNetwork, *, side: int) -> Algorithm | None:
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
    }
    if name not in makers:
        raise InputError(f"search.algorithm: found {name!r}, expected one of {', '.join(makers)}")
    limits = {limit: settings[f"max_{limit}"] for limit in LIMITS if settings[f"max_{limit}"]}
    for limit, most in limits.items():
        if not 0 < most < math.inf:
            raise InputError(f"search.max_{limit}: found {most}, expected a number above 0")
    if settings.replace and (name != "random" or limits):
        raise InputError("search.replace: found True, expected random search without limits")
    space = network.space
    if limits:
        space = _within(limits, network, settings.num_samples, side=side)
    for key in ("candidates_per_step", "population", "tournament"):
        if settings[key] < 1:
            raise InputError(f"search.{key}: found {settings[key]}, expected at least 1")
    return None if settings.replace else makers[name](space)


def _within(
    limits: dict[str, float], network: CellNetwork, num_samples: int, *, side: int
) -> SearchSpace:
    """The network's space, restricted to cells that cost at most the limits."""
    space = network.space

    def fits(genotypes: np.ndarray) -> np.ndarray:
        cells = RunCells(genotypes, network, side)
        within = [COLUMNS[name].values(cells) <= most for name, most in limits.items()]
        return np.all(within, axis=0)

    if space.every is not None:
        every = RunCells(space.every(), network, side)
        for name, most in limits.items():
            least = COLUMNS[name].values(every).min()
            if most < least:
                raise InputError(
                    f"search.max_{name}: found {most:.9g}, "
                    f"expected at least {least:.9g}, the smallest cell's"
                )
        num_fitting = int(np.sum(fits(every.genotypes)))
        if num_samples > num_fitting:
            raise InputError(
                f"number of samples: found {num_samples}, "
                f"expected at most {num_fitting}, the cells within the limits"
            )
    return restrict(space, fits)


def _write_results(
    run: Run,
    config: ConfigDict,
    search: _Search,
    result: SearchResult,
    logged: LoggedScorer,
    log: ScoreLog,
) -> str:
    """Writes scores, summary and report, and returns the table to print."""
    cells = _cells_of(search, result.genotypes)
    found = _proxies(logged, result.genotypes)
    table = table_of(cells, result.scores, found, search.objective, search.scorer.network)
    accuracies = search.accuracies
    if accuracies is not None:
        table["accuracy"] = [accuracies.get(arch, np.nan) for arch in table["arch"]]
    summary = summarise(
        result, table, search.space, accuracies, num_networks=len(logged.rows), steps=log.steps
    )
    best = best_cells(table)
    report = run_page(
        summary=summary,
        provenance=run.origin,
        best=best,
        scores=result.scores,
        accuracies=None if accuracies is None else table["accuracy"].to_numpy(),
        benchmark_accuracies=None if accuracies is None else np.array(list(accuracies.values())),
        objective=search.objective.columns,
        graphs=() if result.best is None else search.space.graphs(result.genotypes[result.best]),
        **_classes(config, search, result),
    )
    run.write(SCORES_FILE, _csv(table))
    run.write(SUMMARY_FILE, to_json(summary))
    # A path that is no UTF-8 is in it, too.
    run.write(REPORT_FILE, report.encode(errors="backslashreplace"))
    return result_table(summary, best)


def _classes(
    config: ConfigDict, search: _Search, result: SearchResult
) -> dict[str, np.ndarray | None]:
    """What each class adds to the score of the best cell, where the score is a sum over classes."""
    if result.best is None or search.objective.columns != ("epe",):
        return {"class_scores": None, "class_sizes": None}
    sizes = None
    if not config.data.fresh_minibatch:
        sizes = np.bincount(search.inputs[1], minlength=search.dataset.num_classes)
    best = result.genotypes[result.best]
    return {"class_scores": search.scorer.class_scores(best), "class_sizes": sizes}


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()


def main() -> None:
    """Runs the command."""
    run_command(search_and_report, many_hosts=True)
