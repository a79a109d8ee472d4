import base64
import io

import numpy as np
import pytest
from pages import CELL, HOSTILE, Elements, provenance_of
from PIL import Image

from epe_nas_jax.reports.mistakes import Mistakes
from epe_nas_jax.reports.training_page import training_page
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

GRAPHS = NASBENCH201.graphs(NASBENCH201.parse(CELL))
SUMMARY = {
    "arch": CELL,
    "held_out": None,
    "table_accuracy": None,
    "seeds": [0],
    "epochs": 1,
    "num_train_images": 2,
    "num_held_out_images": 0,
    "train_seconds": 1.0,
    "images_per_second": 2.0,
    "device": "an abacus",
}
ROWS = [{"seed": 0, "epoch": 1, "train_accuracy": 50.0}]


def test_strings_of_a_training_stay_strings():
    config = {"seed": 0, "data": {"name": HOSTILE, "path": HOSTILE}}
    text = training_page(
        SUMMARY | {"device": HOSTILE},
        {"config": config, "versions": {HOSTILE: HOSTILE}, "minibatch_sha256": HOSTILE},
        ROWS,
        graphs=GRAPHS,
    )
    elements = Elements(text)
    assert {tag for tag, _ in elements.found}.isdisjoint({"script", "iframe", "object", "img"})
    assert not [attrs for _, attrs in elements.found if "onerror" in attrs]
    assert elements.text.count(HOSTILE) >= 5


def test_the_page_says_how_well_the_cell_trained():
    summary = SUMMARY | {
        "held_out": "test",
        "seeds": [3, 4],
        "epochs": 12,
        "mean_accuracy": 91.254,
        "std_accuracy": 0.5,
        "table_accuracy": 93.5,
        "num_train_images": 50_000,
    }
    rows = [
        {"seed": seed, "epoch": 1, "train_accuracy": 50.0, "test_accuracy": 40.0} for seed in (3, 4)
    ]
    provenance = provenance_of({"seed": 3, "data": {"name": "cifar10"}})
    shown = Elements(training_page(summary, provenance, rows, graphs=GRAPHS)).text
    for word in (
        *("A cell trained on cifar10", CELL, "91.25 %test accuracy, mean"),
        *("0.50deviation between seeds", "93.50 %in the table", "2seeds", "12epochs"),
        *("training images50,000", "an abacus", "ab" * 32, "jax 1.2", "seed3"),
        "The dashed line is the table's accuracy",
    ):
        assert word in shown


def mistakes_of(names, confusion, num_images=2):
    return Mistakes(
        class_names=names,
        confusion=np.array(confusion),
        images=np.full((num_images, 4, 4, 3), 7, np.uint8),
        classes=np.zeros(num_images, int),
        taken_for=np.ones(num_images, int),
        probabilities=np.linspace(0.9, 0.5, num_images),
    )


def page_with(mistakes):
    provenance = provenance_of({"seed": 0, "data": {"name": "x"}})
    summary = SUMMARY | {"held_out": "test", "mean_accuracy": 75.0, "std_accuracy": None}
    return Elements(training_page(summary, provenance, ROWS, graphs=GRAPHS, mistakes=mistakes))


def test_the_page_shows_accuracy_by_class_confusion_and_the_worst_mistakes():
    confusion = [[6, 2, 0], [0, 8, 0], [0, 0, 0]]
    page = page_with(mistakes_of(["cat", "dog", HOSTILE], confusion))
    for word in ("cat875.00 %dog (2)", "dog8100.00 %", f"{HOSTILE}0", "By class (test images"):
        assert word in page.text, word
    pictures = [dict(attrs) for tag, attrs in page.found if tag == "img"]
    assert [picture["alt"] for picture in pictures] == [
        "cat, taken for dog (0.90)",
        "cat, taken for dog (0.50)",
    ]
    content = base64.b64decode(pictures[0]["src"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(Image.open(io.BytesIO(content)), np.full((4, 4, 3), 7))


def test_of_many_classes_there_is_no_matrix_and_without_mistakes_no_picture():
    names = [f"class {number}" for number in range(30)]
    page = page_with(mistakes_of(names, np.eye(30, dtype=int), num_images=0))
    assert "taken for the class in the column" not in page.text
    assert "taken for another: confusion.csv" in page.text
    assert "worst mistakes" not in page.text
    assert "class 291100.00 %" in page.text


def test_without_a_test_split_the_page_says_so():
    provenance = provenance_of({"seed": 0, "data": {"name": "x"}})
    text = training_page(SUMMARY, provenance, ROWS, graphs=GRAPHS)
    assert "no test accuracy" in text
    assert "table" not in Elements(text).text


@pytest.mark.parametrize("from_run", ["", "runs/digits"])
def test_the_command_trains_this_cell(from_run):
    config = {
        "seed": 0,
        "data": {"name": "digits"},
        "arch": CELL,
        "from_run": from_run,
        "train": {"epochs": 12, "validation": False},
        "score": {"init": "shared"},
        "search": {"num_samples": 9},
        "compare": {"num_cells": 9},
    }
    text = training_page(SUMMARY, provenance_of(config), ROWS, graphs=GRAPHS)
    command = Elements(text).text.split("To repeat it")[1].split("All of the config")[0]
    # A cell and a run to take it from would be refused.
    assert command == (
        "epe-nas train --config=base --workdir=again \\\n"
        "    --config.seed=0 \\\n"
        "    --config.data.name=digits \\\n"
        f"    '--config.arch={CELL}' \\\n"
        "    --config.train.epochs=12 \\\n"
        "    --config.train.validation=False"
    )
