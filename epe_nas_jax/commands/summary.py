"""The summary of a search, in types of JSON: the content of `summary.json`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from epe_nas_jax.runs import hosts
from epe_nas_jax.runs.score_log import Step
from epe_nas_jax.runs.workdir import device_name
from epe_nas_jax.scoring.columns import LIMITS
from epe_nas_jax.search import ranking
from epe_nas_jax.search.algorithms import SearchResult
from epe_nas_jax.spaces.base import SearchSpace

_NUM_BEST = 5


def summarise(
    result: SearchResult,
    table: pd.DataFrame,
    space: SearchSpace,
    accuracies: Mapping[str, float] | None,
    *,
    num_networks: int,
    steps: Mapping[str, Sequence[Step]],
) -> dict[str, Any]:
    """Makes the summary of a search.

    Args:
      result: the result of the search.
      table: its cells, with `arch`, `score`, counts and, with a benchmark, `accuracy`.
      space: the search space.
      accuracies: all accuracies of the benchmark, by the text of a cell; None without one.
      num_networks: how many different networks were scored, in this run or before.
      steps: the finished steps of each process, by the name of its log.
    """
    num_scored = len(table)
    times = _times_of(steps)
    device = device_name()
    num_isomorphic = None
    if space.canonical_form:
        num_isomorphic = len(set(map(space.canonical_form, result.genotypes)))
    summary: dict[str, Any] = {
        "best_arch": None if result.best is None else table["arch"][result.best],
        "best_score": None if result.best is None else float(result.scores[result.best]),
        "num_scored": num_scored,
        "num_steps": result.num_steps,
        "num_networks": num_networks,
        "num_isomorphic_classes": num_isomorphic,
        "num_degenerate": int(np.isnan(result.scores).sum()),
        "seconds": times["seconds"],
        "compile_seconds": times["compile_seconds"],
        "ms_per_cell": 1000 * times["seconds"] / num_scored,
        "device": device if hosts.count() == 1 else f"{hosts.count()} processes, each {device}",
        "processes": times["processes"],
    }
    if accuracies is not None:
        summary |= _beside_accuracies(result, table["accuracy"].to_numpy())
    fronts = {name: _pareto_front(table, name) for name in LIMITS if name in table}
    return summary | {"pareto_front": fronts}


def with_refined(
    summary: Mapping[str, Any],
    *,
    num_refined: int,
    num_networks: int,
    steps: Mapping[str, Sequence[Step]],
) -> dict[str, Any]:
    """The summary of a search whose best cells were scored again.

    Its times are those of both stages together, and each stage has its own under `stages`.

    Args:
      summary: as from `summarise`, with the steps of the search alone.
      num_refined: how many cells were scored again.
      num_networks: how many different networks they are.
      steps: as for `summarise`, the steps in which they were scored again.
    """
    again, times = _times_of(steps), ("seconds", "compile_seconds")
    total = {name: summary[name] + again[name] for name in times}
    counts = {"num_cells": summary["num_scored"], "num_networks": summary["num_networks"]}
    return {
        **summary,
        **total,
        "ms_per_cell": 1000 * total["seconds"] / summary["num_scored"],
        "processes": summary["processes"] + again["processes"],
        "num_refined": num_refined,
        "stages": {
            "search": counts | {name: summary[name] for name in times},
            "refine": {
                "num_cells": num_refined,
                "num_networks": num_networks,
                **{name: again[name] for name in times},
            },
        },
    }


def best_cells(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The best different cells, best first: `arch`, `score` and, with a benchmark, `accuracy`."""
    best: dict[str, dict[str, Any]] = {}
    for index in ranking.top_k(table["score"].to_numpy(), len(table)):
        if len(best) == _NUM_BEST:
            break
        arch = table["arch"][index]
        cell = {"arch": arch, "score": float(table["score"][index])}
        if "accuracy" in table:
            cell["accuracy"] = _known(table["accuracy"][index])
        best.setdefault(arch, cell)
    return list(best.values())


def _beside_accuracies(result: SearchResult, accuracies: np.ndarray) -> dict[str, Any]:
    """How well the scores rank the cells and choose one, judged by their accuracies `[A]`."""
    scores = result.scores
    correlations = {
        "spearman": ranking.spearman(scores, accuracies),
        "kendall": ranking.kendall(scores, accuracies),
    }
    best = None if np.isnan(accuracies).all() else float(np.nanmax(accuracies))
    return {
        "best_accuracy": None if result.best is None else _known(accuracies[result.best]),
        "sample_best_accuracy": best,
        "rank_correlation": {
            "num_cells": int(np.sum(~(np.isnan(accuracies) | np.isnan(scores)))),
            **{name: value and value._asdict() for name, value in correlations.items()},
        },
    }


def _known(accuracy: float) -> float | None:
    return None if np.isnan(accuracy) else float(accuracy)


def _times_of(steps: Mapping[str, Sequence[Step]]) -> dict[str, Any]:
    """How much each process did, and how long all of them took."""
    processes = [_figures_of(name, of_process) for name, of_process in steps.items() if of_process]
    # Processes work at the same time.
    longest = {
        name: max((figures[name] for figures in processes), default=0.0)
        for name in ("seconds", "compile_seconds")
    }
    return {"processes": processes, **longest}


def _figures_of(log: str, steps: Sequence[Step]) -> dict[str, Any]:
    """How many networks a process scored, and its times, over all parts of the run."""
    num_networks = sum(len(step.genotypes) for step in steps)
    seconds = sum(step.seconds for step in steps)
    return {
        "log": log,
        "num_networks": num_networks,
        "seconds": seconds,
        "compile_seconds": sum(step.compile_seconds for step in steps),
        "networks_per_second": num_networks / seconds,
    }


def _pareto_front(table: pd.DataFrame, cost: str) -> list[dict[str, Any]]:
    """The cells that no other beats in both score and a cost, cheapest first."""
    front = ranking.pareto_front(table["score"].to_numpy(), table[cost].to_numpy())
    return [
        {
            "arch": table["arch"][index],
            "score": float(table["score"][index]),
            cost: table[cost][index].item(),
        }
        for index in front
    ]
