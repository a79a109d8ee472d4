"""What a search found, as numbers: the content of `summary.json`."""

import json

import numpy as np
import pandas as pd
import pytest

from epe_nas_jax.commands.summary import best_cells, summarise, with_refined
from epe_nas_jax.runs import hosts
from epe_nas_jax.runs.score_log import Step
from epe_nas_jax.search.algorithms import SearchResult
from epe_nas_jax.spaces.table import SPACES

SPACE = SPACES["nasbench201"].space
# In the first two a skip stands at another place of one formula; the last one has no path.
CELLS = np.array(
    [(1, 0, 0, 3, 0, 0), (1, 0, 0, 0, 3, 0), (3, 3, 3, 3, 3, 3), (0, 0, 1, 0, 0, 2)], np.int32
)
SCORES = np.array([5.0, 7.0, 6.0, np.nan])


def result_of(cells=CELLS, scores=SCORES, best=1):
    return SearchResult(cells, scores, best, num_steps=2)


def table_of(cells=CELLS, scores=SCORES, **columns):
    archs = [SPACE.format(cell) for cell in cells]
    counts = {"params": np.arange(len(cells)) + 10, "mflops": np.linspace(2, 1, len(cells))}
    return pd.DataFrame({"arch": archs, "score": scores, **counts, **columns})


def step(num_networks, seconds, compile_seconds=0.0):
    genotypes = np.zeros((num_networks, 6), np.int32)
    return Step(genotypes, np.zeros((num_networks, 1)), seconds, compile_seconds, 0)


STEPS = {"steps-0.jsonl": [step(2, 0.5, 3.0), step(2, 1.5)], "steps-1.jsonl": [step(1, 1.0, 4.0)]}


def summary_of(result=None, table=None, space=SPACE, accuracies=None, steps=STEPS):
    result = result or result_of()
    table = table_of() if table is None else table
    summary = summarise(result, table, space, accuracies, num_networks=3, steps=steps)
    json.dumps(summary, allow_nan=False)
    return summary


def test_a_summary_counts_cells_and_names_the_best():
    summary = summary_of()
    assert summary["best_arch"] == SPACE.format(CELLS[1])
    assert summary["best_score"] == 7
    assert (summary["num_scored"], summary["num_degenerate"]) == (4, 1)
    assert (summary["num_steps"], summary["num_networks"]) == (2, 3)
    assert summary["num_isomorphic_classes"] == 3
    assert "best_accuracy" not in summary


def test_isomorphic_cells_are_not_counted_where_a_space_does_not_know_them():
    assert summary_of(space=SPACES["darts"].space)["num_isomorphic_classes"] is None


def test_processes_work_at_the_same_time_and_one_without_steps_took_no_part():
    summary = summary_of(steps={**STEPS, "steps-2.jsonl": []})
    assert [figures["log"] for figures in summary["processes"]] == list(STEPS)
    assert [figures["num_networks"] for figures in summary["processes"]] == [4, 1]
    assert [figures["networks_per_second"] for figures in summary["processes"]] == [2, 1]
    assert (summary["seconds"], summary["compile_seconds"]) == (2.0, 4.0)
    assert summary["ms_per_cell"] == pytest.approx(500)
    assert summary_of(steps={"steps-0.jsonl": []})["seconds"] == 0


def test_the_times_of_a_search_whose_best_cells_were_scored_again_are_those_of_both_stages():
    alone = summary_of()
    again = {"refine-0.jsonl": [step(1, 6.0, 9.0)], "refine-1.jsonl": [step(1, 8.0, 7.0)]}
    summary = with_refined(alone, num_refined=3, num_networks=2, steps=again)
    json.dumps(summary, allow_nan=False)
    assert (summary["seconds"], summary["compile_seconds"]) == (2.0 + 8.0, 4.0 + 9.0)
    assert summary["ms_per_cell"] == pytest.approx(2500)
    assert [figures["log"] for figures in summary["processes"]] == [*STEPS, *again]
    assert summary["num_refined"] == 3
    assert summary["stages"] == {
        "search": {"num_cells": 4, "num_networks": 3, "seconds": 2.0, "compile_seconds": 4.0},
        "refine": {"num_cells": 3, "num_networks": 2, "seconds": 8.0, "compile_seconds": 9.0},
    }
    assert summary["num_networks"] == alone["num_networks"]
    finished = with_refined(alone, num_refined=0, num_networks=0, steps={"refine-0.jsonl": []})
    assert finished["seconds"] == alone["seconds"]


def test_the_device_says_how_many_processes_shared_the_search(monkeypatch):
    alone = summary_of()["device"]
    monkeypatch.setattr(hosts, "count", lambda: 2)
    assert summary_of()["device"] == f"2 processes, each {alone}"


def test_beside_accuracies_a_summary_says_how_well_scores_choose_and_rank():
    accuracies = np.array([80.0, 90.0, np.nan, 95.0])
    summary = summary_of(table=table_of(accuracy=accuracies), accuracies={"a": 99.0})
    assert summary["best_accuracy"] == 90
    assert summary["sample_best_accuracy"] == 95
    # The cells that have both a score and an accuracy.
    assert summary["rank_correlation"]["num_cells"] == 2
    unknown = np.full(4, np.nan)
    summary = summary_of(table=table_of(accuracy=unknown), accuracies={"a": 99.0})
    assert summary["best_accuracy"] is summary["sample_best_accuracy"] is None
    assert summary["rank_correlation"] == {"num_cells": 0, "spearman": None, "kendall": None}


def test_a_search_in_which_no_cell_has_a_score_has_no_best():
    nothing = np.full(4, np.nan)
    table = table_of(scores=nothing, accuracy=np.array([1.0, 2, 3, 4]))
    summary = summary_of(result_of(scores=nothing, best=None), table, accuracies={})
    assert summary["best_arch"] is summary["best_score"] is summary["best_accuracy"] is None
    assert summary["num_degenerate"] == 4
    assert summary["pareto_front"] == {"params": [], "mflops": []}
    assert best_cells(table) == []


def test_the_pareto_front_has_the_cells_that_none_beats_cheapest_first():
    front = summary_of()["pareto_front"]
    archs = [SPACE.format(cell) for cell in CELLS]
    assert front["params"] == [
        {"arch": archs[0], "score": 5.0, "params": 10},
        {"arch": archs[1], "score": 7.0, "params": 11},
    ]
    assert [cell["arch"] for cell in front["mflops"]] == [archs[2], archs[1]]


def test_there_is_a_front_of_latency_where_it_is_a_column_without_cells_whose_is_unknown():
    table = table_of(latency_ms=np.array([2.0, np.nan, 3.0, 1.0]))
    front = summary_of(table=table)["pareto_front"]
    assert list(front) == ["params", "mflops", "latency_ms"]
    archs = [SPACE.format(cell) for cell in CELLS]
    assert front["latency_ms"] == [
        {"arch": archs[0], "score": 5.0, "latency_ms": 2.0},
        {"arch": archs[2], "score": 6.0, "latency_ms": 3.0},
    ]


def test_the_best_cells_are_different_ones_best_first():
    cells = np.concatenate([CELLS[[1, 0, 1]], np.eye(6, dtype=np.int32)])
    scores = np.array([7.0, 5, 7, 1, 2, 3, 4, 0, np.nan])
    best = best_cells(table_of(cells, scores))
    assert [cell["score"] for cell in best] == [7, 5, 4, 3, 2]
    assert len({cell["arch"] for cell in best}) == 5
    assert set(best[0]) == {"arch", "score"}
    accuracies = np.array([np.nan, 90, np.nan, 1, 2, 3, 4, 5, 6])
    best = best_cells(table_of(cells, scores, accuracy=accuracies))
    assert [cell["accuracy"] for cell in best] == [None, 90, 4, 3, 2]
