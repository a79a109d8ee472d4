import json

import numpy as np
import pytest
from pages import HOSTILE, Elements, make_search_page, ranks_of, table_below

from epe_nas_jax.reports import search_page
from epe_nas_jax.reports.text import number
from epe_nas_jax.spaces.darts.space import DARTS

BEST_RANKING = ("jacob_cov", "nwot", "grad_entropy", "grad_decay", "live_params")


def test_the_headline_says_what_was_found():
    text, summary, accuracies = make_search_page()
    shown = Elements(text).text
    assert f"{summary['best_score']:,.1f}" in shown
    assert summary["best_arch"] in shown
    assert f"{summary['best_accuracy']:.2f} %" in shown
    rank = 1 + sum(accuracy > summary["best_accuracy"] for accuracy in accuracies)
    assert f"{rank}rank by accuracy among" in shown
    assert "57 cells with score and accuracy" in shown
    assert "Spearman 0.123 (95 % interval -0.100 to 0.400), Kendall undefined" in shown
    assert "57 cells with a score, 3 without" in shown
    for word in ("12.2 s", "3.5 s", "204.2 ms", "53", "ab" * 32, "7 (7 images)"):
        assert word in shown


def test_without_a_benchmark_there_is_no_accuracy():
    text, _, _ = make_search_page(benchmark=False)
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
        ranks=None,
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
    assert "0 cells with a score, 4 without" in shown


def test_strings_from_outside_stay_strings():
    text, _, _ = make_search_page(name=HOSTILE, path=HOSTILE)
    elements = Elements(text)
    assert {tag for tag, _ in elements.found}.isdisjoint({"script", "iframe", "object"})
    assert not [attrs for _, attrs in elements.found if "onerror" in attrs]
    assert elements.text.count(HOSTILE) >= 4
    assert json.dumps(HOSTILE) in elements.text
    # As an argument of the command, it is quoted for the shell.
    assert "'--config.data.path=\"><script>" in elements.text


def test_the_page_needs_nothing_from_elsewhere():
    text, _, _ = make_search_page()
    elements = Elements(text).found
    for _, attrs in elements:
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:"))
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")
    identifiers = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))


def test_cells_on_the_front_are_named_in_the_plot_of_their_cost():
    text, summary, _ = make_search_page()
    front = summary["pareto_front"]["params"]
    assert "Score and parameters" in Elements(text).text
    assert "Score and ms a forward pass" not in text
    for cell in front:
        assert f"<title>{cell['arch']}: {number(cell['params'])} parameters, score " in text
    assert f"the Pareto front of {len(front)} cells" in Elements(text).text


def test_the_page_of_the_whole_space_stays_small():
    text, _, _ = make_search_page(num_cells=14_000, num_classes=120)
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
    text, _, _ = make_search_page(objective=objective, combine=combine, benchmark=benchmark)
    assert f"<title>{title}</title>" in text
    assert f"<h1>{title}</h1>" in text
    shown = " ".join(Elements(text).text.split())
    is_epe = objective == ("epe",)
    # On the axes of the histogram, of the front and, with accuracies, of the scatter plot.
    first = "<h2>Score against accuracy</h2>" if benchmark else "<h2>Scores</h2>"
    plots = " ".join(Elements(text.split(first)[1].split("Time and origin")[0]).text.split())
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
    shown = " ".join(Elements(make_search_page(objective=objective, stages=stages)[0]).text.split())
    again = "6 cells, 5 different networks, scored again at the full setting and put first"
    assert f"{again}; 2.5 s searching, 9.8 s scoring again" in shown
    plots = shown.split("Score against accuracy")[1].split("Time and origin")[0]
    # On the axes of the scatter plot and of the front.
    assert plots.count("rank (1: best), cells scored again first") == 2
    for word in ("EPE-NAS score", "sum of log ranks", "|e_c|", "Classes", "cells with a score"):
        assert word not in plots


def test_the_page_says_why_cells_are_first():
    text, _, _ = make_search_page(objective=("nwot", "params"), combine="rank_sum")
    ranks = ranks_of(range(5), 2, 57).ranks.astype(int).astype(str)
    assert table_below(text, "Why these are first") == [
        ["rank by score", *"12345"],
        ["by nwot", *ranks[:, 0]],
        ["by params", *ranks[:, 1]],
    ]
    shown = " ".join(Elements(text).text.split())
    assert "alone, among the 57 different cells with a score; rank 1 has the largest" in shown
    assert "The score is the sum of ranks, for which ranks are counted the other way round" in shown
    assert "was not scored again" not in shown
    assert "Why these are first" not in make_search_page()[0]


def test_a_cell_that_was_not_scored_again_has_no_ranks():
    stages = {
        "search": {"num_cells": 60, "num_networks": 53, "seconds": 2.5},
        "refine": {"num_cells": 3, "num_networks": 3, "seconds": 9.75},
    }
    text, _, _ = make_search_page(objective=BEST_RANKING, stages=stages)
    _, *rows = table_below(text, "Why these are first")
    assert len(rows) == 5
    for row in rows:
        assert all(row[:4])
        assert row[4:] == ["", ""]
    shown = " ".join(Elements(text).text.split())
    assert "among the 3 different cells that were scored again, at the full setting" in shown
    assert "These cells are in the order of the sum of log ranks" in shown
    assert "A cell without ranks was not scored again" in shown


def test_scores_that_differ_by_little_read_differently():
    text, summary, _ = make_search_page(objective=BEST_RANKING, scale=-0.01)
    assert -0.1 < summary["best_score"] < 0
    assert f"<dd>{summary['best_score']:#.6g}</dd><dt>score</dt>" in text
    table = text.split('<div class="ranking">')[1].split("</table>")[0]
    scores = [row.split("</td>")[1].removeprefix("<td>") for row in table.split("<tr>")[2:]]
    assert len(set(scores)) == 5
    assert sorted(scores, key=float, reverse=True) == scores
    assert all(len(score.lstrip("-0.")) == 6 for score in scores)


def test_both_cells_of_darts_are_on_the_page():
    text, summary, _ = make_search_page(num_cells=12, space=DARTS)
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
    text, _, _ = make_search_page(name="cifar10", path="some folder")
    shown = Elements(text).text
    lines = [line.strip() for line in shown.split("To repeat it")[1].split("\n")[:6]]
    assert lines[0] == "epe-nas search --config=base --workdir=again \\"
    assert "'--config.data.path=some folder' \\" in lines
    assert "--config.compare" not in shown
