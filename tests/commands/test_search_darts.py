"""The search command on DARTS cells, from a config to its report."""

import json

import numpy as np
import pandas as pd
import pytest
from costs import built_parameters
from tiny_config import tiny_config

from epe_nas_jax import DartsNetwork, InputError, format_genotype, parse_genotype
from epe_nas_jax.commands.search import search_and_report
from epe_nas_jax.spaces.darts.genotype import NUM_EDGES, neighbours

# Its network takes a minute to compile, once for all.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The path of images of two classes, as small as the network takes them."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    np.savez(path, x_train=pixels, y_train=np.arange(12) % 2)
    return str(path)


def darts_config(images, **overrides):
    return tiny_config(
        **{
            "space.name": "darts",
            "data.name": "npz",
            "data.path": images,
            "data.batch_size": 8,
            "search.num_samples": 5,
            "search.candidates_per_step": 2,
            "search.population": 3,
            "search.tournament": 2,
            **overrides,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, images):
    """A finished random search, with a table of accuracies that has its second cell."""
    folder = tmp_path_factory.mktemp("darts")
    text = search_and_report(darts_config(images), folder / "first")
    cell = pd.read_csv(folder / "first/scores.csv")["arch"][1]
    (folder / "table.json").write_text(json.dumps({cell: 97.5}))
    config = darts_config(images, **{"benchmark.path": str(folder / "table.json")})
    assert search_and_report(config, folder / "first") != text
    return folder / "first"


def test_a_darts_search_leaves_the_files_of_every_search(finished):
    assert {path.name for path in finished.iterdir()} == {
        ".lock-0",
        "config.json",
        "report.html",
        "scores.csv",
        "steps-0.jsonl",
        "summary.json",
    }
    table = pd.read_csv(finished / "scores.csv")
    costs = ["params", "mflops", "live_params", "live_mflops"]
    counts = [*costs, "few_pools", "little_pooling", "wide_convs", "all_wide_convs", "mean_convs"]
    assert list(table) == ["arch", "score", *counts, "accuracy"]
    assert len(table) == table["arch"].nunique() == 5
    cells = np.array([parse_genotype(arch) for arch in table["arch"]])
    assert cells.shape == (5, NUM_EDGES)
    assert table["arch"].tolist() == [format_genotype(cell) for cell in cells]
    assert np.isfinite(table["score"]).all()
    assert table["accuracy"].notna().tolist() == [False, True, False, False, False]
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["best_arch"] == table["arch"][table["score"].idxmax()]
    assert summary["num_isomorphic_classes"] is None
    assert summary["num_scored"] == summary["num_networks"] == 5
    assert summary["num_degenerate"] == 0
    assert summary["sample_best_accuracy"] == 97.5
    assert summary["rank_correlation"]["num_cells"] == 1
    steps = [json.loads(line) for line in (finished / "steps-0.jsonl").read_bytes().splitlines()]
    assert sum(len(step["genotypes"]) for step in steps) == 5
    provenance = json.loads((finished / "config.json").read_text())
    assert provenance["config"]["space"] == {"name": "darts"}


def test_its_parameters_are_those_of_five_cells(finished):
    table = pd.read_csv(finished / "scores.csv")
    # One cell a stage, and the two reduction cells between the stages.
    network = DartsNetwork(2, 4, 5)
    for arch, params in zip(table["arch"], table["params"], strict=True):
        assert params == built_parameters(network, tuple(parse_genotype(arch).tolist()))


def test_its_report_draws_both_cells_of_the_best_genotype(finished):
    report = (finished / "report.html").read_text()
    best = json.loads((finished / "summary.json").read_text())["best_arch"]
    assert report.count('<svg class="cell"') == 2
    for title in ("The best cell: normal cell", "The best cell: reduction cell"):
        assert f"<h2>{title}</h2>" in report
    genotype = parse_genotype(best)
    # Eight edges a cell have an operation.
    assert np.count_nonzero(genotype) == 16
    # The command that repeats it.
    assert "--config.space.name=darts" in report


def test_evolution_runs_on_darts_and_goes_on(tmp_path, images):
    config = darts_config(images, **{"search.algorithm": "evolution"})
    text = search_and_report(config, tmp_path)
    table = pd.read_csv(tmp_path / "scores.csv")
    assert len(table) == table["arch"].nunique() == 5
    assert json.loads((tmp_path / "summary.json").read_text())["num_steps"] >= 2
    assert (tmp_path / "report.html").read_text().count('<svg class="cell"') == 2
    # After the first three every cell is a neighbour of one that was there before.
    cells = [parse_genotype(arch) for arch in table["arch"]]
    for index in range(3, 5):
        near = {tuple(cell) for earlier in cells[:index] for cell in neighbours(earlier)}
        assert tuple(cells[index]) in near
    again = search_and_report(config, tmp_path)
    assert again.startswith("This run had scored all its cells before")
    assert again.split("\n\n", 1)[1] == text


def test_a_search_within_limits_keeps_to_them(tmp_path, finished, images):
    params = pd.read_csv(finished / "scores.csv")["params"]
    most = int(params.median())
    config = darts_config(images, **{"search.max_params": most, "search.num_samples": 3})
    search_and_report(config, tmp_path)
    table = pd.read_csv(tmp_path / "scores.csv")
    assert len(table) == 3
    assert table["params"].max() <= most < params.max()


def test_the_best_cells_are_scored_again_at_the_full_setting(tmp_path, finished, images):
    # The full setting is that of the other searches.
    again = {"batch_size": 8, "channels": 4, "cells_per_stage": 1}
    config = darts_config(images, **{"data.batch_size": 6, "search.refine": 0.4})
    config.refine.update(again)
    search_and_report(config, tmp_path)
    table, full = (pd.read_csv(work / "scores.csv") for work in (tmp_path, finished))
    assert table["arch"].equals(full["arch"])
    best = table["search_score"].nlargest(2).index
    assert table["refined_score"].notna().sum() == 2
    np.testing.assert_allclose(table["refined_score"][best], full["score"][best], rtol=1e-3)
    assert set(table["score"].nlargest(2).index) == set(best)
    assert table["score"].idxmax() == table["refined_score"].idxmax()


def test_a_table_of_another_space_is_refused(tmp_path, images):
    path = tmp_path / "table.csv"
    path.write_text("arch,top1\n|nor_conv_3x3~0|,50\n")
    config = darts_config(images, **{"benchmark.path": str(path), "benchmark.column": "top1"})
    with pytest.raises(InputError, match=r"table\.csv: .*Genotype"):
        search_and_report(config, tmp_path / "work")
    assert not (tmp_path / "work").exists()
