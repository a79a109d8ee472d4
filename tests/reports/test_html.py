import json
import shlex
import sys

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags
from pages import HOSTILE, Elements

from epe_nas_jax.configs import base, best
from epe_nas_jax.reports import html
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

ARCH = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"


@pytest.fixture
def parsed(monkeypatch):
    """Gives the words of a command that a shell reads, and the config its flags make of base."""

    def parsed(command):
        # A shell joins continued lines; shlex does not.
        words = shlex.split(command.replace("\\\n", ""))
        argv = ["epe-nas", *(word for word in words if word.startswith("--config."))]
        # The flags of a config are those that the process was started with.
        monkeypatch.setattr(sys, "argv", argv)
        values = flags.FlagValues()
        config = config_flags.DEFINE_config_dict("config", base.get_config(), flag_values=values)
        values(argv)
        return words, json.loads(config.value.to_json())

    return parsed


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"score.objective": ("epe",), "score.proxies": ("nwot", "synflow"), "cells_per_step": "7"},
        {"data.path": "/data/it's $HOME; `rm`\\ x", "data.augment": True, "search.max_mflops": 1.5},
        {"space.name": "darts", "data.class_balanced": False, "score.prune_dead": False, "seed": 7},
    ],
)
def test_the_command_makes_the_same_config(parsed, overrides):
    config = best.get_config()
    config.update_from_flattened_dict(overrides)
    plain = json.loads(config.to_json())
    command = html.command_of("search", plain, ())
    words, again = parsed(command)
    assert words[:4] == ["epe-nas", "search", "--config=base", "--workdir=again"]
    assert again == plain
    lines = command.split(" \\\n    ")
    assert lines[0] == "epe-nas search --config=base --workdir=again"
    assert all(line.lstrip("'").startswith("--config.") for line in lines[1:])


def test_what_a_command_does_not_read_is_not_in_it(parsed):
    config = json.loads(best.get_config().to_json()) | {"arch": ARCH, "from_run": "runs/digits"}
    command = html.command_of("train", config, ("from_run", "compare", "score", "search"))
    words, again = parsed(command)
    assert words[1] == "train"
    assert again["arch"] == ARCH
    for key in ("from_run", "compare", "score", "search"):
        assert f"--config.{key}" not in command


def test_parts_of_a_page_keep_strings_from_outside():
    provenance = {
        "config": {"seed": 3, "data": {"name": HOSTILE}},
        "versions": {HOSTILE: HOSTILE},
        "minibatch_sha256": HOSTILE,
    }
    text = html.document(
        HOSTILE,
        [
            html.header(HOSTILE, f"<p>{html.arch_code(HOSTILE)}</p>", [(HOSTILE, HOSTILE)]),
            html.figure(HOSTILE, "<svg></svg>", HOSTILE),
            html.cell_figures(HOSTILE, NASBENCH201.graphs(NASBENCH201.parse(ARCH)), HOSTILE),
            html.table([HOSTILE], [["<b>HTML</b>"]]),
            html.origin({HOSTILE: HOSTILE}, provenance, HOSTILE),
        ],
    )
    elements = Elements(text)
    assert {tag for tag, _ in elements.found}.isdisjoint({"script", "iframe", "object", "img"})
    assert not [attrs for _, attrs in elements.found if "onerror" in attrs]
    assert elements.text.count(HOSTILE) == 16
    assert [tag for tag, _ in elements.found].count("b") == 1


def test_the_origin_says_what_made_the_results():
    provenance = {
        "config": {"seed": 3, "data": {"name": "digits"}},
        "versions": {"jax": "1.2", "numpy": "3.4"},
        "minibatch_sha256": "ab" * 32,
    }
    shown = Elements(html.origin({"device": "an abacus"}, provenance, "the command")).text
    for word in ("device", "an abacus", "seed", "3", "ab" * 32, "jax 1.2, numpy 3.4"):
        assert word in shown
    assert "To repeat itthe command" in shown
    assert json.dumps(provenance["config"], indent=2) in shown


def test_every_cell_of_a_genotype_has_its_figure():
    (graph,) = NASBENCH201.graphs(NASBENCH201.parse(ARCH))
    elements = Elements(html.cell_figures("The cell", [graph], ARCH))
    assert [tag for tag, _ in elements.found].count("figure") == 1
    assert elements.text.startswith("The cellnor_conv_3x3")
    (svg,) = [attrs for tag, attrs in elements.found if tag == "svg"]
    assert svg["aria-label"] == f"The cell {ARCH} as a graph"

    row = np.zeros(DARTS.num_edges, int)
    row[[0, 1]] = 4, 5
    row[[14, 15]] = 3, 1
    elements = Elements(html.cell_figures("The cell", DARTS.graphs(row), "NAME"))
    svgs = [attrs["aria-label"] for tag, attrs in elements.found if tag == "svg"]
    assert svgs == [
        "The normal cell of NAME as a graph",
        "The reduction cell of NAME as a graph",
    ]
    for word in (
        *("The cell: normal cell", "The cell: reduction cell"),
        *("sep_conv_3x3", "sep_conv_5x5", "skip_connect", "max_pool_3x3"),
    ):
        assert elements.text.count(word) == 1


def test_an_arch_may_break_between_operations_and_is_the_same_text():
    code = html.arch_code(ARCH)
    assert Elements(code).text == ARCH
    for operation in ARCH.replace("+", "").strip("|").split("|"):
        assert not operation or f"{operation}|<wbr>" in code
