"""The search command: its files, its searches, and what it refuses."""

import contextlib
import csv
import html
import json
import os
import re
import subprocess
import sys
import termios
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from pages import table_below
from PIL import Image
from tiny_config import tiny_config

from epe_nas_jax import InputError, ScoringConfig, format_arch, parse_arch
from epe_nas_jax.commands import settings
from epe_nas_jax.commands.config import dataset_of
from epe_nas_jax.commands.search import search_and_report
from epe_nas_jax.configs import best, fast, folder, released_protocol
from epe_nas_jax.data.datasets import draw_fixed_minibatch
from epe_nas_jax.runs.workdir import provenance
from epe_nas_jax.search import ranking
from epe_nas_jax.spaces.nasbench201 import cost
from epe_nas_jax.spaces.nasbench201.genotype import canonical_form, decode, has_path, prune_dead


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the test config with a benchmark table that lacks one cell."""
    folder = tmp_path_factory.mktemp("finished")
    table = folder / "table.csv"
    archs = [format_arch(g) for g in np.asarray(decode(np.arange(15625)))]
    rows = [f"{arch},{50 + i / 1000}" for i, arch in enumerate(archs)]
    table.write_text("arch,top1\n" + "\n".join(rows) + "\n")
    config = tiny_config(**{"benchmark.path": str(table), "benchmark.column": "top1"})
    config.score.proxies = ("jacob_cov",)
    text = search_and_report(config, folder / "work")
    return folder / "work", config, text


def read_scores(workdir):
    with (workdir / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def test_work_directory_holds_the_files_of_the_contract(finished):
    workdir, config, _ = finished
    assert {path.name for path in workdir.iterdir()} == {
        ".lock-0",
        "config.json",
        "report.html",
        "scores.csv",
        "steps-0.jsonl",
        "summary.json",
    }
    rows = read_scores(workdir)
    costs = ["params", "mflops", "live_params", "live_mflops"]
    counts = [*costs, "few_pools", "little_pooling", "wide_convs", "all_wide_convs", "mean_convs"]
    assert list(rows[0]) == ["arch", "score", "jacob_cov", *counts, "accuracy"]
    assert len(rows) == config.search.num_samples
    summary = json.loads((workdir / "summary.json").read_text())
    best = max(rows, key=lambda row: float(row["score"] or "-inf"))
    assert summary["best_arch"] == best["arch"]
    assert summary["best_score"] == pytest.approx(float(best["score"]))
    assert summary["best_accuracy"] == float(best["accuracy"])
    assert summary["sample_best_accuracy"] == max(float(row["accuracy"]) for row in rows)
    assert summary["num_scored"] == len(rows)
    assert summary["num_degenerate"] == sum(row["score"] == "" for row in rows)
    live = prune_dead(np.array([parse_arch(row["arch"]) for row in rows]))
    assert summary["num_networks"] == len({tuple(row) for row in live.tolist()})
    forms = {canonical_form(parse_arch(row["arch"])) for row in rows}
    assert summary["num_isomorphic_classes"] == len(forms)
    assert summary["ms_per_cell"] == pytest.approx(1000 * summary["seconds"] / len(rows))
    assert {"compile_seconds", "device"} <= set(summary)
    spearman = summary["rank_correlation"]["spearman"]
    assert spearman["low"] <= spearman["value"] <= spearman["high"]
    provenance = json.loads((workdir / "config.json").read_text())
    assert provenance["config"] == json.loads(config.to_json())
    assert len(provenance["minibatch_sha256"]) == 64
    assert "jax" in provenance["versions"]


def test_proxies_and_counts_are_columns(finished, tmp_path):
    workdir, _, _ = finished
    search_and_report(tiny_config(**{"score.proxies": ("nwot", "jacob_cov")}), tmp_path / "all")
    rows, scores = read_scores(tmp_path / "all"), read_scores(workdir)
    assert list(rows[0])[:4] == ["arch", "score", "nwot", "jacob_cov"]
    for row, score in zip(rows, scores, strict=True):
        assert row["arch"] == score["arch"]
        # Another program of the same numbers: rounding moves a float32 score by 1e-4 at times.
        assert float(row["score"]) == pytest.approx(float(score["score"]), rel=1e-3)
        assert float(row["nwot"]) > 0 > float(row["jacob_cov"])
        assert int(row["live_params"]) <= int(row["params"])
        assert float(row["live_mflops"]) <= float(row["mflops"])
    cells = np.array([parse_arch(row["arch"]) for row in rows])
    sizes = cost.Sizes(channels=4, cells_per_stage=1, num_classes=10)
    for prefix, live in (("", False), ("live_", True)):
        params = cost.parameters(cells, sizes, live=live)
        assert [int(row[f"{prefix}params"]) for row in rows] == params.tolist()
        mflops = cost.flops(cells, sizes, side=32, live=live) / 1e6
        assert [float(row[f"{prefix}mflops"]) for row in rows] == pytest.approx(mflops, rel=1e-8)
    assert any(row["live_params"] != row["params"] for row in rows)


@pytest.mark.parametrize("algorithm", ["random", "evolution"])
def test_the_score_of_an_objective_is_its_columns_ranked_together(tmp_path, algorithm):
    config = tiny_config(**{"search.algorithm": algorithm, "search.num_samples": 12})
    config.search.candidates_per_step = config.search.population = 4
    config.score.update(best.get_config().score)
    search_and_report(config, tmp_path)
    table = pd.read_csv(tmp_path / "scores.csv")
    objective = list(config.score.objective)
    assert list(table)[:7] == ["arch", "score", *objective[:-1], "epe"]
    assert objective[-1] == "live_params"
    expected = ranking.log_rank_sum(table[objective].to_numpy())
    assert table["score"].to_numpy() == pytest.approx(expected, rel=1e-8, nan_ok=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["best_arch"] == table["arch"][table["score"].idxmax()]
    # The page says how the best cells rank by each column alone.
    order = table.sort_values("score", ascending=False, kind="stable").index[:5]
    known = table[table["score"].notna()]
    ranks = known[objective].rank(method="min", ascending=False).loc[order]
    header, *rows = table_below((tmp_path / "report.html").read_text(), "Why these are first")
    assert header == ["rank by score", *"12345"]
    assert rows == [
        [f"by {column}", *(f"{rank:.0f}" for rank in ranks[column])] for column in objective
    ]


def test_the_fast_ranking_is_the_best_one_on_few_small_images(tmp_path):
    config = fast.get_config()
    config.update_from_flattened_dict(
        {"network.channels": 2, "network.cells_per_stage": 1, "search.num_samples": 6}
    )
    search_and_report(config, tmp_path)
    assert config.score.objective == best.get_config().score.objective
    _, batch_key = jax.random.split(jax.random.key(config.seed))
    images, labels = draw_fixed_minibatch(batch_key, dataset_of(config), 32, augment=False)
    assert images.shape == (32, 8, 8, 3)
    kept = json.loads((tmp_path / "config.json").read_text())
    assert kept["minibatch_sha256"] == provenance({}, (images, labels))["minibatch_sha256"]
    table = pd.read_csv(tmp_path / "scores.csv")
    assert list(table)[:6] == ["arch", "score", *config.score.objective[:-1]]


def test_an_objective_of_one_column_is_that_column(finished, tmp_path):
    workdir, _, _ = finished
    config = tiny_config(**{"score.objective": ("jacob_cov",)})
    search_and_report(config, tmp_path)
    table, other = pd.read_csv(tmp_path / "scores.csv"), pd.read_csv(workdir / "scores.csv")
    assert list(table)[:3] == ["arch", "score", "params"]
    # Another program of the same numbers.
    assert table["score"].to_numpy() == pytest.approx(other["jacob_cov"].to_numpy(), rel=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"score.objective": ("accuracy", "epe")},
            "score.objective: found 'accuracy', expected one of epe",
        ),
        ({"score.objective": ("params", "mflops")}, "score.objective: found params, mflops"),
        ({"score.objective": ("epe", "epe")}, "found 'epe' twice"),
        ({"score.objective": ()}, "score.objective: found nothing, expected a proxy among them"),
        ({"score.combine": "mean"}, "score.combine: found 'mean', expected one of log_rank_sum"),
    ],
)
def test_an_objective_that_cannot_be_is_refused(tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        search_and_report(tiny_config(**overrides), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_printed_table_names_what_a_person_looks_for(finished):
    workdir, _, text = finished
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["best_arch"] in text.splitlines()[1]
    for word in (
        "7 cells",
        "without a score",
        "s compiling",
        "ms a cell",
        "CPU",
        "spearman",
        "kendall",
    ):
        assert word in text


def test_the_same_config_gives_the_same_scores_byte_for_byte(finished, tmp_path):
    workdir, config, _ = finished
    search_and_report(config, tmp_path / "again")
    assert (tmp_path / "again/scores.csv").read_bytes() == (workdir / "scores.csv").read_bytes()


def test_another_seed_gives_other_cells_and_scores(finished, tmp_path):
    search_and_report(tiny_config(seed=1), tmp_path)
    first, second = read_scores(finished[0]), read_scores(tmp_path)
    assert [row["arch"] for row in first] != [row["arch"] for row in second]


@pytest.mark.slow
def test_degenerate_cells_are_counted_and_left_empty(tmp_path):
    config = tiny_config(**{"search.num_samples": 150, "cells_per_step": "50"})
    search_and_report(config, tmp_path)
    rows = read_scores(tmp_path)
    lost = [row["arch"] for row in rows if not has_path(parse_arch(row["arch"]))]
    assert lost
    assert [row["arch"] for row in rows if row["score"] == ""] == lost
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["num_degenerate"] == len(lost)
    assert summary["best_arch"] not in lost


@pytest.mark.slow
def test_released_protocol_shares_nothing_between_cells(tmp_path):
    config = released_protocol.get_config()
    assert config.data.batch_size == 256
    config.update_from_flattened_dict(
        {
            "cells_per_step": "3",
            "data.name": "digits",
            "data.batch_size": 16,
            "network.channels": 4,
            "network.cells_per_stage": 1,
            "search.num_samples": 4,
            "benchmark.column": "",
        }
    )
    search_and_report(config, tmp_path / "released")
    shared = config.copy_and_resolve_references()
    shared.score.init = "shared"
    shared.data.fresh_minibatch = False
    search_and_report(shared, tmp_path / "shared")
    ours, others = (read_scores(tmp_path / name) for name in ("released", "shared"))
    assert [row["arch"] for row in ours] == [row["arch"] for row in others]
    assert all(a["score"] != b["score"] for a, b in zip(ours, others, strict=True) if a["score"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.name": "mnist"}, "'mnist': unknown"),
        ({"data.batch_size": 1798}, r"data.batch_size: found 1798, expected 2..1797"),
        ({"data.batch_size": 1}, "data.batch_size: found 1"),
        ({"data.name": "npz"}, "data.path: found nothing"),
        ({"data.name": "npz", "data.download": True}, "data.download: found True"),
        ({"data.side": 12}, "data.side: found 12, expected a multiple of 4 that divides"),
        ({"data.side": 6}, "data.side: found 6, expected a multiple of 4 up to 4096"),
        ({"score.objective": ("paper",)}, "score.objective: found 'paper', expected one of epe"),
        (
            {"space.name": "nasnet"},
            "space.name: found 'nasnet', expected one of nasbench201, darts",
        ),
        ({"score.init": "own"}, "init: found 'own'"),
        ({"score.num_inits": 0}, "num_inits: found 0"),
        ({"network.channels": 0}, "network.channels: found 0"),
        ({"network.cells_per_stage": -1}, "network.cells_per_stage: found -1"),
        ({"cells_per_step": "some"}, "cells_per_step: found 'some'"),
        ({"benchmark.path": "no.csv", "benchmark.column": "x"}, "no.csv: no such file"),
        ({"search.num_samples": 0}, "number of samples: found 0"),
        ({"search.num_samples": 15626}, "number of samples: found 15626"),
    ],
)
def test_bad_config_is_refused_and_leaves_nothing(tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        search_and_report(tiny_config(**overrides), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_work_directory_of_another_run_is_refused_and_kept(finished):
    workdir, config, _ = finished
    before = {path: path.read_bytes() for path in workdir.iterdir()}
    other = config.copy_and_resolve_references()
    other.score.num_inits = 2
    with pytest.raises(InputError, match=r"config.score.num_inits: found 1, expected 2"):
        search_and_report(other, workdir)
    assert {path: path.read_bytes() for path in workdir.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scores.csv", "arch,score\n", "holds scores.csv of another run"),
        ("config.json", "{}", "holds a config.json of something else"),
        ("config.json", "no json", "holds a config.json of something else"),
    ],
)
def test_foreign_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        search_and_report(tiny_config(), tmp_path)


def test_a_file_is_no_work_directory(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InputError, match="found a file, expected a directory"):
        search_and_report(tiny_config(), path)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_images_is_searched_with_class_balanced_minibatches(
    tmp_path, fresh, monkeypatch
):
    rng = np.random.default_rng(0)
    for name, num_images in (("cat", 9), ("dog", 3), ("mouse", 1)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(num_images):
            pixels = rng.integers(0, 256, (10, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    config = folder.get_config()
    config.update_from_flattened_dict(
        {
            "cells_per_step": "2",
            "data.path": str(tmp_path / "images"),
            "data.side": 8,
            "data.batch_size": 6,
            "data.fresh_minibatch": fresh,
            "network.channels": 4,
            "network.cells_per_stage": 1,
            "search.num_samples": 4,
        }
    )
    assert config.data.class_balanced
    configs = []
    monkeypatch.setattr(
        settings, "ScoringConfig", lambda **x: configs.append(ScoringConfig(**x)) or configs[0]
    )
    text = search_and_report(config, tmp_path / "work")
    assert "4 cells" in text
    assert configs[0].class_balanced == fresh
    if not fresh:
        _, batch_key = jax.random.split(jax.random.key(config.seed))
        drawn = draw_fixed_minibatch(
            batch_key, dataset_of(config), 6, augment=False, class_balanced=True
        )
        kept = json.loads((tmp_path / "work/config.json").read_text())
        assert kept["minibatch_sha256"] == provenance({}, drawn)["minibatch_sha256"]
    summary = json.loads((tmp_path / "work/summary.json").read_text())
    assert summary["best_score"] > 0
    assert 1 <= summary["num_isomorphic_classes"] <= 4


def on_a_terminal(command, directory):
    """The exit status of a shell's command, and what a terminal as stderr shows."""
    terminal, stderr = os.openpty()
    termios.tcsetwinsize(stderr, (24, 80))
    scripts = Path(sys.executable).parent
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=directory,
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    ) as process:
        os.close(stderr)
        shown = b""
        # An error is how a terminal ends.
        with contextlib.suppress(OSError):
            while part := os.read(terminal, 4096):
                shown += part
    os.close(terminal)
    return process.returncode, shown.decode()


def test_the_command_in_the_report_repeats_the_run(finished, tmp_path):
    workdir, config, _ = finished
    report = (workdir / "report.html").read_text()
    assert json.loads((workdir / "summary.json").read_text())["best_arch"] in report
    command = html.unescape(re.search("<pre[^>]*>(epe-nas .*?)</pre>", report, re.DOTALL)[1])
    status, shown = on_a_terminal(command, tmp_path)
    assert status == 0, shown
    # A bar that is drawn again and again, and no lines for a log.
    assert "\r" in shown
    assert "7/7" in shown
    assert "a second" not in shown
    again = json.loads((tmp_path / "again/config.json").read_text())
    assert again["config"] == json.loads(config.to_json())


def test_another_formula_of_the_score_is_a_column_and_may_be_the_objective(tmp_path):
    # Above 100 classes the paper's formula is another one than the released code's.
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (202, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", x_train=images, y_train=np.arange(202) % 101)
    tables = []
    for objective, further in (("epe_two_branch", "epe"), ("epe", "epe_two_branch")):
        config = tiny_config(
            **{
                "data.name": "npz",
                "data.path": str(tmp_path / "images.npz"),
                "data.batch_size": 202,
                "search.num_samples": 4,
                "score.objective": (objective,),
                "score.proxies": (further,),
            }
        )
        search_and_report(config, tmp_path / objective)
        tables.append(pd.read_csv(tmp_path / objective / "scores.csv"))
        assert list(tables[-1])[:3] == ["arch", "score", further]
    two_branch, released = tables
    assert (two_branch["arch"] == released["arch"]).all()
    # Another program of the same numbers.
    assert np.allclose(two_branch["score"], released["epe_two_branch"], rtol=1e-3)
    assert np.allclose(two_branch["epe"], released["score"], rtol=1e-3)
    assert not np.isclose(two_branch["score"], two_branch["epe"], rtol=0.1).any()
