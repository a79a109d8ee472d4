"""The page of a comparison with PyTorch."""

import pytest
from pages import HOSTILE, Elements, make_comparison_page, table_below


def test_the_page_says_how_well_both_sides_agree():
    text = make_comparison_page(num_cells=9)
    shown = " ".join(Elements(text).text.split())
    for words in (
        *("Comparison with PyTorch on digits", "9cells", "The best cell by both sides is"),
        *("0.999800Spearman of the two scores", "4.00 xtime of PyTorch as released, over ours"),
        *("2.00 xtime of PyTorch at its best, over ours", "both sides computed in float32"),
        *("Cells without a score: 1 on both sides, 0 on one side only", "after 13.3 s compiling"),
        *("score by PyTorch", "score by epe_nas_jax", "relative error", "PyTorch's threads2"),
    ):
        assert words in shown, words


def test_the_page_has_a_row_for_each_cell():
    rows = table_below(make_comparison_page(num_cells=9), "All cells")
    assert len(rows) == 10
    assert {len(row) for row in rows} == {9}
    assert rows[2][:2] == ["none", "none"]
    assert rows[2][4] == "-"
    assert rows[1][5:8] == ["0.750", "3.000", "1.500"]
    for row in (row for row in rows[1:] if row[0] != "none"):
        ours, pytorchs = (float(score.replace(",", "")) for score in row[:2])
        # Scores of about 24,000 have six digits here: each is within 3e-6 of what it is.
        assert abs(pytorchs / ours - 1 - float(row[4])) < 6e-6


def test_sides_that_choose_other_cells_or_none_say_so():
    text = make_comparison_page(same_best=False, best_arch="|a~0|", pytorch_best_arch="|b~0|")
    shown = Elements(text).text
    assert "The best cell by epe_nas_jax is|a~0|" in shown
    assert "and by PyTorch|b~0|" in shown
    text = make_comparison_page(best_arch=None, pytorch_best_arch=None, spearman=None)
    assert "A side has no cell with a score." in Elements(text).text
    assert "undefined" in Elements(text).text


def test_the_command_is_that_of_a_comparison():
    shown = Elements(make_comparison_page(num_cells=9)).text
    command = shown.split("To repeat it")[1].split("All of the config")[0]
    lines = [line.strip() for line in command.split("\n")]
    assert lines[0] == "epe-nas compare --config=base --workdir=again \\"
    assert "--config.compare.num_cells=9" in lines
    for section in ("search", "train", "refine", "benchmark"):
        assert f"--config.{section}" not in command


@pytest.mark.parametrize("changes", [{"name": HOSTILE}, {"pytorch_network": HOSTILE}])
def test_strings_from_outside_stay_strings(changes):
    elements = Elements(make_comparison_page(num_cells=3, **changes))
    assert {tag for tag, _ in elements.found}.isdisjoint({"script", "iframe", "object", "img"})
    assert not [attrs for _, attrs in elements.found if "onerror" in attrs]
    assert HOSTILE in elements.text
