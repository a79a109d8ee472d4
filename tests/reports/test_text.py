import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epe_nas_jax.reports import text

SEARCH = {
    "num_scored": 100,
    "num_networks": 88,
    "num_degenerate": 5,
    "seconds": 32.46,
    "compile_seconds": 13.32,
    "ms_per_cell": 324.6,
    "device": "CPU, 2 cores",
}
ACCURACIES = {
    "best_accuracy": 91.234,
    "sample_best_accuracy": 94.0,
    "rank_correlation": {
        "num_cells": 95,
        "spearman": {"value": 0.5, "low": 0.25, "high": 0.75},
        "kendall": None,
    },
}
TRAINING = {
    "arch": "CELL",
    "epochs": 12,
    "seeds": [3, 4],
    "num_train_images": 50_000,
    "held_out": "test",
    "num_held_out_images": 10_000,
    "train_accuracy": [99.0, 98.5],
    "accuracy": [91.0, 92.0],
    "mean_accuracy": 91.5,
    "std_accuracy": 0.707,
    "table_accuracy": 93.5,
    "train_seconds": 1234.5,
    "images_per_second": 567.8,
    "device": "CPU, 2 cores",
}
COMPARISON = {
    "num_cells": 2,
    "num_degenerate": 1,
    "num_scored_on_one_side_only": 0,
    "logits_error": {"worst": 2e-6, "median": 1e-6},
    "jacobian_error": {"worst": 3e-5, "median": 2e-5},
    "score_error": {"worst": 4e-4, "median": None},
    "spearman": None,
    "same_best": False,
    "best_arch": "FIRST",
    "pytorch_best_arch": "SECOND",
    "seconds_per_cell": {
        "ours": 0.25,
        "pytorch_as_released": 1.5,
        "pytorch_at_its_best": 0.75,
    },
    "times_ours": {"pytorch_as_released": 6.0, "pytorch_at_its_best": 3.0},
    "compile_seconds": 13.32,
    "batch_size": 256,
    "dtype": "float32",
    "device": "CPU, 2 cores",
    "pytorch_network": "xautodl",
    "pytorch_threads": 2,
}
CELLS = [
    {
        **{"arch": "FIRST", "score": 26228.14, "pytorch_score": 26228.04, "score_error": 4e-6},
        **{"logits_error": 1e-6, "jacobian_error": 2e-5},
        **{"seconds": 0.25, "pytorch_seconds": 1.5, "pytorch_best_seconds": 0.75},
    },
    {
        **{"arch": "SECOND", "score": None, "pytorch_score": None, "score_error": None},
        **{"logits_error": 1e-6, "jacobian_error": 2e-5},
        **{"seconds": 0.25, "pytorch_seconds": 1.5, "pytorch_best_seconds": 0.75},
    },
]


def test_a_search_is_printed():
    best = [{"arch": "FIRST", "score": 26228.14}, {"arch": "SECOND", "score": 26104.98}]
    assert text.result_table(SEARCH, best) == (
        "rank       score  cell\n"
        "   1     26228.1  FIRST\n"
        "   2     26105.0  SECOND\n"
        "\n"
        "scored      100 cells, 88 different networks; 5 cells without a score (most have no "
        "path from input to output)\n"
        "time        13.3 s compiling, 32.5 s scoring, 324.6 ms a cell\n"
        "device      CPU, 2 cores"
    )
    assert text.result_table(SEARCH, []).splitlines()[1] == "no cell has a score"


def test_a_search_whose_best_cells_were_scored_again_says_so_in_a_line():
    stages = {
        "search": {"num_cells": 100, "num_networks": 88, "seconds": 1.25},
        "refine": {"num_cells": 10, "num_networks": 9, "seconds": 31.04},
    }
    lines = text.result_table(SEARCH | {"stages": stages}, []).splitlines()
    expected = (
        "refined     10 cells, 9 different networks, scored again at the full setting and put "
        "first; 1.2 s searching, 31.0 s scoring again"
    )
    assert [line for line in lines if line not in text.result_table(SEARCH, [])] == [expected]


def test_a_search_with_a_benchmark_is_printed():
    best = [
        {"arch": "FIRST", "score": 26228.14, "accuracy": 91.234},
        {"arch": "SECOND", "score": 26104.98, "accuracy": None},
    ]
    lines = text.result_table(SEARCH | ACCURACIES, best).splitlines()
    assert lines[:3] == [
        "rank       score  accuracy  cell",
        "   1     26228.1     91.23  FIRST",
        "   2     26105.0   unknown  SECOND",
    ]
    assert lines[-3:] == [
        "accuracy    91.23 % for the chosen cell, 94.00 % for the best in the sample",
        "spearman    0.500, 95 % interval 0.250 to 0.750 (95 cells)",
        "kendall     undefined on this sample (95 cells)",
    ]


@pytest.mark.parametrize(
    "scores", [[-1.2, -1.21, -1.3], [0.00123, 0.00122, 0.0], [1.5e6, 1.4e6, 3.0]]
)
def test_scores_that_differ_print_differently(scores):
    best = [{"arch": "CELL", "score": score} for score in scores]
    shown = [line.split()[1] for line in text.result_table(SEARCH, best).splitlines()[1:4]]
    assert len(set(shown)) == 3
    assert [float(number) for number in shown] == scores


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=6))
def test_scores_are_told_apart_by_as_few_digits_as_do_it(scores):
    shown = text.scores_apart(scores)
    for one, as_text in zip(scores, shown, strict=True):
        for other, as_other in zip(scores, shown, strict=True):
            assert as_text == as_other or one != other or one == 0
            assert as_text != as_other or one == other
    # A number without digits behind its point has none.
    six = [f"{score:#.6g}".removesuffix(".") for score in scores]
    assert shown == six or len(set(six)) < len(set(scores))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([-1.2034561, -1.2034562], ["-1.2034561", "-1.2034562"]),
        ([26228.14, 26104.98], ["26,228.1", "26,105.0"]),
        ([100000.0], ["100,000"]),
        ([9234567.0, 9234568.0], ["9,234,567", "9,234,568"]),
        ([1234.56789, 1234.56788, 1.0], ["1,234.56789", "1,234.56788", "1.00000000"]),
        ([2.5, 2.5], ["2.50000", "2.50000"]),
    ],
)
def test_close_scores_have_more_digits(scores, expected):
    assert text.scores_apart(scores, ",") == expected


def test_a_column_of_scores_is_as_wide_as_they_are():
    scores = [-1.2034561234, -1.2034561235]
    head, *lines = text.result_table(
        SEARCH, [{"arch": "CELL", "score": score} for score in scores]
    ).splitlines()[:3]
    assert [line.split()[1] for line in lines] == ["-1.203456123", "-1.203456124"]
    assert {line.index("CELL") for line in lines} == {head.index("cell")}


def test_a_training_is_printed():
    assert text.training_table(TRAINING) == (
        "seed    train accuracy      accuracy\n"
        "   3             99.00         91.00\n"
        "   4             98.50         92.00\n"
        "\n"
        "cell        CELL\n"
        "trained     12 epochs on 50000 images, 568 images a second, 1234 s\n"
        "accuracy    91.50 % on 10000 test images, standard deviation 0.71 between seeds\n"
        "table       93.50 %\n"
        "device      CPU, 2 cores"
    )


def test_a_training_without_a_test_split_is_printed():
    unknown = {"held_out": None, "table_accuracy": None}
    summary = {name: value for name, value in TRAINING.items() if "ccuracy" not in name}
    lines = text.training_table(summary | unknown | {"train_accuracy": [99, 98]}).splitlines()
    assert lines[:2] == ["seed    train accuracy", "   3             99.00"]
    assert lines[-2:] == [
        "accuracy    no test accuracy: the data set has no test split",
        "device      CPU, 2 cores",
    ]


def test_a_comparison_is_printed():
    assert text.comparison_table(COMPARISON, CELLS).splitlines() == [
        "    score by      |     relative error of      |        seconds of        |",
        "    ours  PyTorch |   logits Jacobian    score |    ours released    best | cell",
        " 26228.1  26228.0 |  1.0e-06  2.0e-05  4.0e-06 |   0.250    1.500   0.750 | FIRST",
        "    none     none |  1.0e-06  2.0e-05        - |   0.250    1.500   0.750 | SECOND",
        "",
        "error           logits  Jacobian     score",
        "worst          2.0e-06   3.0e-05   4.0e-04",
        "median         1.0e-06   2.0e-05         -",
        "",
        "cells       2 in float32 on 256 images, of which 1 without a score on both sides and 0 on "
        "one side only",
        "Spearman    undefined",
        "best cell   not the same: FIRST, by PyTorch SECOND",
        "ours        0.250 s a cell from genotype to score, after 13.3 s compiling",
        "PyTorch     1.500 s a cell as released (all gradients), 6.00 x ours",
        "            0.750 s a cell at its best (input gradient only, channels last), 3.00 x ours",
        "            forward and backward pass alone, 2 threads, network of xautodl",
        "device      CPU, 2 cores",
    ]
    same = COMPARISON | {"same_best": True, "spearman": 0.99}
    lines = text.comparison_table(same, CELLS).splitlines()
    assert lines[10:12] == ["Spearman    0.990000", "best cell   the same: FIRST"]


def test_a_table_reads_the_same_as_text_and_as_markdown():
    table = text.Table("Title", ["what", "N"], [["a|b", "1"], ["c", "1000"]])
    assert text.as_text(table) == "Title\n\nwhat     N\na|b      1\nc     1000"
    assert text.as_markdown(table) == (
        "**Title**\n\n| what | N |\n| --- | ---: |\n| a\\|b | 1 |\n| c | 1000 |"
    )


def test_a_name_is_no_html_in_markdown():
    table = text.Table("Title", ["what"], [["<script>&"]])
    assert text.as_markdown(table).endswith("| &lt;script&gt;&amp; |")


def test_an_interval_has_its_digits():
    correlation = {"value": 0.51234, "low": -0.1, "high": 1.0}
    assert text.interval(correlation) == "0.512 [-0.100, 1.000]"
    assert text.interval(correlation, digits=1) == "0.5 [-0.1, 1.0]"
    assert text.interval(None) == "-"


def test_simulated_searches_are_in_order_of_their_length():
    rows = [
        {"dataset": "x", "method": "a cell at random", "samples": None, "test_mean": 50.0},
        {
            **{"dataset": "x", "method": "ours", "samples": 100, "seconds": 2.0},
            **{"test_mean": 91.0, "test_deviation": 0.5},
        },
        {"dataset": "x", "method": "ours", "samples": 10, "test_mean": math.nan},
        {"dataset": "x", "method": "best of all", "samples": None, "test_mean": 94.0},
    ]
    table = text.search_table(rows, 500)
    assert table.header == ["chosen by", "N", "seconds", "x test"]
    assert table.rows == [
        ["a cell at random", "", "-", "50.00"],
        ["ours", "10", "-", "-"],
        ["ours", "100", "2.00", "91.00 ± 0.50"],
        ["best of all", "", "-", "94.00"],
    ]
    assert "500 random searches" in table.title


def test_proxies_are_in_order_of_their_correlation():
    def row(proxy, value):
        correlation = None if value is None else {"value": value, "low": 0.0, "high": 1.0}
        return {
            **{"dataset": "x", "proxy": proxy, "num_cells": 9, "cells": "scored"},
            **{"spearman": {"all": correlation}, "kendall": {"all": correlation}},
            "regret": {10: 1.5},
        }

    spearman, kendall, regret = text.correlation_tables(
        [row("weak", 0.25), row("undefined", None), row("strong", 0.75)]
    )
    assert [line[0] for line in spearman.rows] == ["strong", "weak", "undefined"]
    assert spearman.rows[0] == ["strong", "9 scored", "0.750 [0.000, 1.000]"]
    assert kendall.rows[2] == ["undefined", "9 scored", "-"]
    assert regret.header == ["proxy", "cells", "N = 10"]
    assert regret.rows[0] == ["strong", "9 scored", "1.50"]
