import json
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from epe_nas_jax import format_arch, page, plots
from epe_nas_jax.genotype import decode, parse_arch
from epe_nas_jax.training_page import training_page

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&"
CELL = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"
CHROMIUM = shutil.which("chromium")


def make_page(num_cells=60, num_classes=10, *, benchmark=True, name="digits", path=""):
    """The page of a made run, and what it was made of."""
    rng = np.random.default_rng(0)
    scores = rng.normal(20_000, 3_000, num_cells)
    scores[::20] = np.nan
    accuracies = rng.uniform(40, 95, num_cells)
    archs = [format_arch(cell) for cell in np.asarray(decode(np.arange(1000, 1000 + num_cells)))]
    order = np.argsort(-np.nan_to_num(scores))[:5]
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
    config = {"seed": 3, "data": {"name": name, "path": path}, "compare": {"num_cells": 9}}
    text = page.run_page(
        summary=summary,
        provenance={"config": config, "versions": {"jax": name}, "minibatch_sha256": "ab" * 32},
        best=best,
        scores=scores,
        accuracies=accuracies if benchmark else None,
        benchmark_accuracies=accuracies if benchmark else None,
        class_scores=-rng.uniform(1, 9, num_classes),
        class_sizes=np.arange(num_classes),
    )
    return text, summary, accuracies


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += "" if self.lasttag == "style" else data


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
    text = page.run_page(
        summary={
            **dict.fromkeys(("best_arch", "best_score", "best_accuracy")),
            **dict.fromkeys(("num_scored", "num_networks", "num_degenerate"), 4),
            **dict.fromkeys(("seconds", "compile_seconds", "ms_per_cell"), 1.0),
            "device": "CPU",
            "rank_correlation": {"num_cells": 0, "spearman": None, "kendall": None},
        },
        provenance={
            "config": {"seed": 0, "data": {"name": "x"}},
            "versions": {},
            "minibatch_sha256": "",
        },
        best=[],
        scores=scores,
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


def test_strings_of_a_training_stay_strings():
    config = {"seed": 0, "data": {"name": HOSTILE, "path": HOSTILE}}
    text = training_page(
        {
            "arch": CELL,
            "held_out": None,
            "table_accuracy": None,
            "seeds": [0],
            "epochs": 1,
            "num_train_images": 2,
            "num_held_out_images": 0,
            "train_seconds": 1.0,
            "images_per_second": 2.0,
            "device": HOSTILE,
        },
        {"config": config, "versions": {HOSTILE: HOSTILE}, "minibatch_sha256": HOSTILE},
        [{"seed": 0, "epoch": 1, "train_accuracy": 50.0}],
    )
    elements = Elements(text)
    assert {tag for tag, _ in elements.found}.isdisjoint({"script", "iframe", "object", "img"})
    assert not [attrs for _, attrs in elements.found if "onerror" in attrs]
    assert elements.text.count(HOSTILE) >= 5


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


def test_the_page_of_the_whole_space_stays_small():
    text, _, _ = make_page(num_cells=14_000, num_classes=120)
    assert len(text.encode()) < 2_000_000


@pytest.mark.parametrize(
    ("arch", "drawn", "dead"),
    [
        (CELL, ["nor_conv_3x3", "avg_pool_3x3", "nor_conv_1x1", "skip_connect"], 1),
        (CELL.replace("none", "skip_connect"), None, 0),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", [], 0),
    ],
)
def test_the_drawing_has_an_edge_for_every_operation(arch, drawn, dead):
    svg = page.cell_drawing(arch)
    edges = [attrs for tag, attrs in Elements(svg).found if "edge" in attrs.get("class", "")]
    assert len(edges) == np.sum(parse_arch(arch) != 0)
    assert sum("dead" in attrs["class"] for attrs in edges) == dead
    if drawn is not None:
        assert svg.count("<rect") == len(drawn)
        assert all(f">{name}</text>" in svg for name in drawn)
    assert all(
        np.isfinite(float(v)) for attrs in edges for v in attrs["d"][1:].split("Q")[0].split()
    )


def test_best_so_far_follows_the_search():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 30, 40).astype(float)
    scores[[0, 1, 7]] = np.nan
    accuracies = rng.uniform(10, 90, 40)
    accuracies[3] = np.nan
    expected, best = [], None
    for i, score in enumerate(scores):
        if score == score and (best is None or score > scores[best]):
            best = i
        highest = [a for a in accuracies[: i + 1] if a == a]
        expected.append(
            (np.nan, np.nan, max(highest))
            if best is None
            else (scores[best], accuracies[best], max(highest))
        )
    top, bottom = plots.best_so_far(scores, accuracies).axes
    drawn = top.lines[0], bottom.lines[1], bottom.lines[0]
    for line, values in zip(drawn, zip(*expected, strict=True), strict=True):
        assert line.get_xdata().tolist() == list(range(1, 41))
        assert np.array_equal(line.get_ydata(), values, equal_nan=True)


def test_plots_leave_cells_without_a_score_out():
    scores, accuracies = np.array([1.0, np.nan, 3.0, 4.0]), np.array([10.0, 20.0, np.nan, 40.0])
    (axes,) = plots.accuracy_scatter(scores, accuracies, "accuracy", 3).axes
    assert axes.collections[0].get_offsets().tolist() == [[1, 10], [4, 40]]
    assert axes.lines[0].get_xydata().tolist() == [[4, 40]]
    (axes,) = plots.score_histogram(scores).axes
    assert sum(patch.get_height() for patch in axes.patches) == 3


@pytest.mark.parametrize("num_classes", [3, 120])
def test_a_bar_for_every_class(num_classes):
    e = -np.arange(1.0, num_classes + 1)
    (axes,) = plots.class_bars(e, None).axes
    size = "get_width" if num_classes == 3 else "get_height"
    assert [getattr(patch, size)() for patch in axes.patches] == (-e).tolist()


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
def test_a_browser_shows_the_page_at_both_widths(tmp_path):
    (tmp_path / "page.html").write_text(make_page(num_cells=600, name=HOSTILE, path="a/" * 200)[0])
    for width in (390, 1280):
        seen, console = measure(tmp_path, "page.html", width)
        assert console == []
        assert seen["figures"] == 5
        assert seen["content"] <= seen["window"] <= width
        assert seen["right"] <= seen["window"]
        assert seen["smallest"] > 20
    # What is asked of the page can fail: this one is too wide, and its console complains.
    text = make_page()[0].replace("</main>", '<p style="width: 2000px"><img src="x.png"></main>')
    (tmp_path / "bad.html").write_text(text)
    seen, console = measure(tmp_path, "bad.html", 390)
    assert seen["content"] > seen["window"]
    assert len(console) == 1
