"""Latency as a column and as a limit of a search, measured by a function that is known."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_config import tiny_config

from epe_nas_jax import InputError, format_arch, parse_arch
from epe_nas_jax.commands import latency, search, settings
from epe_nas_jax.commands.latency import MeasuredLatency
from epe_nas_jax.commands.search import search_and_report
from epe_nas_jax.runs import hosts
from epe_nas_jax.runs.run import open_run
from epe_nas_jax.runs.stopping import StopRequested
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

DATA = os.environ.get("EPE_NAS_JAX_DATA", "")
ALGORITHMS = {
    "random": {},
    "evolution": {"search.population": 4, "search.candidates_per_step": 3},
    "local": {"search.candidates_per_step": 3},
    "nsga2": {
        "search.population": 4,
        "search.candidates_per_step": 3,
        "search.cost": "latency_ms",
    },
}
EVERY = NASBENCH201.every()
# Of these the tenth to the hundredth have no latency in tables.
ARCHS = [format_arch(cell) for cell in EVERY]


def milliseconds(network):
    """As long as a network's operations, of different lengths, together; never a round number."""
    return 0.1 + np.array([0.0, 0.01, 1.0, 3.0, 0.3])[np.asarray(network)].sum() / 7


@pytest.fixture
def measured(monkeypatch):
    """The arguments of each measurement, which takes no time."""
    asked = []

    def measure(_, genotype, image_shape, batch_size):
        asked.append((tuple(genotype.tolist()), image_shape, batch_size))
        return milliseconds(genotype)

    monkeypatch.setattr(latency, "latency_ms", measure)
    return asked


@pytest.fixture
def quick(monkeypatch):
    """Scores that take no time: other tests compute them."""

    def sums(logged, cells):
        found = np.asarray(cells).sum(axis=1, keepdims=True).astype(np.float32)
        return np.repeat(found, len(logged.names), axis=1)

    monkeypatch.setattr(search.LoggedScorer, "proxies", sums)
    monkeypatch.setattr(settings, "compile_scorer", lambda *_, **others: Scorer(others["config"]))


class Scorer:
    """What a search asks a scorer that scores nothing."""

    dtype = np.dtype(np.float32)
    progress = True

    def __init__(self, config):
        self.config = config

    def distinct(self, cells):
        kinds, which = np.unique(prune_dead(cells), axis=0, return_inverse=True)
        return kinds, kinds, which

    def class_scores(self, cell):  # noqa: ARG002
        return np.ones(10)


def run(workdir, **overrides):
    search_and_report(tiny_config(**overrides), workdir)
    return pd.read_csv(workdir / "scores.csv")


@pytest.fixture
def table(tmp_path):
    """The path of a table of all cells, some of which have no latency."""
    path = tmp_path / "latencies.csv"
    cells = [milliseconds(cell) for cell in EVERY]
    rows = (f"{arch},{'' if 10 <= i < 100 else cells[i]},{i}" for i, arch in enumerate(ARCHS))
    path.write_text("\n".join(["arch,here,other", *rows]) + "\n")
    return {"search.latency_path": str(path), "search.latency_column": "here"}


@pytest.mark.usefixtures("quick")
def test_a_latency_that_is_the_cost_of_a_search_is_a_column(tmp_path, measured):
    found = run(
        tmp_path,
        **{
            "search.algorithm": "nsga2",
            "search.cost": "latency_ms",
            "search.num_samples": 40,
            "search.population": 6,
            "search.candidates_per_step": 4,
        },
    )
    assert len(measured) == len({cell for cell, *_ in measured}) > 10
    front = json.loads((tmp_path / "summary.json").read_text())["pareto_front"]["latency_ms"]
    assert front[-1]["score"] == found["score"].max()
    assert front[0]["latency_ms"] == pytest.approx(found["latency_ms"].min())


@pytest.mark.usefixtures("quick")
def test_a_column_is_measured_of_each_live_form_once_and_kept(tmp_path, measured):
    config = {
        "score.proxies": ("latency_ms", "jacob_cov"),
        "search.num_samples": 60,
        "search.latency_batch": 3,
        "data.side": 8,
    }
    found = run(tmp_path, **config)
    assert list(found)[-1] == "latency_ms"
    live = prune_dead(np.array([parse_arch(arch) for arch in found["arch"]]))
    # Numbers of scores.csv have nine digits.
    np.testing.assert_allclose(found["latency_ms"], [milliseconds(cell) for cell in live], 1e-8)
    cells = [cell for cell, *_ in measured]
    assert len(cells) == len(set(cells)) < 60
    assert set(cells) == set(map(tuple, live.tolist()))
    assert {(shape, size) for _, shape, size in measured} == {((8, 8, 3), 3)}
    kept = pd.read_csv(tmp_path / "latency.csv")
    assert list(kept) == ["arch", "latency_ms"]
    assert kept["arch"].tolist() == [format_arch(cell) for cell in cells]
    # Python reads back the very float.
    assert kept["latency_ms"].map(float).tolist() == [milliseconds(cell) for cell in cells]
    results = {path: path.read_bytes() for path in tmp_path.iterdir()}
    run(tmp_path, **config)
    assert len(measured) == len(cells)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == results


def test_a_search_that_measures_scores_the_same_cells_alike(tmp_path, measured):
    plain = run(tmp_path / "plain")
    found = run(tmp_path / "measured", **{"score.proxies": ("latency_ms",)})
    assert "latency_ms" not in plain
    assert not (tmp_path / "plain/latency.csv").exists()
    assert list(json.loads((tmp_path / "plain/summary.json").read_text())["pareto_front"]) == [
        "params",
        "mflops",
    ]
    pd.testing.assert_frame_equal(found.drop(columns="latency_ms"), plain)
    front = json.loads((tmp_path / "measured/summary.json").read_text())["pareto_front"]
    costs = [cell["latency_ms"] for cell in front["latency_ms"]]
    assert costs == sorted(costs)
    page = (tmp_path / "measured/report.html").read_text()
    for cell in front["latency_ms"]:
        assert f"<title>{cell['arch']}: " in page
    assert "Score and ms a forward pass" in page
    assert measured


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("source", ["measured", "table"])
def test_no_cell_beyond_the_limit_is_proposed(tmp_path, measured, table, algorithm, source):
    settings = {
        "search.algorithm": algorithm,
        "search.num_samples": 15,
        "search.max_latency_ms": 0.7,
        "search.max_params": 9000,
        **ALGORITHMS[algorithm],
        **(table if source == "table" else {}),
    }
    found = run(tmp_path / "work", **settings)
    assert len(found) == found["arch"].nunique() == 15
    assert found["latency_ms"].max() <= 0.7
    assert found["params"].max() <= 9000
    if source == "table":
        assert not measured
        assert not set(found["arch"]) & set(ARCHS[10:100])
    else:
        # 15 cells, those on the way that are too slow, and for local search all neighbours.
        assert 15 <= len(measured) < 400
        assert len(set(measured)) == len(measured)


@pytest.mark.usefixtures("quick")
def test_cells_that_are_scored_again_are_within_the_limit_of_the_search(tmp_path, measured):
    found = run(
        tmp_path,
        **{
            **{"search.max_latency_ms": 0.7, "search.refine": 0.5, "data.side": 8},
            **{"refine.batch_size": 16, "refine.channels": 4, "refine.cells_per_stage": 1},
        },
    )
    assert found["latency_ms"].max() <= 0.7
    assert found["refined_score"].notna().sum() >= 3
    # Of the search's own images.
    assert {shape for _, shape, _ in measured} == {(8, 8, 3)}


@pytest.mark.usefixtures("quick")
def test_a_search_that_was_stopped_measures_the_rest_and_ends_alike(tmp_path, measured):
    settings = {"search.max_latency_ms": 0.7}
    whole = run(tmp_path / "whole", **settings)
    num_measured = len(measured)
    measured.clear()
    with pytest.MonkeyPatch.context() as patch:
        measure = latency.latency_ms

        def stopped(*arguments):
            if len(measured) == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return measure(*arguments)

        patch.setattr(latency, "latency_ms", stopped)
        with pytest.raises(StopRequested):
            run(tmp_path / "parts", **settings)
    # The one that was being measured is kept.
    assert len(pd.read_csv(tmp_path / "parts/latency.csv")) == len(measured) == 5
    assert not (tmp_path / "parts/scores.csv").exists()
    pd.testing.assert_frame_equal(run(tmp_path / "parts", **settings), whole)
    assert len(set(measured)) == len(measured) == num_measured
    kept = [(tmp_path / name / "latency.csv").read_bytes() for name in ("whole", "parts")]
    assert kept[0] == kept[1]


@pytest.mark.usefixtures("quick", "measured")
def test_a_table_is_a_column_with_gaps_where_it_has_none(tmp_path, table):
    found = run(tmp_path / "work", **table, **{"search.num_samples": 1000})
    places = {arch: place for place, arch in enumerate(ARCHS)}
    is_missing = [10 <= places[arch] < 100 for arch in found["arch"]]
    assert any(is_missing)
    assert found["latency_ms"].isna().tolist() == is_missing
    expected = [milliseconds(parse_arch(arch)) for arch in found["arch"]]
    known = ~np.array(is_missing)
    # As the table has it, by the cell as built; scores.csv has nine digits.
    np.testing.assert_allclose(found["latency_ms"][known], np.array(expected)[known], 1e-8)
    assert not (tmp_path / "work/latency.csv").exists()


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"search.max_latency_ms": 0.01},
            "search.max_latency_ms: found 0.01, expected at least 0.1, the smallest cell's",
        ),
        (
            {"search.max_latency_ms": float("nan")},
            "search.max_latency_ms: found nan, expected a number above 0",
        ),
        (
            {"search.max_latency_ms": -1.0},
            "search.max_latency_ms: found -1.0, expected a number above 0",
        ),
        ({"search.latency_batch": 0}, "search.latency_batch: found 0, expected at least 1"),
        (
            {"search.latency_column": "ms"},
            "search.latency_column: found 'ms' without a search.latency_path, expected both",
        ),
        ({"search.latency_path": "no.csv"}, "no.csv: no such file"),
        (
            {"search.max_latency_ms": 1.0, "search.replace": True},
            "search.replace: found True, expected random search without limits",
        ),
        ({"score.objective": ("epe", "latency_ms")}, "score.objective: found 'latency_ms'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_and_leaves_nothing(tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "work", **overrides)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("change", "overrides", "message"),
    [
        (
            lambda text: text.replace(f"{ARCHS[-1]},", f"{ARCHS[0]},"),
            {},
            f"found cell {ARCHS[0]} twice",
        ),
        (
            lambda text: text[: text.index(ARCHS[-1])],
            {},
            f"found no cell {ARCHS[-1]}, expected its latency",
        ),
        (lambda text: text, {"search.latency_column": "no"}, "expected a column 'no', found"),
        (
            lambda text: text,
            {"search.max_latency_ms": 0.05},
            "search.max_latency_ms: found 0.05, expected at least 0.1, the smallest cell's",
        ),
        (
            lambda text: text,
            {"search.max_latency_ms": 0.11, "search.num_samples": 500},
            "number of samples: found 500, expected at most",
        ),
    ],
)
def test_a_table_that_does_not_do_is_refused_and_leaves_nothing(
    tmp_path, table, change, overrides, message
):
    path = Path(table["search.latency_path"])
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError) as error:
        run(tmp_path / "work", **{**table, **overrides})
    assert message in str(error.value)
    assert not (tmp_path / "work").exists()


def test_the_command_refuses_in_one_line(tmp_path):
    keys = {"search.latency_column": "ms", "data.batch_size": 16}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "epe_nas_jax.main", "--config=test"),
            *(f"--workdir={tmp_path / 'work'}", *(f"--config.{k}={v}" for k, v in keys.items())),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: search.latency_column: found 'ms' without")
    assert not (tmp_path / "work").exists()


@pytest.mark.usefixtures("quick", "measured")
@pytest.mark.parametrize(
    "content", ["", "arch,ms\n", "arch,latency_ms\nx\n", "arch,latency_ms\nx,nan\n", "\xff"]
)
def test_damaged_measurements_are_refused(tmp_path, content):
    config = {"search.max_latency_ms": 0.7, "search.num_samples": 3}
    run(tmp_path, **config)
    (tmp_path / "latency.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"latency\.csv: damaged, expected lines of arch"):
        run(tmp_path, **config)


def test_another_process_waits_for_what_process_0_measured(tmp_path, monkeypatch):
    said = iter([{ARCHS[0]: 0.25}, 0.5])
    sent = []

    def exchange(message):
        sent.append(json.loads(message))
        return [json.dumps(next(said)).encode(), message]

    monkeypatch.setattr(hosts, "exchange", exchange)
    monkeypatch.setattr(hosts, "index", lambda: 1)
    with open_run({}, tmp_path / "work") as run:
        found = MeasuredLatency(run, NASBENCH201, lambda _: pytest.fail("measured"))
        assert found(EVERY[[0, -1, 0, -1]]).tolist() == [0.25, 0.5, 0.25, 0.5]
    assert sent == [{}, None]
    assert not (tmp_path / "work").exists()


@pytest.mark.usefixtures("quick")
def test_a_run_whose_table_has_changed_is_refused(tmp_path, table):
    run(tmp_path / "work", **table)
    before = (tmp_path / "work/scores.csv").read_bytes()
    path = Path(table["search.latency_path"])
    path.write_text(path.read_text().replace("|avg_pool_3x3~2|,", "|avg_pool_3x3~2|,1"))
    with pytest.raises(InputError, match=r"holds another run, config\.latency_sha256"):
        run(tmp_path / "work", **table)
    assert (tmp_path / "work/scores.csv").read_bytes() == before


def test_measurements_of_another_run_are_refused(tmp_path):
    (tmp_path / "latency.csv").write_text("arch,latency_ms\n")
    with pytest.raises(InputError, match=r"holds latency\.csv of another run"):
        run(tmp_path)


@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(not DATA, reason="EPE_NAS_JAX_DATA does not name a folder of published tables")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_published_table_is_a_limit(tmp_path, algorithm):
    path = Path(DATA) / "nasbench201_hw.csv.gz"
    column = "cifar10_edgetpu_latency"
    found = run(
        tmp_path,
        **{
            **{"search.algorithm": algorithm, "search.max_latency_ms": 0.9},
            **{"search.latency_path": str(path), "search.latency_column": column},
            **ALGORITHMS[algorithm],
        },
    )
    published = pd.read_csv(path).set_index("arch")[column]
    np.testing.assert_allclose(found["latency_ms"], published[found["arch"]], 1e-8)
    assert found["latency_ms"].max() <= 0.9
