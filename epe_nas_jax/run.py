"""From a config to a finished work directory."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from epe_nas_jax import benchmark, counts, hosts, ranking, search
from epe_nas_jax.batching import CellScorer, Protocol
from epe_nas_jax.data import Dataset, check_batch_size, draw_fixed_minibatch, load_dataset
from epe_nas_jax.errors import InputError
from epe_nas_jax.genotype import (
    canonical_form,
    check_num_samples,
    every_genotype,
    format_arch,
)
from epe_nas_jax.network import Network
from epe_nas_jax.page import run_page
from epe_nas_jax.progress import progress_bar
from epe_nas_jax.proxies import check_proxies
from epe_nas_jax.report import result_table
from epe_nas_jax.score_log import LoggedScorer, ScoreLog, Step
from epe_nas_jax.search import NAS_BENCH_201, Combine, SearchResult, random_search
from epe_nas_jax.stopping import stop_requests
from epe_nas_jax.storage import location_of, write
from epe_nas_jax.workdir import (
    CONFIG_FILE,
    REPORT_FILE,
    SCORES_FILE,
    SUMMARY_FILE,
    check_same_run,
    check_workdir,
    device_name,
    difference_in_scores,
    locked,
    provenance,
    to_json,
)

_ALGORITHMS = ("random", "evolution", "local")
_NUM_BEST = 5
_FINISHED = "This run had scored all its cells before: nothing was scored again."
_PROXY_OF_VARIANT = {"released": "epe", "two_branch": "epe_two_branch"}
_COUNTS = ("params", "mflops", "live_params", "live_mflops")
_COMBINE: dict[str, Combine] = {
    "log_rank_sum": ranking.log_rank_sum,
    "rank_sum": ranking.rank_sum,
}


def search_and_report(config: ConfigDict, workdir: str | os.PathLike[str]) -> str:
    """Searches as the config says and leaves its results in the work directory.

    These are `config.json`, `scores.csv`, `summary.json` and `report.html`.

    Everything that can be wrong is checked before the first cell is scored. Every finished step is
    on disk before the next begins, so that a run that was killed goes on where it stopped; the
    results appear when the search is over, each file whole.

    Processes that met by `hosts.join` all call this: each runs the same search and scores its share
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
    directory = location_of(workdir)
    plain_config = json.loads(config.to_json())
    check_workdir(directory, plain_config)
    check_num_samples(config.search.num_samples, replace=config.search.replace)
    accuracies = None
    if config.benchmark.path:
        accuracies = benchmark.read_accuracies(config.benchmark.path, config.benchmark.column)
    dataset = dataset_of(config)
    search_key, batch_key = jax.random.split(jax.random.key(config.seed))
    images, labels = _images_to_score_on(config, dataset, batch_key)
    network = network_of(config, dataset.num_classes, jnp.float32)
    algorithm = _algorithm_of(config, network, side=images.shape[1])
    proxies, objective, combine = _objective_of(config)
    # Random search hands over all cells at once, and the scorer shows how far it is.
    at_once = config.search.algorithm == "random"
    is_first = hosts.index() == 0
    scorer = CellScorer(
        images,
        labels,
        seed=config.seed,
        network=network,
        protocol=Protocol(
            init=config.score.init,
            proxies=proxies,
            precision=config.score.precision,
            num_inits=config.score.num_inits,
            fresh_batch=config.data.batch_size if config.data.fresh_minibatch else None,
            augment=config.data.augment and config.data.fresh_minibatch,
            class_balanced=config.data.class_balanced and config.data.fresh_minibatch,
        ),
        cells_per_step=cells_per_step_of(config),
        live_form=config.score.live_form,
        black=dataset.black(),
        progress=at_once and is_first,
    )

    origin = provenance(plain_config, images, labels)
    with locked(directory, hosts.index()), stop_requests() as check_stop:
        check_same_run(directory, origin)
        _check_same_as_first(origin)
        with ScoreLog(directory, scorer.num_proxies, hosts.index()) as log:
            if is_first:
                write(directory / CONFIG_FILE, to_json(origin))
            logged = LoggedScorer(scorer, log, check_stop)
            num_samples = config.search.num_samples
            is_hidden = at_once or not is_first
            with progress_bar(num_samples, unit="cell", disable=is_hidden) as bar:

                def score_fn(genotypes: np.ndarray) -> np.ndarray:
                    columns = dict(zip(proxies, logged.proxies(genotypes).T, strict=True))
                    columns |= _counts(genotypes, network, side=images.shape[1])
                    values = np.stack([columns[name] for name in objective], axis=1)
                    bar.update(len(genotypes))
                    return values if combine else values[:, 0]

                if config.search.replace:
                    result = random_search(
                        search_key,
                        score_fn,
                        num_samples=num_samples,
                        replace=True,
                        combine=combine,
                    )
                else:
                    result = search.run(
                        algorithm, search_key, score_fn, num_samples, combine=combine
                    )
        if not is_first:
            return ""
        archs = [format_arch(genotype) for genotype in result.genotypes]
        summary = _summarise(result, archs, accuracies, len(logged.rows), log.steps)
        counted = _counts(result.genotypes, network, side=images.shape[1])
        summary["pareto_front"] = _pareto_fronts(result, archs, counted)
        table = pd.DataFrame({"arch": archs, "score": result.scores})
        for name, values in zip(proxies, logged.proxies(result.genotypes).T, strict=True):
            # A proxy that is the score is there under that name.
            if objective != (name,):
                table[name] = values
        for name, count in counted.items():
            table[name] = count
        if accuracies is not None:
            table["accuracy"] = [accuracies.get(arch, np.nan) for arch in archs]
        best = _best_cells(result, archs, accuracies)
        class_scores = None
        if result.best is not None:
            class_scores = scorer.class_scores(result.genotypes[result.best])
        report = run_page(
            summary=summary,
            provenance=origin,
            best=best,
            scores=result.scores,
            accuracies=None if accuracies is None else table["accuracy"].to_numpy(),
            benchmark_accuracies=None
            if accuracies is None
            else np.array(list(accuracies.values())),
            class_scores=class_scores,
            class_sizes=None
            if config.data.fresh_minibatch
            else np.bincount(labels, minlength=dataset.num_classes),
        )
        scores_csv = table.to_csv(index=False, float_format="%.9g", lineterminator="\n")
        write(directory / SCORES_FILE, scores_csv.encode())
        write(directory / SUMMARY_FILE, to_json(summary))
        write(directory / REPORT_FILE, report.encode())
    text = result_table(summary, best)
    return text if logged.num_scored else f"{_FINISHED}\n\n{text}"


def _check_same_as_first(origin: Mapping[str, Any]) -> None:
    """Checks that the processes of a run have the same config, data, code and kind of device.

    Raises:
      InputError: this one differs from process 0.
    """
    first = json.loads(hosts.exchange(to_json(origin))[0])
    difference = difference_in_scores(first, origin)
    if difference:
        raise InputError(f"this process is unlike process 0, {difference}")


def dataset_of(config: ConfigDict, split: str = "train") -> Dataset:
    """The data set that a config names; raises as `load_dataset`."""
    return load_dataset(
        config.data.name,
        config.data.path,
        split=split,
        images_key=config.data.images_key,
        labels_key=config.data.labels_key,
        side=config.data.side,
        download=config.data.download,
    )


def network_of(config: ConfigDict, num_classes: int, dtype: jnp.dtype) -> Network:
    """The network that a config describes.

    Raises:
      InputError: a size below 1.
    """
    for name, value in config.network.items():
        if value < 1:
            raise InputError(f"network.{name}: found {value}, expected at least 1")
    return Network(
        num_classes=num_classes,
        channels=config.network.channels,
        cells_per_stage=config.network.cells_per_stage,
        param_dtype=dtype,
    )


def cells_per_step_of(config: ConfigDict) -> int | str:
    """A number, or `"auto"`; on the command line the number arrives as text."""
    value: int | str = config.cells_per_step
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _objective_of(
    config: ConfigDict,
) -> tuple[tuple[str, ...], tuple[str, ...], Combine | None]:
    """The proxies to compute, the columns that are the score, and how these become one number.

    Raises:
      InputError: an unknown variant, column or way to combine them, or columns without a proxy.
    """
    variant, combine = config.score.variant, config.score.combine
    if variant not in _PROXY_OF_VARIANT:
        raise InputError(
            f"score variant: found {variant!r}, expected one of {', '.join(_PROXY_OF_VARIANT)}"
        )
    if combine not in _COMBINE:
        raise InputError(f"score.combine: found {combine!r}, expected one of {', '.join(_COMBINE)}")
    objective = tuple(config.score.objective) or (_PROXY_OF_VARIANT[variant],)
    scored = tuple(name for name in objective if name not in _COUNTS)
    if not scored:
        raise InputError(
            f"score.objective: found {', '.join(objective)}, expected a proxy among them"
        )
    further = tuple(name for name in config.score.proxies if name not in scored)
    proxies = (*scored, *further)
    check_proxies(proxies)
    return proxies, objective, _COMBINE[combine] if len(objective) > 1 else None


def _counts(genotypes: np.ndarray, network: Network, *, side: int) -> dict[str, np.ndarray]:
    """The columns `_COUNTS`: of cells `[A, E]` as built, and of their live operations only."""
    columns = {}
    for prefix, live in (("", False), ("live_", True)):
        columns[f"{prefix}params"] = counts.parameters(
            genotypes,
            num_classes=network.num_classes,
            channels=network.channels,
            cells_per_stage=network.cells_per_stage,
            live=live,
        )
        columns[f"{prefix}mflops"] = (
            counts.flops(
                genotypes,
                num_classes=network.num_classes,
                side=side,
                channels=network.channels,
                cells_per_stage=network.cells_per_stage,
                live=live,
            )
            / 1e6
        )
    return columns


def _algorithm_of(config: ConfigDict, network: Network, *, side: int) -> search.Algorithm:
    """The search algorithm that a config names, over the cells within its limits.

    Raises:
      InputError: an unknown algorithm, a setting that does not go with it, a number out of range,
        or too few cells within the limits.
    """
    settings = config.search
    name = settings.algorithm
    if name not in _ALGORITHMS:
        raise InputError(
            f"search.algorithm: found {name!r}, expected one of {', '.join(_ALGORITHMS)}"
        )
    limits = {
        limit: getattr(settings, f"max_{limit}")
        for limit in ("params", "mflops")
        if getattr(settings, f"max_{limit}")
    }
    if settings.replace and (name != "random" or limits):
        raise InputError("search.replace: found True, expected random search without limits")
    space = NAS_BENCH_201
    if limits:
        every = _counts(every_genotype(), network, side=side)
        for limit, most in limits.items():
            if most < every[limit].min():
                raise InputError(
                    f"search.max_{limit}: found {most:.9g}, "
                    f"expected at least {every[limit].min():.9g}, the smallest cell's"
                )

        def fits(genotypes: np.ndarray) -> np.ndarray:
            found = _counts(genotypes, network, side=side)
            return np.all([found[limit] <= most for limit, most in limits.items()], axis=0)

        num_fitting = int(np.sum(fits(every_genotype())))
        if settings.num_samples > num_fitting:
            raise InputError(
                f"number of samples: found {settings.num_samples}, "
                f"expected at most {num_fitting}, the cells within the limits"
            )
        space = search.restrict(NAS_BENCH_201, fits)
    for key in ("candidates_per_step", "population", "tournament"):
        if settings[key] < 1:
            raise InputError(f"search.{key}: found {settings[key]}, expected at least 1")
    # No more cells are drawn than may be scored, nor than there are.
    candidates_per_step = min(settings.candidates_per_step, settings.num_samples)
    if name == "evolution":
        return search.evolution(
            population=min(settings.population, settings.num_samples),
            tournament=settings.tournament,
            candidates_per_step=candidates_per_step,
            space=space,
        )
    if name == "local":
        return search.local(candidates_per_step=candidates_per_step, space=space)
    return search.random(settings.num_samples, space=space)


def _pareto_fronts(
    result: SearchResult, archs: list[str], counted: dict[str, np.ndarray]
) -> dict[str, list[dict[str, Any]]]:
    """The cells that none beats in score and parameters, and in score and FLOPs."""
    return {
        name: [
            {
                "arch": archs[index],
                "score": float(result.scores[index]),
                name: counted[name][index].item(),
            }
            for index in ranking.pareto_front(result.scores, counted[name])
        ]
        for name in ("params", "mflops")
    }


def _images_to_score_on(
    config: ConfigDict, dataset: Dataset, key: jax.Array
) -> tuple[np.ndarray | jax.Array, np.ndarray | jax.Array]:
    """The mini-batch of all cells or, for fresh ones, the whole data set."""
    size = config.data.batch_size
    if config.data.fresh_minibatch:
        check_batch_size(size, dataset)
        return dataset.normalised(), dataset.labels
    return draw_fixed_minibatch(
        key,
        dataset,
        size,
        augment=config.data.augment,
        class_balanced=config.data.class_balanced,
    )


def _summarise(
    result: SearchResult,
    archs: list[str],
    accuracies: dict[str, float] | None,
    num_networks: int,
    steps: Mapping[str, Sequence[Step]],
) -> dict[str, Any]:
    num_scored = len(archs)
    processes = [_figures_of(name, of_process) for name, of_process in steps.items() if of_process]
    # They work at the same time.
    seconds = max((figures["seconds"] for figures in processes), default=0.0)
    device = device_name()
    summary: dict[str, Any] = {
        "best_arch": None if result.best is None else archs[result.best],
        "best_score": None if result.best is None else float(result.scores[result.best]),
        "num_scored": num_scored,
        "num_steps": result.num_steps,
        "num_networks": num_networks,
        "num_isomorphic_classes": len(set(map(canonical_form, result.genotypes))),
        "num_degenerate": int(np.isnan(result.scores).sum()),
        "seconds": seconds,
        "compile_seconds": max((figures["compile_seconds"] for figures in processes), default=0.0),
        "ms_per_cell": 1000 * seconds / num_scored,
        "device": device if hosts.count() == 1 else f"{hosts.count()} processes, each {device}",
        "processes": processes,
    }
    if accuracies is not None:
        known = np.array([accuracies.get(arch, np.nan) for arch in archs])
        both = ~(np.isnan(known) | np.isnan(result.scores))
        correlations = {
            "spearman": ranking.spearman(result.scores, known),
            "kendall": ranking.kendall(result.scores, known),
        }
        best_arch = summary["best_arch"]
        summary["best_accuracy"] = None if best_arch is None else accuracies.get(best_arch)
        summary["sample_best_accuracy"] = None if np.isnan(known).all() else float(np.nanmax(known))
        summary["rank_correlation"] = {
            "num_cells": int(both.sum()),
            **{name: value and value._asdict() for name, value in correlations.items()},
        }
    return summary


def _figures_of(log: str, steps: Sequence[Step]) -> dict[str, Any]:
    """What a process did, over all parts of the run."""
    num_networks = sum(len(step.codes) for step in steps)
    seconds = sum(step.seconds for step in steps)
    return {
        "log": log,
        "num_networks": num_networks,
        "seconds": seconds,
        "compile_seconds": sum(step.compile_seconds for step in steps),
        "networks_per_second": num_networks / seconds,
    }


def _best_cells(
    result: SearchResult, archs: list[str], accuracies: dict[str, float] | None
) -> list[dict[str, Any]]:
    """The best different cells, best first."""
    best: dict[str, dict[str, Any]] = {}
    for index in ranking.top_k(result.scores, len(archs)):
        if len(best) == _NUM_BEST:
            break
        cell = {"arch": archs[index], "score": float(result.scores[index])}
        if accuracies is not None:
            cell["accuracy"] = accuracies.get(archs[index])
        best.setdefault(archs[index], cell)
    return list(best.values())
