"""A search whose best cells are scored again at the full setting."""

import itertools
import json
import math
import signal

import numpy as np
import pandas as pd
import pytest
from pages import table_below
from tiny_config import tiny_config
from toy_runs import records

from epe_nas_jax import InputError, parse_arch
from epe_nas_jax.commands import search, settings
from epe_nas_jax.commands.search import search_and_report
from epe_nas_jax.configs import best
from epe_nas_jax.runs.run import Run
from epe_nas_jax.runs.stopping import StopRequested
from epe_nas_jax.search import ranking
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead

# Digits have 32 pixels.
CHEAP = {"data.side": 8, "data.batch_size": 20}
FULL = {"data.side": 0, "data.batch_size": 24, "score.num_inits": 2}
AGAIN = {
    "refine.side": 0,
    "refine.batch_size": 24,
    "refine.channels": 4,
    "refine.cells_per_stage": 1,
    "refine.num_inits": 2,
}
COUNTS = [
    *("params", "mflops", "live_params", "live_mflops"),
    *("few_pools", "little_pooling", "wide_convs", "all_wide_convs", "mean_convs"),
]


def refining_config(share=0.3, **overrides):
    values = {"search.num_samples": 9, "score.proxies": ("jacob_cov",), "search.refine": share}
    return tiny_config(**(values | CHEAP | AGAIN | overrides))


def run(config, workdir):
    search_and_report(config, workdir)
    table = pd.read_csv(workdir / "scores.csv")
    return table, json.loads((workdir / "summary.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run."""
    workdir = tmp_path_factory.mktemp("refined") / "work"
    text = search_and_report(refining_config(), workdir)
    return workdir, text


def expected_ranks(table):
    """The final scores by their definition, cell by cell."""
    keys = [
        (1, again) if again == again else (0, first)
        for first, again in zip(table["search_score"], table["refined_score"], strict=True)
    ]
    known = sorted(key for key in keys if key[1] == key[1])
    places = {key: np.mean([i + 1 for i in range(len(known)) if known[i] == key]) for key in known}
    return [places.get(key, math.nan) / len(known) for key in keys]


def check_refined(table, share):
    """Checks which cells were scored again, and the final scores."""
    np.testing.assert_allclose(table["score"], expected_ranks(table), rtol=1e-8)
    again = table["refined_score"].notna()
    known = table["search_score"].notna().sum()
    assert again.sum() >= math.ceil(round(share * known, 6))
    assert table["search_score"][again].min() >= table["search_score"][~again].max()
    for name in table:
        if name.startswith("refined_"):
            assert table[name].notna().equals(again), name


def test_the_best_cells_come_first_by_their_score_at_the_full_setting(finished, tmp_path):
    workdir, _ = finished
    table = pd.read_csv(workdir / "scores.csv")
    proxies = ["jacob_cov", "refined_jacob_cov"]
    assert list(table) == ["arch", "score", "search_score", "refined_score", *proxies, *COUNTS]
    check_refined(table, 0.3)
    # Each stage is a search of its own setting, to the mini-batch.
    cheap, _ = run(tiny_config(**{"search.num_samples": 9, **CHEAP}), tmp_path / "cheap")
    full, _ = run(tiny_config(**{"search.num_samples": 9, **FULL}), tmp_path / "full")
    for column, other in (("search_score", cheap), ("refined_score", full)):
        assert table["arch"].equals(other["arch"])
        is_there = table[column].notna()
        # Another program of the same numbers.
        np.testing.assert_allclose(table[column][is_there], other["score"][is_there], rtol=1e-3)
    assert not np.allclose(cheap["score"], full["score"], rtol=0.01)
    # The counts are of the network that the search scored.
    assert table[COUNTS].equals(cheap[COUNTS])
    kept = [
        json.loads((path / "config.json").read_text())["minibatch_sha256"]
        for path in (workdir, tmp_path / "cheap", tmp_path / "full")
    ]
    assert len(set(kept)) == 3


def test_a_limit_holds_for_both_stages(finished, tmp_path):
    limit = int(pd.read_csv(finished[0] / "scores.csv")["params"].median())
    table, _ = run(refining_config(**{"search.max_params": limit}), tmp_path / "work")
    assert len(table) == 9
    assert table["params"].max() <= limit
    check_refined(table, 0.3)


def test_a_cell_that_loses_its_score_at_the_full_setting_has_none(tmp_path, monkeypatch):
    run_step = settings.CellScorer._run

    def lose_the_first(self, kinds, networks, step):
        proxies, e = run_step(self, kinds, networks, step)
        if self.config.num_inits == FULL["score.num_inits"]:
            proxies[0] = np.nan
        return proxies, e

    monkeypatch.setattr(settings.CellScorer, "_run", lose_the_first)
    table, summary = run(refining_config(), tmp_path / "work")
    lost = table["score"].isna() & table["search_score"].notna()
    again = table["refined_score"].notna()
    assert lost.sum() == 1
    assert again.sum() == 2
    # It was among the best of the search, and is not what the search found.
    others = table["search_score"][~lost & ~again]
    assert table["search_score"][lost].min() >= others.max()
    assert table["score"][again].min() > table["score"][~lost & ~again].max()
    assert summary["best_arch"] == table["arch"][table["score"].idxmax()]


def test_its_files_say_what_each_stage_did(finished):
    workdir, text = finished
    names = {"config.json", "report.html", "scores.csv", "summary.json", ".lock-0"}
    assert {path.name for path in workdir.iterdir()} == {*names, "steps-0.jsonl", "refine-0.jsonl"}
    summary = json.loads((workdir / "summary.json").read_text())
    table = pd.read_csv(workdir / "scores.csv")
    assert summary["num_refined"] == table["refined_score"].notna().sum() == 3
    assert summary["best_score"] == 1
    assert summary["best_arch"] == table["arch"][table["score"].idxmax()]
    for stage, log in (("search", "steps-0.jsonl"), ("refine", "refine-0.jsonl")):
        steps = records(workdir / log)
        figures = summary["stages"][stage]
        assert figures["seconds"] == pytest.approx(sum(step["seconds"] for step in steps))
        assert figures["compile_seconds"] == steps[0]["compile_seconds"] > 0
        assert figures["num_networks"] == sum(len(step["genotypes"]) for step in steps)
    seconds = [summary["stages"][stage]["seconds"] for stage in ("search", "refine")]
    assert summary["seconds"] == pytest.approx(sum(seconds))
    assert "\nrefined     3 cells, 3 different networks, scored again at the full" in text
    report = (workdir / "report.html").read_text()
    assert "3 cells, 3 different networks, scored again at the full" in report
    assert "Classes of the best cell" not in report


def test_a_finished_run_gives_its_results_again_and_scores_nothing(finished, monkeypatch):
    workdir, text = finished
    # Parts of a score that is a rank would be those of another setting.
    monkeypatch.setattr(settings.CellScorer, "class_scores", None)
    before = {path: path.read_bytes() for path in workdir.iterdir()}
    again = search_and_report(refining_config(), workdir)
    assert again.startswith("This run had scored all its cells before")
    assert again.split("\n\n", 1)[1] == text
    assert {path: path.read_bytes() for path in workdir.iterdir()} == before
    for name, value in (("search.refine", 0.5), ("refine.batch_size", 30)):
        with pytest.raises(InputError, match=f"holds another run, config.{name}: found"):
            search_and_report(refining_config(**{name: value}), workdir)


def test_a_run_that_is_stopped_in_either_stage_goes_on_and_scores_nothing_twice(
    tmp_path, monkeypatch
):
    calls = itertools.count(1)

    def stop(_):
        # Before the first step of a stage and after each.
        if next(calls) % 3 == 0:
            raise StopRequested(signal.SIGTERM)

    def logged():
        logs = [tmp_path / "work" / f"{stage}-0.jsonl" for stage in ("steps", "refine")]
        steps = [records(log) if log.exists() else [] for log in logs]
        return [[tuple(row) for step in of_log for row in step["genotypes"]] for of_log in steps]

    # A step has a cell of each of two devices.
    config = refining_config(0.9, cells_per_step="1")
    monkeypatch.setattr(Run, "check_stop", stop)
    stopped = []
    while True:
        try:
            search_and_report(config, tmp_path / "work")
            break
        except StopRequested:
            stopped.append(tuple(map(len, logged())))
            assert not (tmp_path / "work/scores.csv").exists()
    assert any(again for _, again in stopped)
    assert any(not again for _, again in stopped)
    for cells in logged():
        assert len(cells) == len(set(cells))
    monkeypatch.undo()
    search_and_report(config, tmp_path / "undisturbed")
    scores = [(tmp_path / name / "scores.csv").read_bytes() for name in ("work", "undisturbed")]
    assert scores[0] == scores[1]


def test_a_damaged_log_of_the_second_stage_is_named(finished, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    for path in finished[0].iterdir():
        (work / path.name).write_bytes(path.read_bytes())
    log = work / "refine-0.jsonl"
    log.write_bytes(log.read_bytes().replace(b"1", b"2", 1) + b"\n")
    with pytest.raises(InputError, match=r"refine-0\.jsonl, line 1: damaged"):
        search_and_report(refining_config(), work)
    for name in ("config.json", "scores.csv", "summary.json", "report.html"):
        (work / name).unlink()
    (work / "steps-0.jsonl").unlink()
    with pytest.raises(InputError, match=r"holds refine-0\.jsonl of another run"):
        search_and_report(refining_config(), work)


@pytest.mark.parametrize("algorithm", ["random", "evolution", "local"])
def test_several_columns_are_ranked_among_the_cells_scored_again(tmp_path, algorithm):
    config = refining_config(
        0.4,
        **{
            "search.algorithm": algorithm,
            "search.num_samples": 12,
            "score.proxies": (),
            "search.candidates_per_step": 4,
            "search.population": 4,
        },
    )
    config.score.objective = objective = best.get_config().score.objective
    table, summary = run(config, tmp_path)
    check_refined(table, 0.4)
    proxies = [f"refined_{name}" for name in objective if name != "live_params"]
    assert list(table)[2:4] == ["search_score", "refined_score"]
    assert list(table)[8:12] == proxies
    again = table[table["refined_score"].notna()]
    values = again[[*proxies, "live_params"]].to_numpy()
    np.testing.assert_allclose(again["refined_score"], ranking.log_rank_sum(values), rtol=1e-8)
    everywhere = ranking.log_rank_sum(table[list(objective)].to_numpy())
    np.testing.assert_allclose(table["search_score"], everywhere, rtol=1e-8)
    assert summary["num_refined"] == len(again) >= 5
    # The page ranks them at the full setting, and no others.
    best_first = again.sort_values("refined_score", ascending=False, kind="stable").index[:5]
    ranks = again[[*proxies, "live_params"]].rank(method="min", ascending=False).loc[best_first]
    report = (tmp_path / "report.html").read_text()
    assert f"among the {len(again)} different cells that were scored again" in report
    _, *rows = table_below(report, "Why these are first")
    assert [row[1:] for row in rows] == ranks.to_numpy().T.astype(int).astype(str).tolist()


def test_every_cell_may_have_a_mini_batch_of_its_own_in_both_stages(tmp_path):
    fresh = {"data.fresh_minibatch": True, "search.num_samples": 4}
    table, _ = run(refining_config(0.5, **fresh), tmp_path / "refined")
    check_refined(table, 0.5)
    full, _ = run(tiny_config(**FULL, **fresh), tmp_path / "full")
    again = table["refined_score"].notna()
    np.testing.assert_allclose(table["refined_score"][again], full["score"][again], rtol=1e-3)


def test_a_search_in_which_no_cell_has_a_score_scores_none_again(tmp_path, monkeypatch):
    score = search.LoggedScorer.proxies

    def none_at_the_cheap_setting(logged, genotypes):
        is_full = logged._scorer.inputs[1].shape[1] == 32
        return score(logged, genotypes) if is_full else np.full((len(genotypes), 2), np.nan)

    monkeypatch.setattr(search.LoggedScorer, "proxies", none_at_the_cheap_setting)
    table, summary = run(refining_config(), tmp_path)
    assert table[["score", "refined_score", "refined_jacob_cov"]].isna().all(axis=None)
    assert summary["best_arch"] is None
    assert summary["num_refined"] == summary["stages"]["refine"]["num_networks"] == 0


@pytest.mark.parametrize("live", [False, True])
def test_cells_that_are_one_network_have_one_score(tmp_path, monkeypatch, live):
    asked = []

    def network_of(cells):
        return prune_dead(cells) if live else cells

    def codes(logged, genotypes):
        # A number of each network, in another order at the full setting.
        is_full = logged._scorer.inputs[1].shape[1] == 32
        if is_full:
            asked.append(genotypes)
        order = np.arange(6)[::-1] if is_full else np.arange(6)
        return (network_of(genotypes) @ 5.0**order).astype(np.float32)[:, None]

    # The two stages alone: other tests compute scores and look at the report.
    monkeypatch.setattr(search.LoggedScorer, "proxies", codes)
    monkeypatch.setattr(search, "run_page", lambda **_: "")
    config = refining_config(
        1.0, **{"search.num_samples": 400, "score.prune_dead": live, "search.replace": True}
    )
    config.score.proxies = ()
    table, summary = run(config, tmp_path / "all")
    assert summary["best_arch"] == table["arch"][table["score"].idxmax()]
    assert table["score"].idxmax() != table["search_score"].idxmax()
    # A share that ends between two places of a network.
    in_order = np.sort(table["search_score"])[::-1]
    end = 1 + int(np.argmax(in_order[1:] == in_order[:-1]))
    assert in_order[end - 1] == in_order[end]
    asked.clear()
    config.search.refine = end / 400
    table, summary = run(config, tmp_path / "share")
    assert table["refined_score"].notna().sum() == summary["num_refined"] > end
    cells = network_of(np.array([parse_arch(arch) for arch in table["arch"]]))
    networks = np.array([str(cell) for cell in cells])
    by_network = table[["score", "refined_score"]].fillna(-1).groupby(networks)
    assert (by_network.nunique() == 1).all(axis=None)
    # The first call is the one that scores: no cell twice, and only the best.
    assert len({str(cell) for cell in network_of(asked[0])}) == end
    assert len({str(cell) for cell in asked[0]}) == len(asked[0])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"search.refine": 1.5}, "search.refine: found 1.5, expected a share of the cells up to 1"),
        ({"search.refine": -0.1}, "search.refine: found -0.1, expected a share"),
        ({"search.refine": math.nan}, "search.refine: found nan, expected a share"),
        ({"refine.side": 12}, "refine.side: found 12, expected a multiple of 4 that divides"),
        ({"refine.side": 6}, "refine.side: found 6, expected a multiple of 4 up to 4096"),
        ({"refine.batch_size": 1798}, r"^refine.batch_size: found 1798, expected 2..1797"),
        ({"refine.batch_size": 1}, r"^refine.batch_size: found 1, expected 2..1797"),
        ({"refine.batch_size": 2}, r"^refine.batch_size: found 2 images of as many classes"),
        ({"refine.channels": 0}, r"^refine.channels: found 0, expected 1..10000"),
        ({"refine.cells_per_stage": 10001}, r"^refine.cells_per_stage: found 10001, expected 1.."),
        ({"refine.num_inits": 0}, "^refine.num_inits: found 0, expected at least 1"),
        # The search's own setting is still called by its own keys.
        ({"data.side": 12}, "^data.side: found 12"),
        ({"data.batch_size": 1}, "^data.batch_size: found 1"),
        ({"network.channels": 0}, "^network.channels: found 0"),
        ({"score.num_inits": 0}, "^num_inits: found 0"),
    ],
)
def test_a_refinement_that_cannot_be_is_refused_and_leaves_nothing(tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        search_and_report(refining_config(**overrides), tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("side", [0, 32])
def test_a_full_setting_that_is_the_searchs_own_is_refused(tmp_path, side):
    same = {"refine.side": side, "refine.batch_size": 16, "refine.num_inits": 1}
    config = refining_config(0.1, **{"data.side": 0, "data.batch_size": 16}, **same)
    message = (
        r"search.refine: found 0.1 with refine.\* equal to the search's own setting, "
        r"expected a cheaper search, as --config=fast has"
    )
    with pytest.raises(InputError, match=message):
        search_and_report(config, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_without_a_share_the_full_setting_is_not_read(tmp_path):
    config = refining_config(0.0, **{"refine.side": 6, "refine.channels": -1})
    table, summary = run(config, tmp_path)
    assert list(table) == ["arch", "score", "jacob_cov", *COUNTS]
    assert "stages" not in summary
    assert not (tmp_path / "refine-0.jsonl").exists()
