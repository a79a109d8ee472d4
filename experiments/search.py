"""Random search, evolution and local search on a table of scores: results by number of cells.

Nothing is scored here: the scores of all cells come from a CSV file (a `scores.csv` of a search of
the whole space, or published ones), and the searches look them up. Cells that are not in the file
are outside the space (`search.restrict`). Each run is as long as the largest budget; for a smaller
budget its first cells are used.

Command:  python -m experiments.search --scores=scores.csv.gz --accuracies=nasbench201.csv.gz
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import app, flags
from scipy import stats
from tqdm import tqdm

from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.search import algorithms
from epe_nas_jax.search.restrict import restrict
from epe_nas_jax.spaces.base import SearchSpace
from epe_nas_jax.spaces.nasbench201.genotype import NUM_CELLS, encode, parse_arch
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

_SCORES = flags.DEFINE_string("scores", None, "CSV with arch and a score.", required=True)
_COLUMN = flags.DEFINE_string("column", "score", "The column of scores.")
_DATASET = flags.DEFINE_string("dataset", "", "Use only rows with this value of column dataset.")
_ACCURACIES = flags.DEFINE_string("accuracies", None, "CSV of trained accuracies.", required=True)
_ACCURACY = flags.DEFINE_string("accuracy", "cifar10_test_200", "The column of accuracies.")
_RUNS = flags.DEFINE_integer("runs", 500, "Runs of each algorithm.", lower_bound=2)
_BUDGETS = flags.DEFINE_list("budgets", ["25", "50", "100", "200", "400", "800"], "Scored cells.")

_NUM_RESAMPLES = 1000


def main(argv: Sequence[str]) -> None:
    """Prints the tables as Markdown."""
    del argv
    budgets = [int(budget) for budget in _BUDGETS.value]
    scores, accuracies = read_tables()
    space = restrict(NASBENCH201, lambda cells: ~np.isnan(at(scores, cells)))
    searches = {
        "random": algorithms.random(max(budgets), space=space),
        "evolution, 24 a step": evolution(24, space),
        "evolution, 8 a step": evolution(8, space),
        "local, 24 a step": algorithms.local(candidates_per_step=24, space=space),
        "local, 8 a step": algorithms.local(candidates_per_step=8, space=space),
    }
    curves = {
        name: many_runs(algorithm, scores, accuracies, max(budgets), name)
        for name, algorithm in searches.items()
    }
    num_known = np.sum(~np.isnan(scores))
    print(f"{num_known} cells with a score, {_RUNS.value} runs, column {_COLUMN.value}")
    for which, title in enumerate(("score", "accuracy")):
        found = {name: curve[which] for name, curve in curves.items()}
        print(f"\nMean {title} of the chosen cell, 95 % interval of the mean\n")
        print_means(found, budgets)
        print(f"\nScored cells to reach the mean {title} of random search, bootstrap interval\n")
        print_cells_to_reach(found, budgets)


def print_means(found: dict[str, np.ndarray], budgets: list[int]) -> None:
    """Prints the mean of what each search found, `[runs, budget]`, after each number of cells."""
    print("| scored cells | " + " | ".join(found) + " |")
    print("| ---: |" + " --- |" * len(found))
    for budget in budgets:
        row = [mean_and_interval(values[:, budget - 1]) for values in found.values()]
        print(f"| {budget} | " + " | ".join(row) + " |")


def print_cells_to_reach(found: dict[str, np.ndarray], budgets: list[int]) -> None:
    """Prints how many cells each search, `[runs, budget]`, scores to find what random one finds."""
    names = [name for name in found if name != "random"]
    print("| random search | " + " | ".join(names) + " |")
    print("| ---: |" + " --- |" * len(names))
    for budget in budgets:
        row = [cells_to_reach(found["random"], found[name], budget) for name in names]
        print(f"| {budget} | " + " | ".join(row) + " |")


def read_tables() -> tuple[np.ndarray, np.ndarray]:
    """Scores and accuracies by code, `[15625]` each, NaN where there is none."""
    table = pd.read_csv(_SCORES.value)
    if _DATASET.value:
        table = table[table["dataset"] == _DATASET.value]
    by_arch = read_accuracies(_ACCURACIES.value, _ACCURACY.value, space=NASBENCH201)
    codes = np.asarray(encode(jnp.array([parse_arch(arch) for arch in table["arch"]])))
    scores, accuracies = np.full((2, NUM_CELLS), np.nan)
    scores[codes] = table[_COLUMN.value]
    accuracies[codes] = [by_arch[arch] for arch in table["arch"]]
    return scores, accuracies


def at(values: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Looks up the values `[15625]` of cells `[A, E]`; returns `[A]`."""
    return values[cells @ 5 ** np.arange(5, -1, -1)]


def evolution(candidates_per_step: int, space: SearchSpace) -> algorithms.Algorithm:
    """Evolution with the population and tournament of configs/base.py."""
    return algorithms.evolution(
        population=30, tournament=10, candidates_per_step=candidates_per_step, space=space
    )


def many_runs(
    algorithm: algorithms.Algorithm,
    scores: np.ndarray,
    accuracies: np.ndarray,
    budget: int,
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Score and accuracy of the cell chosen after 1, 2, ... scored cells: `[runs, budget]` each."""
    found = np.full((2, _RUNS.value, budget), np.nan)
    for run, key in enumerate(tqdm(jax.random.split(jax.random.key(0), _RUNS.value), desc=name)):
        result = algorithms.run(algorithm, key, lambda cells: at(scores, cells), budget)
        is_best = result.scores > np.append(-np.inf, np.maximum.accumulate(result.scores)[:-1])
        chosen = np.maximum.accumulate(np.where(is_best, np.arange(len(is_best)), 0))
        # A search that ended early keeps its choice.
        chosen = np.pad(chosen, (0, budget - len(chosen)), mode="edge")
        found[0, run] = result.scores[chosen]
        found[1, run] = at(accuracies, result.genotypes)[chosen]
    return found[0], found[1]


def mean_and_interval(values: np.ndarray) -> str:
    """The mean of values with its normal 95 % interval."""
    half = stats.norm.ppf(0.975) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.2f} ± {half:.2f}"


def cells_to_reach(by_chance: np.ndarray, found: np.ndarray, budget: int) -> str:
    """The first number of cells at which the mean reaches that of random search after a budget."""

    def first(by_chance: np.ndarray, found: np.ndarray) -> float:
        reached = np.mean(found, axis=0) >= np.mean(by_chance[:, budget - 1])
        return float(np.argmax(reached) + 1) if reached.any() else np.inf

    rng = np.random.default_rng(0)
    drawn = rng.integers(0, _RUNS.value, (_NUM_RESAMPLES, 2, _RUNS.value))
    resampled = [first(by_chance[rows[0]], found[rows[1]]) for rows in drawn]
    low, high = np.quantile(resampled, [0.025, 0.975], method="nearest")
    values = [first(by_chance, found), low, high]
    texts = ["never" if np.isinf(value) else f"{value:.0f}" for value in values]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


if __name__ == "__main__":
    app.run(main)
