r"""How well proxies rank the whole space: exact figures, by two protocols (docs/ranking.md).

The first table is for all 15,625 cells, those without a score last; the second for the 9,445 cells
without dead operations, which some authors use; the third leaves out cells that are isomorphic to
one of those on which the recommended combination was chosen. Scores are the `scores.csv` of a
search of all cells. Nothing is sampled, so there are no intervals; searches are drawn from all
cells.

Command:  python -m experiments.whole_space --benchmark=nasbench201.csv.gz \
              --scores=cifar10=results/space_cifar10_fast.csv.gz
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from absl import app, flags
from scipy import stats

from epe_nas_jax import BEST_RANKING, InputError, parse_arch
from epe_nas_jax.data import score_files
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.data.table import DATASETS
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.search import ranking, simulation
from epe_nas_jax.spaces.nasbench201.genotype import NUM_CELLS, canonical_form, prune_dead
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
from experiments.choice import CHOSEN_ON, combined, drawn_cells

_SCORES = flags.DEFINE_multi_string(
    "scores", None, "Scores of all cells, as DATASET=FILE; may be repeated.", required=True
)
_BENCHMARK = flags.DEFINE_string("benchmark", None, "Trained accuracies.", required=True)
_SEARCHES = flags.DEFINE_integer("searches", 500, "Searches of each length.", lower_bound=1)

METHODS = (
    ("epe",),
    ("params",),
    ("live_params",),
    *((name,) for name in BEST_RANKING if name != "live_params"),
    ("jacob_cov", "live_params"),
    BEST_RANKING,
    (*BEST_RANKING, "few_pools", "little_pooling", "wide_convs"),
)
_HEADS = ("Spearman", "Kendall", "Spearman, top 20 %")
_SIZES = (10, 100, 1000)


class Space(NamedTuple):
    """All cells with their scores and accuracies.

    Attributes:
      name: name of the data set of the images and the accuracies.
      scores: a row per cell and a column per proxy.
      accuracies: `[A]`.
      is_live: which cells have no dead operation, bool `[A]`.
      is_new: which cells are isomorphic to none on which the combination was chosen, bool `[A]`.
    """

    name: str
    scores: pd.DataFrame
    accuracies: np.ndarray
    is_live: np.ndarray
    is_new: np.ndarray


def main(argv: Sequence[str]) -> None:
    """Prints the tables as Markdown."""
    del argv
    printed = []
    for text in _SCORES.value:
        space = read(*text.split("=", 1))
        everywhere = np.ones(len(space.accuracies), bool)
        for title, some in (
            ("all cells", everywhere),
            ("without dead operations", space.is_live),
            (
                "without dead operations, isomorphic to none of the choice",
                space.is_live & space.is_new,
            ),
        ):
            printed.append(order_table(space, title, some))
        printed.append(choice_table(space))
    print("\n\n".join(map(as_markdown, printed)))


def read(name: str, path: str) -> Space:
    """Reads the scores of all cells and joins them with a data set's accuracies."""
    scores = score_files.read_scores(path, space=NASBENCH201)
    if len(scores) != NUM_CELLS:
        raise InputError(f"{path}: found {len(scores)} cells, expected all {NUM_CELLS}")
    if "epe" not in scores:
        # In a search that maximised epe, it is the column of the score.
        scores = scores.rename(columns={score_files.SCORE: "epe"})
    cells = np.array([parse_arch(str(arch)) for arch in scores.index])
    by_arch = read_accuracies(
        _BENCHMARK.value, DATASETS[name].accuracy_columns[0], space=NASBENCH201
    )
    seen = {canonical_form(parse_arch(arch)) for arch in drawn_cells()[::CHOSEN_ON]}
    return Space(
        name,
        scores,
        np.array([by_arch[str(arch)] for arch in scores.index]),
        (cells == prune_dead(cells)).all(axis=1),
        np.array([canonical_form(cell) not in seen for cell in cells]),
    )


def methods(space: Space) -> list[tuple[str, ...]]:
    """The methods all of whose columns are there."""
    return [names for names in METHODS if set(names) <= set(space.scores)]


def order_table(space: Space, title: str, some: np.ndarray) -> Table:
    """How the methods order some of the cells, bool `[A]`."""
    scores, accuracies = space.scores[some], space.accuracies[some]
    rows = []
    for names in methods(space):
        found = combined(scores, names)
        top = ranking.most_accurate(found, accuracies, 0.2)
        numbers = [
            stats.spearmanr(found, accuracies).statistic,
            stats.kendalltau(found, accuracies).statistic,
            stats.spearmanr(found[top], accuracies[top]).statistic,
        ]
        rows.append([" + ".join(names), *(f"{number:.3f}" for number in numbers)])
    return Table(f"{space.name}, {len(accuracies)} cells, {title}", ["proxy", *_HEADS], rows)


def choice_table(space: Space) -> Table:
    """Accuracy of what the methods choose from all cells, and in random searches."""
    values, accuracies = space.scores, space.accuracies
    draws = simulation.draw_searches(
        len(accuracies), max(_SIZES), num_searches=_SEARCHES.value, seed=0
    )
    rows = []
    for names in methods(space):
        best = ranking.top_k(combined(values, names), 10)
        row = [" + ".join(names), *(f"{accuracies[best[:k]].mean():.2f}" for k in (1, 5, 10))]
        for size in _SIZES:
            chosen = [
                accuracies[drawn[np.argmax(combined(values.iloc[drawn], names))]]
                for drawn in draws[:, :size]
            ]
            mean, deviation = simulation.spread(np.array(chosen))
            row.append(f"{mean:.2f} ± {deviation:.2f}")
        rows.append(row)
    heads = ["its best", "mean of its best 5", "of its best 10", *(f"N = {n}" for n in _SIZES)]
    title = f"test accuracy of what is chosen, {accuracies.max():.2f} is the best"
    return Table(f"{space.name}: {title}; of {_SEARCHES.value} searches", ["proxy", *heads], rows)


if __name__ == "__main__":
    app.run(main)
