r"""How much of accuracy and latency a search finds by scores and latencies (docs/search.md).

NSGA-II, evolution and random search look at the same number of NAS-Bench-201's cells. They see
scores and latencies from tables; their results are judged by accuracies from a table: the
hypervolume of accuracy and latency, as a share of that of all cells. Cells without a score or a
latency are left out of the space.

Command:  python -m experiments.multi_objective --scores=results/space_cifar10_fast.csv.gz \
              --benchmark=nasbench201.csv.gz --accuracy=cifar10_test_200 \
              --latencies=nasbench201_hw.csv.gz \
              --latency=cifar10_edgegpu_latency,cifar10_raspi4_latency
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
import pandas as pd
from absl import app, flags

from epe_nas_jax import BEST_RANKING
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.search import algorithms, ranking, simulation
from epe_nas_jax.search.algorithms import Algorithm, ScoreFn
from epe_nas_jax.search.nsga2 import nsga2
from epe_nas_jax.search.restrict import restrict
from epe_nas_jax.spaces.base import SearchSpace
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

BUDGETS = (100, 300, 1000)
SEARCHES = ("random", "evolution", "nsga2")
# Lower accuracies do not count in the hypervolume: nobody wants them, and they are easy to beat.
_LEAST_ACCURACY = 80.0
_POPULATION, _CANDIDATES = 30, 24


def makers(space: SearchSpace, costs: ScoreFn, budget: int) -> dict[str, Algorithm]:
    """The searches with a budget, by name."""
    return {
        "random": algorithms.random(budget, space=space),
        "evolution": algorithms.evolution(
            population=_POPULATION, tournament=10, candidates_per_step=_CANDIDATES, space=space
        ),
        "nsga2": nsga2(
            population=_POPULATION, candidates_per_step=_CANDIDATES, costs=costs, space=space
        ),
    }


def column_of(values: pd.Series) -> Callable[[np.ndarray], np.ndarray]:
    """A column of a table of cells by arch string, as a function of genotypes `[A, 6]`."""
    by_cell = {NASBENCH201.parse(str(arch)).tobytes(): value for arch, value in values.items()}

    def look_up(genotypes: np.ndarray) -> np.ndarray:
        cells = np.asarray(genotypes, np.int32)
        return np.array([by_cell.get(cell.tobytes(), np.nan) for cell in cells])

    return look_up


def shares(
    scores: pd.Series, latencies: pd.Series, accuracies: pd.Series, budget: int, num_seeds: int
) -> dict[str, np.ndarray]:
    """By name of a search, what share of the hypervolume of all cells it finds, `[seeds]`."""
    known = pd.concat([scores, latencies, accuracies], axis=1, join="inner").dropna()
    score, latency, accuracy = (column_of(known.iloc[:, place]) for place in range(3))
    space = restrict(NASBENCH201, lambda cells: ~np.isnan(score(cells)))

    def volume(genotypes: np.ndarray) -> float:
        return ranking.hypervolume(
            accuracy(genotypes),
            latency(genotypes),
            least_score=_LEAST_ACCURACY,
            most_cost=float(known.iloc[:, 1].max()),
        )

    assert space.every is not None
    whole = volume(space.every())
    found: dict[str, list[float]] = {}
    for seed in range(num_seeds):
        for name, algorithm in makers(space, latency, budget).items():
            # All searches begin with the same cells.
            result = algorithms.run(algorithm, jax.random.key(seed), score, budget)
            # A search recommends the front, by its scores, of the cells that it saw.
            front = ranking.pareto_front(result.scores, latency(result.genotypes))
            found.setdefault(name, []).append(volume(result.genotypes[front]) / whole)
    return {name: np.array(values) for name, values in found.items()}


def table_of(
    scores: pd.Series, latencies: pd.Series, accuracies: pd.Series, *, num_seeds: int
) -> Table:
    """The shares of all searches and budgets, in percent, with standard deviations over seeds."""
    rows = []
    for budget in BUDGETS:
        row = [str(budget)]
        for values in shares(scores, latencies, accuracies, budget, num_seeds).values():
            mean, deviation = simulation.spread(100 * values)
            row.append(f"{mean:.2f} ± {deviation:.2f}")
        rows.append(row)
    return Table(str(latencies.name), ["cells", *SEARCHES], rows)


def scores_of(path: str) -> pd.Series:
    """The recommended score of all cells of a space, by arch string."""
    table = pd.read_csv(path).set_index("arch")
    return pd.Series(ranking.log_rank_sum(table[list(BEST_RANKING)].to_numpy()), table.index)


def main(_: Sequence[str]) -> None:
    """Prints a table for every latency as Markdown."""
    args = flags.FLAGS
    accuracies = pd.read_csv(args.benchmark).set_index("arch")[args.accuracy]
    latencies = pd.read_csv(args.latencies).set_index("arch")
    guides = {"the recommended score": scores_of(args.scores), "accuracy itself": accuracies}
    for column in args.latency:
        for guide, scores in guides.items():
            table = table_of(scores, latencies[column], accuracies, num_seeds=args.seeds)
            print(as_markdown(table._replace(title=f"{column}, by {guide}")), end="\n\n")


if __name__ == "__main__":
    flags.DEFINE_string("scores", None, "Proxies of all cells, like scores.csv.", required=True)
    flags.DEFINE_string("benchmark", None, "A table of accuracies.", required=True)
    flags.DEFINE_string("accuracy", None, "The benchmark's column.", required=True)
    flags.DEFINE_string("latencies", None, "A table of latencies.", required=True)
    flags.DEFINE_list("latency", None, "Columns of the table of latencies.", required=True)
    flags.DEFINE_integer("seeds", 20, "Searches of each kind.")
    app.run(main)
