r"""Which further signals rank better with the recommended ones: counts and measurements.

Every different network of the space (9,445) is scored once at a cheap setting: 32 images of
CIFAR-10 averaged to 8x8 pixels, 16 channels, 5 cells per stage. Candidates are counts from the
genotype, and measurements of features, gradients and activation patterns in one pass forward and
back. They are compared on the 500 cells, with their CIFAR-10 accuracies, on which the recommended
ranking was chosen (`experiments/ranking.py`); the sums in `REPORTED`, which were fixed beforehand,
are then tested on all other cells and the accuracies of all three data sets. Cells without a score
come last.

Command:  python -m experiments.signals --benchmark=nasbench201.csv.gz --path=cifar10.npz \
              --signals=signals_cifar10.csv.gz

scores, keeps the scores and prints the tables; without `--path` it reads scores kept before, by
default `results/signals_cifar10.csv.gz`.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from absl import app, flags
from scipy import stats
from tqdm import tqdm

from epe_nas_jax import (
    BEST_RANKING,
    format_arch,
)
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.runs import runtime
from epe_nas_jax.scoring.columns import COLUMNS, RunCells
from epe_nas_jax.search import ranking, simulation
from epe_nas_jax.spaces import paths
from epe_nas_jax.spaces.base import GraphEdge
from epe_nas_jax.spaces.nasbench201.genotype import (
    OPERATIONS,
    every_genotype,
    has_path,
    prune_dead,
)
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
from experiments.choice import ACCURACIES, CHOSEN_ON, combined, drawn_cells
from experiments.signal_measurements import NETWORK, score

_RESULTS = Path(__file__).parent.parent / "results"
_BENCHMARK = flags.DEFINE_string("benchmark", None, "Trained accuracies.", required=True)
_PATH = flags.DEFINE_string("path", "", "CIFAR-10, to score cells; else the scores are read.")
_SIGNALS = flags.DEFINE_string(
    "signals", str(_RESULTS / "signals_cifar10.csv.gz"), "The scores: written, or read."
)
_SEARCHES = flags.DEFINE_integer("searches", 500, "Searches of each sum.", lower_bound=1)

# Scores at the full setting, of uniformly drawn cells.
FULL_FILES = {
    "CIFAR-10": "scores_cifar10_4500.csv.gz",
    "CIFAR-100": "scores_cifar100_4500.csv.gz",
    "ImageNet16-120": "scores_imagenet16_4500.csv.gz",
}
# The sums that were tested on the other cells. They were fixed before, and not chosen by results.
REPORTED = (
    BEST_RANKING,
    ("jacob_cov", "live_params"),
    (*BEST_RANKING, "few_pools"),
    (*BEST_RANKING, "few_pools", "wide_convs"),
    (*BEST_RANKING, "few_pools", "wide_convs", "little_pooling"),
    (*BEST_RANKING, "few_pools", "wide_convs", "little_pooling", "live_mflops"),
    (*BEST_RANKING, "correlation_entropy_1"),
    (*BEST_RANKING, "few_pools", "correlation_entropy_1"),
    (*BEST_RANKING, "grad_roughness"),
    ("grad_entropy", "live_params", "clear_paths"),
    ("live_params", "few_pools", "wide_convs", "little_pooling"),
)
# Columns that are the same for a cell and its live form.
LIVE = ("live_params", "live_mflops", "few_pools", "little_pooling", "wide_convs")
SEARCH_SIZE = 1000
# More than the number of convolutions on any path.
_POOL_WEIGHT = 10


def main(argv: Sequence[str]) -> None:
    """Scores or reads, and prints the tables as Markdown."""
    del argv
    runtime.prepare()
    cells = every_genotype()
    networks = prune_dead(cells)
    if _PATH.value:
        score(np.unique(networks, axis=0), _PATH.value).to_csv(_SIGNALS.value, float_format="%.6g")
    measured = pd.read_csv(_SIGNALS.value, index_col="arch")
    archs = [format_arch(cell) for cell in cells]
    signals = measured.loc[[format_arch(network) for network in networks]].reset_index(drop=True)
    signals = signals.assign(**counts(networks)).set_axis(archs, axis="index")
    known = {
        name: read_accuracies(_BENCHMARK.value, column, space=NASBENCH201)
        for name, column in ACCURACIES.items()
    }
    accuracies = pd.DataFrame({name: [of[arch] for arch in archs] for name, of in known.items()})
    is_form = np.all(cells == networks, axis=1)
    was_chosen_on = np.isin(archs, drawn_cells()[::CHOSEN_ON])
    printed = [
        *choice_tables(signals[was_chosen_on], accuracies["CIFAR-10"].to_numpy()[was_chosen_on]),
        report_table("all cells", signals, accuracies, ~was_chosen_on),
        report_table("live forms", signals, accuracies, ~was_chosen_on & is_form),
        search_table(signals, accuracies, ~was_chosen_on),
        *full_tables(signals, accuracies, was_chosen_on, is_form),
    ]
    print("\n\n".join(map(as_markdown, printed)))


def counts(networks: np.ndarray) -> dict[str, np.ndarray]:
    """Signals that need no network, `[A]` each: counts in live forms `[A, E]`.

    Some are negated, so that larger is always meant to be better.
    """
    cells = RunCells(networks, NETWORK, 32)
    found = {name: column.values(cells) for name, column in COLUMNS.items() if name in LIVE}
    fewest_convs, most_convs = (
        cells.on_paths(is_convolution, f) for f in (paths.fewest, paths.most)
    )
    found |= {
        "clear_paths": cells.on_paths(paths.is_pool, lambda counted: counted[0]),
        "clear_conv_paths": cells.on_paths(
            conv_or_pool, lambda counted: sum(counted[i] for i in range(1, _POOL_WEIGHT))
        ),
        "clear_convs": cells.on_paths(
            conv_or_pool, lambda counted: max((i for i in counted if i < _POOL_WEIGHT), default=-1)
        ),
        "shortcut": cells.on_paths(conv_or_pool, lambda counted: counted[0] > 0),
        "most_convs": most_convs,
        "few_convs": -fewest_convs,
        "convs_around": most_convs - fewest_convs,
        "mean_convs": cells.on_paths(is_convolution, paths.mean),
        "paths": cells.on_paths(is_convolution, lambda counted: counted.total()),
        "few_paths": -cells.on_paths(is_convolution, lambda counted: counted.total()),
        "operations": np.sum(networks != 0, axis=1),
    }
    for name in OPERATIONS[1:]:
        found[f"number_{name}"] = np.sum(networks == OPERATIONS.index(name), axis=1)
    known = has_path(networks)
    return {name: np.where(known, values, np.nan) for name, values in found.items()}


def is_convolution(edge: GraphEdge) -> bool:
    """Whether an edge is a convolution."""
    return edge.kind == "conv"


def conv_or_pool(edge: GraphEdge) -> int:
    """Counts convolutions, and pools with a weight by which paths with pools can be told apart."""
    return is_convolution(edge) + _POOL_WEIGHT * paths.is_pool(edge)


def choice_tables(signals: pd.DataFrame, accuracies: np.ndarray) -> list[Table]:
    """Every signal alone, and the best sums, on the cells of the choice."""
    alone = []
    for name in map(str, signals):
        rho = stats.spearmanr(combined(signals, (name,)), accuracies).statistic
        with_best = rho
        if name not in BEST_RANKING:
            with_best = stats.spearmanr(
                combined(signals, (*BEST_RANKING, name)), accuracies
            ).statistic
        alone.append((rho, name, with_best))
    rows = [
        [name, f"{rho:.3f}", "-" if name in BEST_RANKING else f"{more:.4f}"]
        for rho, name, more in sorted(alone)[::-1]
    ]
    further = [str(name) for name in signals if name not in BEST_RANKING]
    everything = [str(name) for name in signals]
    tables = [
        Table(
            f"Spearman with CIFAR-10 accuracy, {len(accuracies)} cells of the choice",
            ["signal", "alone", "with the recommended five"],
            rows,
        )
    ]
    families = {
        "the recommended five and up to three more": [
            (*BEST_RANKING, *more)
            for size in range(4)
            for more in itertools.combinations(further, size)
        ],
        "one to three signals": [
            names for size in (1, 2, 3) for names in itertools.combinations(everything, size)
        ],
    }
    for title, sums in families.items():
        rho = spearman_of_sums(signals, sums, accuracies)
        rows = [[" + ".join(sums[i]), f"{rho[i]:.4f}"] for i in np.argsort(-rho)[:10]]
        tables.append(
            Table(
                f"The best 10 of {len(sums)} sums of log ranks, {title}; the cells of the choice",
                ["signals", "Spearman"],
                rows,
            )
        )
    return tables


def spearman_of_sums(
    signals: pd.DataFrame, sums: Sequence[tuple[str, ...]], accuracies: np.ndarray
) -> np.ndarray:
    """Spearman of sums of log ranks with accuracies, for many sums at once."""
    known = signals.notna().all(axis=1).to_numpy()
    of_signal = {
        str(name): ranking.log_rank_sum(np.where(known, signals[name], np.nan)[:, None])
        for name in signals
    }
    of_signal = {name: np.where(known, logs, -np.inf) for name, logs in of_signal.items()}
    true_ranks = stats.rankdata(accuracies)
    return np.array(
        [
            np.corrcoef(
                stats.rankdata(np.sum([of_signal[name] for name in names], axis=0)), true_ranks
            )[0, 1]
            for names in tqdm(sums, desc="sums", leave=False)
        ]
    )


def report_table(
    title: str, signals: pd.DataFrame, accuracies: pd.DataFrame, held: np.ndarray
) -> Table:
    """Spearman and Kendall of the reported sums, on cells that were not used for the choice."""
    rows = []
    for names in REPORTED:
        scores = combined(signals[held], names)
        line = [in_words(names)]
        for dataset in ACCURACIES:
            true = accuracies[dataset].to_numpy()[held]
            rho, tau = (f(scores, true).statistic for f in (stats.spearmanr, stats.kendalltau))
            line.append(f"{rho:.4f} / {tau:.4f}")
        rows.append(line)
    return Table(
        f"Spearman / Kendall, {held.sum()} {title} without those of the choice",
        ["signals", *ACCURACIES],
        rows,
    )


def search_table(signals: pd.DataFrame, accuracies: pd.DataFrame, held: np.ndarray) -> Table:
    """Accuracy of what random searches choose, each of which ranks only what it drew."""
    draws = simulation.draw_searches(
        int(held.sum()), SEARCH_SIZE, num_searches=_SEARCHES.value, seed=0
    )
    rows = []
    for names in REPORTED:
        values, chosen = signals.loc[held, list(names)].to_numpy(), []
        for draw in tqdm(draws, desc="searches", leave=False):
            best = ranking.best_index(ranking.log_rank_sum(values[draw]))
            assert best is not None
            chosen.append(draw[best])
        spreads = [
            simulation.spread(accuracies.loc[held, d].to_numpy()[chosen]) for d in ACCURACIES
        ]
        rows.append([in_words(names), *(f"{s.mean:.2f} ± {s.deviation:.2f}" for s in spreads)])
    return Table(
        f"Accuracy of the cell chosen of {SEARCH_SIZE}, {_SEARCHES.value} random searches",
        ["signals", *ACCURACIES],
        rows,
    )


def full_tables(
    signals: pd.DataFrame, accuracies: pd.DataFrame, was_chosen_on: np.ndarray, is_form: np.ndarray
) -> list[Table]:
    """Spearman and Kendall of scores at the full setting, for each data set on its own images."""
    reported = [names for names in REPORTED if {*names} <= {*BEST_RANKING, *LIVE}]
    lines: dict[str, list[list[str]]] = {"cells": [], "live forms": []}
    sizes = {}
    for names in reported:
        for title, of_table in lines.items():
            of_table.append([in_words(names)])
            for dataset, file in FULL_FILES.items():
                full = pd.read_csv(_RESULTS / file, index_col="arch")[[*BEST_RANKING]]
                rows = signals.index.get_indexer(full.index)
                held = ~was_chosen_on[rows] & (is_form[rows] | (title == "cells"))
                table = signals.iloc[rows].assign(**full.replace([-np.inf, np.inf], np.nan))[held]
                scores = combined(table, names)
                true = accuracies[dataset].to_numpy()[rows][held]
                rho, tau = (f(scores, true).statistic for f in (stats.spearmanr, stats.kendalltau))
                of_table[-1].append(f"{rho:.4f} / {tau:.4f}")
                sizes[title] = held.sum()
    return [
        Table(
            f"Spearman / Kendall, 256 whole images, {sizes[title]} {title}, none of the choice",
            ["signals", *FULL_FILES],
            rows,
        )
        for title, rows in lines.items()
    ]


def in_words(names: Sequence[str]) -> str:
    """A sum's name, short where it contains the recommended signals."""
    if not set(BEST_RANKING) <= set(names):
        return " + ".join(names)
    return " + ".join(["the five", *(name for name in names if name not in BEST_RANKING)])


if __name__ == "__main__":
    app.run(main)
