import csv
import os
import re
import signal
import subprocess
import sys
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from epe_nas_jax import InputError, format_arch
from epe_nas_jax.commands import tables
from epe_nas_jax.data.score_files import with_accuracies
from epe_nas_jax.runs.stopping import StopRequested
from epe_nas_jax.search import paper_tables
from epe_nas_jax.spaces.nasbench201.genotype import decode
from epe_nas_jax.spaces.transnas_micro.space import TRANSNAS_MICRO

ROOT = Path(__file__).parents[2]
DATA = os.environ.get("EPE_NAS_JAX_DATA", "")
NUM_CELLS = 130


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Made scores of 130 cells, 10 without one; accuracies of 150; two published proxies of 60."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    archs = [format_arch(cell) for cell in np.asarray(decode(np.arange(0, 15_000, 100)))]
    accuracy = rng.uniform(60, 95, 150)
    benchmark = pd.DataFrame({"arch": archs, "cifar10_test_200": accuracy, "top1": accuracy / 2})
    benchmark["cifar10_xvalid_200"] = accuracy - 3
    scores = pd.DataFrame({"arch": archs, "score": accuracy + rng.normal(0, 5, 150), "params": 1.5})
    scores.loc[:9, "score"] = np.nan
    scores = scores[:NUM_CELLS].sample(frac=1, random_state=1)
    published = pd.DataFrame({"dataset": "CIFAR10", "arch": archs, "epe_nas": accuracy + 1})
    published["zen"] = -accuracy
    tables_by_name = {"benchmark": benchmark, "scores": scores, "published": published[5:65]}
    paths = {name: str(folder / f"{name}.csv") for name in tables_by_name}
    for name, table in tables_by_name.items():
        table.to_csv(paths[name], index=False)
    (folder / "summary.json").write_text('{"ms_per_cell": 250.0}')
    return paths | {"summary": str(folder / "summary.json")}


@pytest.fixture(scope="module")
def made(files, tmp_path_factory):
    """The tables of all files, as text, and the directory with the rest."""
    out = tmp_path_factory.mktemp("made") / "new/folder"
    text = tables.make_tables(
        [files["scores"]],
        files["benchmark"],
        published=files["published"],
        summary=files["summary"],
        num_searches=40,
        out=str(out),
    )
    return text, out


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def rows_of(rows, **wanted):
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def test_searches_stand_beside_published_random_and_best(made, files):
    _, out = made
    rows = read(out / "searches.csv")
    benchmark = pd.read_csv(files["benchmark"]).set_index("arch")
    scored = benchmark.loc[pd.read_csv(files["scores"])["arch"], "cifar10_test_200"]
    (random,) = rows_of(rows, method="a cell at random")
    assert float(random["test_mean"]) == pytest.approx(scored.mean())
    assert float(random["test_deviation"]) == pytest.approx(scored.std(ddof=0))
    (best,) = rows_of(rows, method="best of all scored")
    assert float(best["test_mean"]) == pytest.approx(scored.max())
    (best,) = rows_of(rows, method="best of the benchmark")
    assert float(best["test_mean"]) == pytest.approx(benchmark["cifar10_test_200"].max())
    published = rows_of(rows, method="EPE-NAS, published")
    assert [row["samples"] for row in published] == ["10", "100", "500", "1000"]
    assert [row["test_mean"] for row in published] == ["92.63", "91.59", "92.27", "91.31"]
    assert published[0]["seconds"] == "2.77"
    ours = rows_of(rows, method="EPE-NAS, ours")
    assert [row["samples"] for row in ours] == ["10", "100"]
    assert [float(row["seconds"]) for row in ours] == [2.5, 25]
    for row, best in zip(ours, rows_of(rows, method="best of the cells drawn"), strict=True):
        assert float(random["test_mean"]) < float(row["test_mean"]) < float(best["test_mean"])
        # Validation accuracies were made 3 points below test accuracies.
        assert float(row["validation_mean"]) == pytest.approx(float(row["test_mean"]) - 3)
        assert float(row["validation_deviation"]) == pytest.approx(float(row["test_deviation"]))


def test_a_search_among_all_cells_always_chooses_the_best_score(files):
    scores = pd.read_csv(files["scores"]).set_index("arch")[["score"]][:100]
    accuracies = pd.read_csv(files["benchmark"]).set_index("arch")["cifar10_test_200"]
    cells = with_accuracies("cifar10", scores, {"test": accuracies.to_dict()})
    rows = paper_tables.search_rows(cells, num_searches=20, seed=0)
    (_, row) = rows_of(rows, method="EPE-NAS, ours")
    assert row["test_mean"] == pytest.approx(accuracies[scores["score"].idxmax()])
    assert row["test_deviation"] == pytest.approx(0, abs=1e-9)
    assert "seconds" not in row


def test_a_space_without_published_searches_has_none_beside_its_own(tmp_path):
    texts = [TRANSNAS_MICRO.format(row) for row in TRANSNAS_MICRO.every()[1000:1012]]
    scores = pd.DataFrame({"arch": texts, "score": range(12)})
    scores.to_csv(tmp_path / "scores.csv", index=False)
    scores.rename(columns={"score": "best"}).to_csv(tmp_path / "table.csv", index=False)
    text = tables.make_tables(
        [f"cifar10={tmp_path / 'scores.csv'}"],
        str(tmp_path / "table.csv"),
        columns=["cifar10=best"],
        num_searches=20,
        space="transnas_micro",
    )
    assert "EPE-NAS, ours" in text
    assert "EPE-NAS, published" not in text


def test_the_best_of_the_cells_drawn_is_as_counting_gives_it(files, made):
    _, out = made
    scored = pd.read_csv(files["scores"])["arch"]
    accuracies = pd.read_csv(files["benchmark"]).set_index("arch").loc[scored, "cifar10_test_200"]
    for row in rows_of(read(out / "searches.csv"), method="best of the cells drawn"):
        n = int(row["samples"])
        # The k-th from below is the best drawn if the others drawn are among the k below it.
        chances = [comb(k, n - 1) / comb(NUM_CELLS, n) for k in range(NUM_CELLS)]
        mean = np.dot(chances, np.sort(accuracies))
        variance = np.dot(chances, (np.sort(accuracies) - mean) ** 2)
        # 5 standard errors of a mean of 40 searches.
        assert abs(float(row["test_mean"]) - mean) <= 5 * np.sqrt(variance / 40)


def test_correlations_are_scipys_on_the_cells_that_both_score(made, files):
    _, out = made
    rows = read(out / "correlations.csv")
    scores = pd.read_csv(files["scores"]).set_index("arch")["score"].dropna()
    accuracies = pd.read_csv(files["benchmark"]).set_index("arch")["cifar10_test_200"]
    published = pd.read_csv(files["published"]).set_index("arch")["epe_nas"]
    same = scores.index.intersection(published.index)
    for cells, proxy, values in (
        ("scored", "score", scores),
        ("in both", "score", scores[same]),
        ("in both", "epe_nas (published)", published[same]),
    ):
        (row,) = rows_of(rows, cells=cells, proxy=proxy)
        assert int(row["num_cells"]) == len(values)
        known = accuracies[values.index]
        for name, statistic in (("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
            for part, fraction in (("all", 1), ("top 20 %", 0.2), ("top 10 %", 0.1)):
                top = known.nlargest(int(np.ceil(fraction * len(known)))).index
                value = float(row[f"{name}.{part}.value"])
                assert value == pytest.approx(statistic(values[top], known[top]).statistic)
                low, high = (float(row[f"{name}.{part}.{end}"]) for end in ("low", "high"))
                assert low <= value <= high
    (row,) = rows_of(rows, cells="in both", proxy="epe_nas (published)")
    assert float(row["regret.10"]) == 0
    (row,) = rows_of(rows, cells="scored", proxy="params")
    assert row["spearman.all.value"] == ""
    assert {row["proxy"] for row in rows_of(rows, cells="in both")} == {
        *("score", "params", "epe_nas (published)", "zen (published)")
    }


def test_text_and_markdown_say_the_same(made):
    text, out = made
    lines = text.splitlines()
    (ours,) = [line for line in lines if line.startswith("EPE-NAS, ours") and " 100 " in line]
    (row,) = rows_of(read(out / "searches.csv"), method="EPE-NAS, ours", samples="100")
    for what in ("validation", "test"):
        mean, deviation = (float(row[f"{what}_{name}"]) for name in ("mean", "deviation"))
        assert f"{mean:.2f} ± {deviation:.2f}" in ours
    first = [line.split("  ")[0] for line in lines[3 : lines.index("", 3)]]
    assert first[0] == "a cell at random"
    assert first[-2:] == ["best of all scored", "best of the benchmark"]
    at = lines.index("Spearman of EPE-NAS with test accuracy, 95 % interval, on the same cells")
    assert re.split("  +", lines[at + 2])[1] == "cifar10, 55 cells"
    assert lines[at + 3].split()[:2] == ["published", "1.000"]
    assert lines[at + 4].startswith("ours")
    assert "N = 500, 1000 left out: more than the 130 cells scored." in text
    assert "10 without a score and never chosen" in text
    markdown = (out / "tables.md").read_text()
    (line,) = [line for line in markdown.splitlines() if line.startswith("| EPE-NAS, ours | 100")]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        cell.strip() for cell in re.split("  +", ours)
    ]


def test_plots_are_written(made):
    _, out = made
    for name in ("cifar10_accuracy.png", "cifar10_best_of_n.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_a_signal_stops_it_and_the_same_command_goes_on(files, tmp_path, monkeypatch):
    arguments = {"scores": [files["scores"]], "benchmark": files["benchmark"], "num_searches": 5}
    out = str(tmp_path / "out")
    make_row = paper_tables.correlation_row

    def interrupted(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return make_row(*args, **kwargs)

    monkeypatch.setattr(paper_tables, "correlation_row", interrupted)
    with pytest.raises(StopRequested, match="SIGTERM"):
        tables.make_tables(**arguments, out=out)
    monkeypatch.undo()
    assert {path.name for path in Path(out).iterdir()} == {"config.json", ".lock-0"}
    assert tables.make_tables(**arguments, out=out) == tables.make_tables(**arguments)
    assert (Path(out) / "tables.md").exists()


def test_tables_by_other_arguments_are_not_overwritten(files, tmp_path):
    arguments = {"scores": [files["scores"]], "benchmark": files["benchmark"]}
    out = str(tmp_path / "out")
    tables.make_tables(**arguments, num_searches=5, out=out)
    with pytest.raises(InputError, match=r"holds another run, config\.seed: found 0, expected 1"):
        tables.make_tables(**arguments, num_searches=5, seed=1, out=out)


def test_without_out_nothing_is_written(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = tables.make_tables([files["scores"]], files["benchmark"], num_searches=5)
    assert "seconds" in text  # The published rows have them.
    assert not list(tmp_path.iterdir())


def test_each_data_set_may_have_scores_of_its_own(files, tmp_path):
    other = tmp_path / "other.csv"
    scores = pd.read_csv(files["scores"])[:40]
    scores.to_csv(other, index=False)
    text = tables.make_tables(
        [files["scores"], f"mine={other}"],
        files["benchmark"],
        columns=["first=cifar10_test_200", "mine=top1,cifar10_xvalid_200"],
        published=files["published"],
        ms_per_cell=100,
        num_searches=5,
    )
    assert f"first: 130 cells of {files['scores']}" in text
    assert f"mine: 40 cells of {other}" in text
    assert f"mine: {files['published']} has no scores of it." in text
    assert "first test  mine validation" in text
    only = tables.make_tables(
        [f"mine={other}"],
        files["benchmark"],
        columns=["first=cifar10_test_200", "mine=top1"],
        num_searches=5,
    )
    assert "first" not in only


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": ["no.csv"]}, "no.csv: no such file"),
        ({"scores": ["a.csv", "b.csv"]}, "scores: found 'b.csv', after 'a.csv'"),
        ({"benchmark": "no.csv"}, "no.csv: no such file"),
        ({"columns": ["cifar10"]}, "columns: found 'cifar10', expected DATASET=TEST"),
        ({"columns": ["a=b,c,d"]}, "columns: found 'a=b,c,d'"),
        ({"columns": ["a=b,"]}, "columns: found 'a=b,'"),
        ({"columns": ["a=top5"]}, "expected a column 'top5'"),
        ({"columns": ["../evil=top1"]}, "columns: found data set '../evil', expected letters"),
        ({"columns": ["/tmp/x=top1"]}, "columns: found data set '/tmp/x', expected letters"),
        ({"columns": ["$\\frac{$=top1"]}, "columns: found data set"),
        ({"columns": ["=top1"]}, "columns: found data set ''"),
        ({"columns": ["a=top1", "a=other"]}, "columns: found data set 'a' twice"),
        ({"ms_per_cell": float("nan")}, "ms_per_cell: found nan, expected at least 0"),
        ({"ms_per_cell": -1.0}, "ms_per_cell: found -1.0, expected at least 0"),
        ({"ms_per_cell": 1.0, "summary": "x"}, "ms_per_cell: found it beside a summary"),
        ({"published": "no.csv"}, "no.csv: no such file"),
        ({"summary": "no.json"}, "no.json: no such file, expected a run's summary"),
    ],
)
def test_bad_arguments_are_refused_and_leave_nothing(files, tmp_path, changes, message):
    arguments = {
        "scores": [files["scores"]],
        "benchmark": files["benchmark"],
        "num_searches": 3,
        "out": str(tmp_path / "out"),
    }
    with pytest.raises(InputError, match=message):
        tables.make_tables(**(arguments | changes))
    assert not (tmp_path / "out").exists()


def test_a_benchmark_of_other_columns_needs_their_names(files, tmp_path):
    table = tmp_path / "mine.csv"
    pd.read_csv(files["benchmark"])[["arch", "top1"]].to_csv(table, index=False)
    with pytest.raises(InputError, match=r"found none of the columns .* --columns"):
        tables.make_tables([files["scores"]], str(table))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_known_columns_are_found_in_tables_as_they_come(files, tmp_path, form):
    benchmark = pd.read_csv(files["benchmark"])
    table = tmp_path / f"mine.{form}"
    others = benchmark.rename(columns=str.upper)
    if form == "csv":
        others.to_csv(table, index=False, sep=";", decimal=",", encoding="utf-16")
    else:
        others.to_json(table, orient="records", lines=True, double_precision=15)
    made, expected = (
        tables.make_tables([files["scores"]], path, num_searches=5)
        for path in (str(table), files["benchmark"])
    )
    assert made == expected


def command(module, *arguments):
    return subprocess.run(
        [sys.executable, *module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_the_command_prints_the_tables_or_one_line(files):
    module = ("-m", "epe_nas_jax.tables")
    flags = (f"--scores=cifar10={files['scores']}", f"--benchmark={files['benchmark']}")
    done = command(module, *flags, "--num_searches=4", "--ms_per_cell=7")
    assert done.returncode == 0, done.stderr
    assert "of 4 random searches" in done.stdout
    for bad in (["--scores=no.csv", flags[1]], [*flags, "extra"], [flags[0]]):
        failed = command(module, *bad)
        assert failed.returncode == 2
        assert failed.stdout == ""
        assert len(failed.stderr.splitlines()) == 1
        assert failed.stderr.startswith("error: ")


def test_agreement_of_files_of_the_same_cells(files, tmp_path):
    scores = pd.read_csv(files["scores"])
    paths = [str(tmp_path / f"{name}.csv") for name in ("a", "b")]
    scores.to_csv(paths[0], index=False)
    scores.assign(score=-scores["score"])[20:].to_csv(paths[1], index=False)
    flags = (f"--benchmark={files['benchmark']}", "--column=top1")
    done = command(("-m", "experiments.agreement"), *flags, *paths)
    assert done.returncode == 0, done.stderr
    title, _, header, _, first, second = done.stdout.strip().splitlines()
    common = scores[20:].dropna()
    assert f"{len(common)} cells" in title
    assert header.split(" | ")[1:] == ["b.csv", "accuracy |"]
    assert "-1.000 [-1.000, -1.000]" in first
    accuracies = pd.read_csv(files["benchmark"]).set_index("arch")["top1"]
    rho = stats.spearmanr(common["score"], accuracies[common["arch"]]).statistic
    assert f"{rho:.3f} [" in first
    assert f"{-rho:.3f} [" in second


@pytest.mark.skipif(not DATA, reason="EPE_NAS_JAX_DATA does not name a folder of published tables")
def test_published_scores_correlate_as_published(tmp_path):
    published = pd.read_csv(Path(DATA) / "nasbench201_zc_9445.csv.gz")
    for dataset, name in (("cifar10", "cifar10"), ("ImageNet16-120", "imagenet16_120")):
        rows = published[published["dataset"] == dataset]
        path = tmp_path / f"{name}.csv"
        rows[["arch", "epe_nas"]].rename(columns={"epe_nas": "score"}).to_csv(path, index=False)
    tables.make_tables(
        [f"{name}={tmp_path}/{name}.csv" for name in ("cifar10", "imagenet16_120")],
        str(Path(DATA) / "nasbench201.csv.gz"),
        num_searches=20,
        out=str(tmp_path / "out"),
    )
    rows = read(tmp_path / "out/correlations.csv")
    # The figures of the tables' own description, to its 3 digits.
    assert [round(float(row["spearman.all.value"]), 3) for row in rows] == [0.772, 0.321]
    (best,) = {
        row["test_mean"]
        for row in rows_of(
            read(tmp_path / "out/searches.csv"), dataset="cifar10", method="best of the benchmark"
        )
    }
    assert round(float(best), 2) == 94.37


def test_an_unknown_data_set_is_named_before_anything_is_read(files):
    with pytest.raises(InputError, match="scores: found data set 'imagenet', expected one of cif"):
        tables.make_tables(["imagenet=scores.csv"], files["benchmark"])
