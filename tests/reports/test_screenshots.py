"""Pages in a browser: wide and narrow, light and dark, and printed; the pictures are kept.

They are in `build/screenshots`, or where EPE_NAS_JAX_SCREENSHOTS says.
"""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, open_browser
from pages import (
    HOSTILE,
    installed_config,
    make_comparison_page,
    make_search_page,
    make_training_page,
)
from PIL import Image

from epe_nas_jax.scoring.columns import BEST_RANKING
from epe_nas_jax.spaces.darts.space import DARTS

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium to open pages in")

ROOT = Path(__file__).parents[2]
WIDTHS = (390, 1280)
# What A4 leaves between the margins of page.css, in CSS pixels (96 an inch).
PRINTED_WIDTH, PRINTED_HEIGHT = (int((side - 28) / 25.4 * 96) for side in (210, 297))
# The longest page has a row for each of many cells.
MOST_SHEETS = 5
STAGES = {
    "search": {"num_cells": 1000, "num_networks": 933, "seconds": 4.5},
    "refine": {"num_cells": 100, "num_networks": 90, "seconds": 59.75},
}
# How to make each page, and how many figures it has.
PAGES = {
    "digits": (
        lambda: make_search_page(num_cells=100, benchmark=False, config=installed_config("digits")),
        5,
    ),
    "best": (
        lambda: make_search_page(
            num_cells=1000,
            objective=BEST_RANKING,
            scale=-0.3,
            name="cifar10",
            config=installed_config(
                "best",
                **{
                    "data.name": "cifar10",
                    "data.path": "/data/cifar-10-binary.tar.gz",
                    "benchmark.path": "/data/nasbench201.csv.gz",
                    "benchmark.column": "cifar10_test",
                },
            ),
        ),
        5,
    ),
    "fast": (
        lambda: make_search_page(
            num_cells=1000,
            benchmark=False,
            objective=BEST_RANKING,
            stages=STAGES,
            config=installed_config("fast", **{"search.refine": 0.1}),
        ),
        3,
    ),
    "darts": (
        lambda: make_search_page(
            num_cells=20, benchmark=False, space=DARTS, config=installed_config("darts")
        ),
        6,
    ),
    "training": (make_training_page, 2),
    "comparison": (make_comparison_page, 2),
}
MEASURE = """(() => {
  const area = element => element.getBoundingClientRect();
  const all = selector => [...document.querySelectorAll(selector)];
  const figures = all("figure > svg, figure > div > svg");
  const texts = figures.map(svg => [...svg.querySelectorAll("text")]);
  const overlap = (a, b) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
  const isCut = (text, svg) =>
    area(text).left < area(svg).left - 1 || area(text).right > area(svg).right + 1 ||
    area(text).top < area(svg).top - 1 || area(text).bottom > area(svg).bottom + 1;
  const boxes = all("figure svg, .facts div").map(area);
  return {
    window: document.documentElement.clientWidth,
    content: document.documentElement.scrollWidth,
    right: Math.max(...boxes.map(box => box.right)),
    smallest: Math.min(...boxes.map(box => Math.min(box.width, box.height))),
    figures: figures.length,
    cut: figures.flatMap((svg, i) => texts[i].filter(text => isCut(text, svg)))
      .map(text => text.textContent),
    overlapping: texts.flatMap(own => own.flatMap((one, i) => own.slice(i + 1)
      .filter(other => overlap(area(one), area(other)))
      .map(other => [one.textContent, other.textContent]))),
    unscrolled: all("section table, section pre, .ranking table")
      .filter(element => area(element).right > document.documentElement.clientWidth + 1)
      .map(element => element.textContent.slice(0, 60)),
    unbroken: all("figure").filter(element => getComputedStyle(element).breakInside != "avoid")
      .length,
    tallest: Math.max(...all("figure").map(element => area(element).height)),
  };
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def folder():
    path = Path(os.environ.get("EPE_NAS_JAX_SCREENSHOTS") or ROOT / "build" / "screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


def luminance(png):
    """Of every pixel of a picture, from 0 for black to 255 for white."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def check_layout(seen, num_figures):
    """Checks that everything of a page is there, inside it, and legible."""
    assert seen["figures"] == num_figures
    assert seen["content"] <= seen["window"]
    assert seen["right"] <= seen["window"]
    assert seen["smallest"] > 20
    assert seen["cut"] == []
    assert seen["overlapping"] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_legible_at_every_width_light_and_dark_and_printed(browser, folder, name):
    make, num_figures = PAGES[name]
    page = make()
    file = folder / f"{name}.html"
    file.write_text(page if isinstance(page, str) else page[0])
    for width in WIDTHS:
        pictures = {}
        for looks in ("light", "dark"):
            browser.show(file, width, dark=looks == "dark")
            check_layout(browser.evaluate(MEASURE), num_figures)
            assert browser.console == []
            pictures[looks] = browser.picture()
            (folder / f"{name}-{width}-{looks}.png").write_bytes(pictures[looks])
        light, dark = (luminance(pictures[looks]) for looks in ("light", "dark"))
        assert light.shape == dark.shape
        assert light.shape[1] == width
        assert np.median(dark) < 60 < 200 < np.median(light)
    # Paper is white, whatever the screen is.
    browser.show(file, PRINTED_WIDTH, dark=True, media="print")
    seen = browser.evaluate(MEASURE)
    check_layout(seen, num_figures)
    assert seen["unscrolled"] == []
    # No figure is cut by the end of a sheet.
    assert seen["unbroken"] == 0
    assert seen["tallest"] < PRINTED_HEIGHT
    assert np.median(luminance(browser.picture())) == 255
    printed = browser.pdf()
    (folder / f"{name}.pdf").write_bytes(printed)
    assert 1 <= len(re.findall(rb"/Type ?/Page\b", printed)) <= MOST_SHEETS


def test_long_strings_from_outside_keep_to_the_page(browser, tmp_path):
    file = tmp_path / "hostile.html"
    file.write_text(make_search_page(num_cells=600, name=HOSTILE, path="a/" * 200)[0])
    for width in WIDTHS:
        browser.show(file, width)
        check_layout(browser.evaluate(MEASURE), num_figures=6)
        assert browser.console == []


def test_a_bad_page_does_not_pass(browser, tmp_path):
    file = tmp_path / "bad.html"
    bad = """<p style="width: 2000px"><img src="x.png"></p>
        <figure><svg viewBox="0 0 40 40"><text x="0" y="20">one label</text>
        <text x="9" y="20">cut and on it</text></svg></figure></main>"""
    file.write_text(make_search_page()[0].replace("</main>", bad))
    browser.show(file, 390)
    seen = browser.evaluate(MEASURE)
    assert seen["content"] > seen["window"]
    assert seen["cut"] == ["one label", "cut and on it"]
    assert seen["overlapping"] == [["one label", "cut and on it"]]
    assert len(browser.console) == 1
    browser.show(file, 390, media="print")
    assert browser.evaluate(MEASURE)["content"] > 390
