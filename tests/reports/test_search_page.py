import json
import shutil
import subprocess

import jax
import numpy as np
import pytest
from pages import HOSTILE, Elements

from epe_nas_jax.reports import search_page
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.nasbench201.genotype import decode
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

CHROMIUM = shutil.which("chromium")
BEST_RANKING = ("jacob_cov", "nwot", "grad_entropy", "grad_decay", "live_params")


def make_page(
    num_cells=60,
    num_classes=10,
    *,
    benchmark=True,
    name="digits",
    path="",
    objective=("epe",),
    combine="log_rank_sum",
    scale=3_000,
    space=NASBENCH201,
    stages=None,
):
    """The page of a made run, and what it was made of."""
    rng = np.random.default_rng(0)
    scores = scale * rng.normal(20_000 / 3_000, 1, num_cells)
    scores[::20] = np.nan
    accuracies = rng.uniform(40, 95, num_cells)
    if space is NASBENCH201:
        cells = np.asarray(decode(np.arange(1000, 1000 + num_cells)))
    else:
        cells = np.asarray(space.sample(jax.random.key(0), num_cells))
    archs = [space.format(cell) for cell in cells]
    order = np.argsort(-scores)[:5]
    correlation = {"value": 0.123, "low": -0.1, "high": 0.4}
    summary = {
        "best_arch": archs[order[0]],
        "best_score": float(scores[order[0]]),
        "num_scored": num_cells,
        "num_networks": num_cells - 7,
        "num_degenerate": int(np.isnan(scores).sum()),
        "seconds": 12.25,
        "compile_seconds": 3.5,
        "ms_per_cell": 204.2,
        "device": name,
        **({"stages": stages} if stages else {}),
    }
    params = rng.permutation(num_cells) + 1.0
    summary["pareto_front"] = {
        "params": [
            {"arch": archs[i], "score": float(scores[i]), "params": int(params[i])}
            for i in sorted(order[:2], key=lambda i: params[i])
        ]
    }
    best = [{"arch": archs[i], "score": float(scores[i])} for i in order]
    if benchmark:
        summary["best_accuracy"] = float(accuracies[order[0]])
        summary["rank_correlation"] = {
            "num_cells": num_cells - summary["num_degenerate"],
            "spearman": correlation,
            "kendall": None,
        }
        for cell, i in zip(best, order, strict=True):
            cell["accuracy"] = float(accuracies[i])
    config = {
        "seed": 3,
        "data": {"name": name, "path": path},
        "score": {"objective": list(objective), "combine": combine},
        "compare": {"num_cells": 9},
    }
    text = search_page.run_page(
        summary=summary,
        provenance={"config": config, "versions": {"jax": name}, "minibatch_sha256": "ab" * 32},
        best=best,
        graphs=space.graphs(cells[order[0]]),
        objective=objective,
        scores=scores,
        costs={"params": params},
        accuracies=accuracies if benchmark else None,
        benchmark_accuracies=accuracies if benchmark else None,
        class_scores=-rng.uniform(1, 9, num_classes),
        class_sizes=np.arange(num_classes),
    )
    return text, summary, accuracies


def test_the_headline_says_what_was_found():
    text, summary, accuracies = make_page()
    shown = Elements(text).text
    assert f"{summary['best_score']:,.1f}" in shown
    assert summary["best_arch"] in shown
    assert f"{summary['best_accuracy']:.2f} %" in shown
    rank = 1 + sum(accuracy > summary["best_accuracy"] for accuracy in accuracies)
    assert f"rank {rank}" in shown
    assert "57 cells with both" in shown
    assert "Spearman 0.123 (95 % interval -0.100 to 0.400), Kendall undefined" in shown
    assert "57 cells with a score; 3 degenerate ones" in shown
    for word in ("12.2 s", "3.5 s", "204.2 ms", "53", "ab" * 32, "7 (7 images)"):
        assert word in shown


def test_without_a_benchmark_there_is_no_accuracy():
    text, _, _ = make_page(benchmark=False)
    assert "accuracy" not in Elements(text).text


def test_a_run_in_which_no_cell_has_a_score_has_a_page():
    scores = np.full(4, np.nan)
    text = search_page.run_page(
        summary={
            **dict.fromkeys(("best_arch", "best_score", "best_accuracy")),
            **dict.fromkeys(("num_scored", "num_networks", "num_degenerate"), 4),
            **dict.fromkeys(("seconds", "compile_seconds", "ms_per_cell"), 1.0),
            "device": "CPU",
            "rank_correlation": {"num_cells": 0, "spearman": None, "kendall": None},
            "pareto_front": {"params": []},
        },
        provenance={
            "config": {"seed": 0, "data": {"name": "x"}},
            "versions": {},
            "minibatch_sha256": "",
        },
        best=[],
        graphs=(),
        objective=("epe",),
        scores=scores,
        costs={"params": np.ones(4)},
        accuracies=scores,
        benchmark_accuracies=np.array([5.0]),
        class_scores=None,
        class_sizes=None,
    )
    shown = Elements(text).text
    assert "No cell has a score." in shown
    assert "0 cells with a score; 4 degenerate" in shown


def test_strings_from_outside_stay_strings():
    text, _, _ = make_page(name=HOSTILE, path=HOSTILE)
    elements = Elements(text)
    assert {tag for tag, _ in elements.found}.isdisjoint({"script", "iframe", "object"})
    assert not [attrs for _, attrs in elements.found if "onerror" in attrs]
    assert elements.text.count(HOSTILE) >= 4
    assert json.dumps(HOSTILE) in elements.text
    # As an argument of the command, it is quoted for the shell.
    assert "'--config.data.path=\"><script>" in elements.text


def test_the_page_needs_nothing_from_elsewhere():
    text, _, _ = make_page()
    elements = Elements(text).found
    for _, attrs in elements:
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:"))
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")
    identifiers = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))


def test_cells_on_the_front_are_named_in_the_plot_of_their_cost():
    text, summary, _ = make_page()
    front = summary["pareto_front"]["params"]
    assert "Score and parameters" in Elements(text).text
    assert "Score and ms a forward pass" not in text
    for cell in front:
        assert f"<title>{cell['arch']}: {cell['params']} parameters, score " in text
    assert f"{len(front)} cells on the line" in Elements(text).text


def test_the_page_of_the_whole_space_stays_small():
    text, _, _ = make_page(num_cells=14_000, num_classes=120)
    assert len(text.encode()) < 2_000_000


@pytest.mark.parametrize("benchmark", [False, True])
@pytest.mark.parametrize(
    ("objective", "combine", "title", "label"),
    [
        (("epe",), "log_rank_sum", "EPE-NAS on digits", "EPE-NAS score"),
        (("nwot",), "log_rank_sum", "Search on digits by nwot", "nwot"),
        (
            ("epe_two_branch",),
            "log_rank_sum",
            "Search on digits by epe_two_branch",
            "epe_two_branch",
        ),
        (
            ("epe", "params"),
            "rank_sum",
            "Search on digits by epe, params",
            "score: sum of ranks of epe, params",
        ),
        (
            BEST_RANKING,
            "log_rank_sum",
            "Search on digits by jacob_cov, nwot, grad_entropy, grad_decay, live_params",
            "score: sum of log ranks of jacob_cov, nwot, grad_entropy, grad_decay, live_params",
        ),
        (
            ("nwot", "snip"),
            "a_new_one",
            "Search on digits by nwot, snip",
            "score: a_new_one of nwot, snip",
        ),
    ],
)
def test_the_score_is_called_what_it_is(objective, combine, title, label, benchmark):
    text, _, _ = make_page(objective=objective, combine=combine, benchmark=benchmark)
    assert f"<title>{title}</title>" in text
    assert f"<h1>{title}</h1>" in text
    shown = " ".join(Elements(text).text.split())
    is_epe = objective == ("epe",)
    # On the axes of the histogram, of the front and, with accuracies, of the scatter plot.
    plots = shown.split("The best cells by score")[1].split("Time and origin")[0]
    assert plots.count(label) == (3 if benchmark else 2)
    assert ("EPE" in shown) == is_epe
    assert ("|e_c|" in shown) == is_epe
    assert ("Classes of the best cell" in shown) == is_epe
    assert ("Ranks are those among the cells of this search." in shown) == (len(objective) > 1)


@pytest.mark.parametrize("objective", [("epe",), BEST_RANKING])
def test_a_page_of_cells_scored_again_shows_ranks_and_no_class_scores(objective):
    stages = {
        "search": {"num_cells": 60, "num_networks": 53, "seconds": 2.5},
        "refine": {"num_cells": 6, "num_networks": 5, "seconds": 9.75},
    }
    shown = " ".join(Elements(make_page(objective=objective, stages=stages)[0]).text.split())
    again = "6 cells, 5 different networks, scored again at the full setting and put first"
    assert f"{again}; 2.5 s searching, 9.8 s scoring again" in shown
    plots = shown.split("The best cells by score")[1].split("Time and origin")[0]
    # On the axes of the scatter plot and of the front.
    assert plots.count("rank, cells scored again first") == 2
    for word in ("EPE-NAS score", "sum of log ranks", "|e_c|", "Classes", "cells with a score"):
        assert word not in plots


def test_scores_that_differ_by_little_read_differently():
    text, summary, _ = make_page(objective=BEST_RANKING, scale=-0.01)
    assert -0.1 < summary["best_score"] < 0
    assert f"<dd>{summary['best_score']:#.6g}</dd><dt>score</dt>" in text
    table = text.split('<div class="ranking">')[1].split("</table>")[0]
    scores = [row.split("</td>")[1].removeprefix("<td>") for row in table.split("<tr>")[2:]]
    assert len(set(scores)) == 5
    assert sorted(scores, key=float, reverse=True) == scores
    assert all(len(score.lstrip("-0.")) == 6 for score in scores)


def test_both_cells_of_darts_are_on_the_page():
    text, summary, _ = make_page(num_cells=12, space=DARTS)
    elements = Elements(text)
    drawings = [attrs for tag, attrs in elements.found if attrs.get("class") == "cell"]
    assert [attrs["aria-label"] for attrs in drawings] == [
        f"The {which} cell of {summary['best_arch']} as a graph"
        for which in ("normal", "reduction")
    ]
    assert "The best cell: normal cell" in elements.text
    assert "The best cell: reduction cell" in elements.text
    assert summary["best_arch"] in elements.text
    identifiers = [attrs["id"] for _, attrs in elements.found if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))


def test_the_command_is_that_of_a_search():
    text, _, _ = make_page(name="cifar10", path="some folder")
    shown = Elements(text).text
    lines = [line.strip() for line in shown.split("To repeat it")[1].split("\n")[:6]]
    assert lines[0] == "epe-nas search --config=base --workdir=again \\"
    assert "'--config.data.path=some folder' \\" in lines
    assert "--config.compare" not in shown


def chromium(*arguments, profile):
    return subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--enable-logging=stderr", "--allow-file-access-from-files"),
            *(f"--user-data-dir={profile}", "--virtual-time-budget=5000"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def measure(folder, name, width):
    """What a browser makes of a page in a window of this width, and what its console says."""
    frame = folder / f"frame_{width}.html"
    frame.write_text(
        f"""<iframe src="{name}" width="{width}" height="900" style="border: 0"></iframe><pre></pre>
        <script>onload = () => {{
          const page = document.querySelector("iframe").contentDocument;
          const boxes = [...page.querySelectorAll("figure svg, .facts div")]
            .map(element => element.getBoundingClientRect());
          document.querySelector("pre").textContent = JSON.stringify({{
            window: page.documentElement.clientWidth,
            content: page.documentElement.scrollWidth,
            right: Math.max(...boxes.map(box => box.right)),
            smallest: Math.min(...boxes.map(box => Math.min(box.width, box.height))),
            figures: page.querySelectorAll("figure > svg, figure > div > svg").length,
          }});
        }};</script>"""
    )
    done = chromium(
        "--dump-dom", "--window-size=1400,1000", frame.as_uri(), profile=folder / "profile"
    )
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return json.loads(done.stdout.split("<pre>")[1].split("</pre>")[0]), console


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium to open the page in")
def test_a_browser_shows_a_page_of_darts_at_both_widths(tmp_path):
    page = make_page(space=DARTS, objective=BEST_RANKING)[0]
    (tmp_path / "page.html").write_text(page)
    for width in (390, 1280):
        seen, console = measure(tmp_path, "page.html", width)
        assert console == []
        # Two cells and four plots: there are no classes.
        assert seen["figures"] == 6
        assert seen["content"] <= seen["window"] <= width
        assert seen["right"] <= seen["window"]
        assert seen["smallest"] > 20


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium to open the page in")
def test_a_browser_shows_the_page_at_both_widths(tmp_path):
    (tmp_path / "page.html").write_text(make_page(num_cells=600, name=HOSTILE, path="a/" * 200)[0])
    for width in (390, 1280):
        seen, console = measure(tmp_path, "page.html", width)
        assert console == []
        assert seen["figures"] == 6
        assert seen["content"] <= seen["window"] <= width
        assert seen["right"] <= seen["window"]
        assert seen["smallest"] > 20
    # What is asked of the page can fail: this one is too wide, and its console complains.
    text = make_page()[0].replace("</main>", '<p style="width: 2000px"><img src="x.png"></main>')
    (tmp_path / "bad.html").write_text(text)
    seen, console = measure(tmp_path, "bad.html", 390)
    assert seen["content"] > seen["window"]
    assert len(console) == 1
