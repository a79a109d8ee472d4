import shlex

import numpy as np
from pages import HOSTILE, Elements

from epe_nas_jax.reports.ranking_page import ranking_page

COLUMNS = ("score", "rank", "params", "mflops", "latency_ms", "peak_mb", "note", "error")
FRONTS = {"params": np.array([1, 0]), "latency_ms": np.array([0])}


def row(network, *values):
    return {"network": network, **dict(zip(COLUMNS, values, strict=True))}


def provenance_of(name, path=""):
    config = {
        "seed": 7,
        "data": {"name": name, "path": path},
        "score": {"objective": ["epe"]},
        "networks_sha256": "12" * 32,
        "objective": ["jacob_cov", "params"],
        "smaller_batches": True,
    }
    return {"config": config, "versions": {"jax": "1.2"}, "minibatch_sha256": "ab" * 32}


def made(rows, name="digits", file="candidates.py", fronts=FRONTS):
    return ranking_page(rows, provenance_of(name), fronts, file=file, device="an abacus")


ROWS = [
    row("wide", -0.5, 1, 2_000_000, 12.5, 3.25, 64.5, "off: Dropout", None),
    row("narrow", -0.75, 2, 4_000, 0.5, 3.5, 32.5, "", None),
    row("broken", None, None, None, None, None, None, "", "network 'broken': no logits"),
]


def test_the_page_names_the_best_network_the_costs_and_what_went_wrong():
    shown = Elements(made(ROWS)).text
    for word in (
        *("3 networks ranked on digits", "The best one iswide", "2with a score"),
        *(
            "1could not be measured",
            "jacob_cov, paramsranked by",
            "2,000,000",
            "12.5",
            "64.5",
            "off: Dropout",
        ),
        *("network 'broken': no logits", "Rank and parameters", "Rank and ms a forward pass"),
        *("an abacus", "jax 1.2", "ab" * 32, "--config.seed=7"),
    ):
        assert word in shown, word


def test_the_command_in_the_page_says_what_was_ranked_and_how():
    text = Elements(made(ROWS, file="my networks.py")).text
    command = text[text.index("epe-nas rank") :].split("All of the config")[0]
    command = command.replace("\\\n", "")
    assert shlex.split(command) == [
        *("epe-nas", "rank", "--networks=my networks.py", "--objective=jacob_cov,params"),
        *(
            "--smaller_batches",
            "--config=base",
            "--workdir=again",
            "--config.seed=7",
            "--config.data.name=digits",
        ),
    ]


def test_strings_of_a_ranking_stay_strings():
    rows = [row(f"{HOSTILE}${{", -0.5, 1, 10, 0.1, 1.0, 1.0, HOSTILE, None)]
    fronts = {cost: np.array([0]) for cost in FRONTS}
    elements = Elements(made(rows, HOSTILE, HOSTILE, fronts))
    assert {tag for tag, _ in elements.found}.isdisjoint({"script", "iframe", "object", "img"})
    assert not [attrs for _, attrs in elements.found if "onerror" in attrs]
    assert elements.text.count(HOSTILE) >= 4


def test_without_a_score_there_is_no_plot_and_no_best_network():
    elements = Elements(made(ROWS[2:], fronts={cost: np.array([], int) for cost in FRONTS}))
    assert "no network has a score" in elements.text
    assert "figure" not in {tag for tag, _ in elements.found}
