"""Searches other than random ones, and limits, by the search command."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from tiny_config import tiny_config

from epe_nas_jax import InputError, parse_arch
from epe_nas_jax.commands import search, settings
from epe_nas_jax.commands.search import search_and_report


@pytest.mark.parametrize("algorithm", ["evolution", "local", "nsga2"])
def test_other_searches_keep_to_the_limits_and_the_budget(tmp_path, algorithm, monkeypatch):
    asked = []

    def sums(_, genotypes):
        asked.append(genotypes)
        return np.asarray(genotypes).sum(axis=1, keepdims=True).astype(np.float32)

    # The search alone: other tests compute scores and look at the report.
    monkeypatch.setattr(search.LoggedScorer, "proxies", sums)
    monkeypatch.setattr(settings.CellScorer, "class_scores", lambda *_: None)
    monkeypatch.setattr(search, "run_page", lambda **_: "")
    config = tiny_config(
        **{
            "search.algorithm": algorithm,
            "search.num_samples": 40,
            "search.candidates_per_step": 6,
            "search.max_params": 8000,
            "search.max_mflops": 1.0,
        }
    )
    search_and_report(config, tmp_path)
    table = pd.read_csv(tmp_path / "scores.csv")
    assert len(table) == table["arch"].nunique() == 40
    assert table["params"].max() <= 8000
    assert table["mflops"].max() <= 1.0
    asked_for_the_table = asked.pop()
    assert np.array_equal(np.concatenate(asked), asked_for_the_table)
    assert np.array_equal(asked_for_the_table, [parse_arch(arch) for arch in table["arch"]])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["num_steps"] == len(asked)
    for name in ("params", "mflops"):
        front = summary["pareto_front"][name]
        assert front[-1]["score"] == table["score"].max()
        assert front[0][name] == table[name].min()
        assert [cell[name] for cell in front] == sorted({cell[name] for cell in front})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"search.algorithm": "bayes"}, "search.algorithm: found 'bayes'"),
        (
            {"search.algorithm": "local", "search.replace": True},
            "search.replace: found True, expected random search without limits",
        ),
        (
            {"search.max_params": 9000, "search.replace": True},
            "search.replace: found True, expected random search without limits",
        ),
        (
            {"search.cost": "score"},
            "search.cost: found 'score', expected one of params, mflops, latency_ms",
        ),
        ({"search.candidates_per_step": 0}, "search.candidates_per_step: found 0"),
        ({"search.population": 0}, "search.population: found 0"),
        ({"search.tournament": -1}, "search.tournament: found -1"),
        (
            {"search.max_mflops": math.nan},
            "search.max_mflops: found nan, expected a number above 0",
        ),
        ({"search.max_params": -1}, "search.max_params: found -1, expected a number above 0"),
        ({"search.max_params": 10}, r"search.max_params: found 10, expected at least \d+"),
        ({"search.max_mflops": 0.001}, r"search.max_mflops: found 0.001, expected at least"),
        (
            {"search.max_params": 5000, "search.num_samples": 15000},
            r"number of samples: found 15000, expected at most \d+, the cells within",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_and_leaves_nothing(tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        search_and_report(tiny_config(**overrides), tmp_path / "work")
    assert not (tmp_path / "work").exists()
