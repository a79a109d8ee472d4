r"""A cheap search whose best cells are scored again at a full setting: its results and its cost.

Nothing is scored here: the proxies of the same cells at two settings come from CSV files (the
`scores.csv` of two searches with the recommended objective). Random searches are simulated on the
cells that both files and the benchmark have; the recommended columns are ranked among the cells
that a search drew or, where its best ones are scored again, among those. Seconds are networks times
their cost: cells that are equal without their dead operations are scored once.

Command:  python -m experiments.refinement --fast=fast.csv.gz --full=full.csv.gz \
              --benchmark=nasbench201.csv.gz --fast_ms=10 --full_ms=400
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import app, flags
from tqdm import tqdm

from epe_nas_jax import BEST_RANKING, parse_arch
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.data.score_files import read_scores
from epe_nas_jax.errors import InputError
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.search import ranking, refinement, simulation
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

_FAST = flags.DEFINE_string("fast", None, "Scores at the cheap setting.", required=True)
_FULL = flags.DEFINE_string("full", None, "Scores at the full setting.", required=True)
_FAST_MS = flags.DEFINE_float("fast_ms", None, "Milliseconds a network, cheap.", required=True)
_FULL_MS = flags.DEFINE_float("full_ms", None, "Milliseconds a network, full.", required=True)
_BENCHMARK = flags.DEFINE_string("benchmark", None, "Trained accuracies.", required=True)
_ACCURACY = flags.DEFINE_string("accuracy", "cifar10_test_200", "The benchmark's column.")
_SEARCHES = flags.DEFINE_integer("searches", 500, "Searches of each length.", lower_bound=1)
_SIZES = flags.DEFINE_list("sizes", ["100", "1000"], "Cells that a search draws.")
_SHARES = flags.DEFINE_list("shares", ["0.05", "0.1", "0.2", "0.5"], "Shares scored again.")


class Cells(NamedTuple):
    """Cells scored at both settings.

    Attributes:
      fast: the recommended columns at the cheap setting, `[A, P]`.
      full: the recommended columns at the full setting, `[A, P]`.
      accuracies: after training, `[A]`.
      networks: a number that identifies each cell's live form, `[A, 1]`.
    """

    fast: np.ndarray
    full: np.ndarray
    accuracies: np.ndarray
    networks: np.ndarray


class Outcome(NamedTuple):
    """What a search chose, and how many networks it scored.

    Attributes:
      accuracy: of the chosen cell; NaN if none has a score.
      num_fast: networks scored at the cheap setting.
      num_full: networks scored at the full setting.
    """

    accuracy: float
    num_fast: int
    num_full: int


def main(argv: Sequence[str]) -> None:
    """Prints a table for each length of a search, as Markdown."""
    del argv
    cells = read_cells()
    sizes = [int(size) for size in _SIZES.value]
    draws = simulation.draw_searches(
        len(cells.accuracies), max(sizes), num_searches=_SEARCHES.value, seed=0
    )
    tables = [table_of(cells, draws[:, :size]) for size in sizes]
    print("\n\n".join(map(as_markdown, tables)))


def read_cells() -> Cells:
    """The cells that both files of scores and the benchmark have."""
    fast, full = (read_scores(path, space=NASBENCH201) for path in (_FAST.value, _FULL.value))
    for path, scores in ((_FAST.value, fast), (_FULL.value, full)):
        for name in BEST_RANKING:
            if name not in scores:
                raise InputError(f"{path}: found no column {name}, expected {BEST_RANKING}")
    by_arch = read_accuracies(_BENCHMARK.value, _ACCURACY.value, space=NASBENCH201)
    known = [
        str(arch)
        for arch in fast.index
        if arch in full.index and not np.isnan(by_arch.get(str(arch), np.nan))
    ]
    columns = list(BEST_RANKING)
    genotypes = np.array([parse_arch(arch) for arch in known])
    return Cells(
        fast.loc[known, columns].to_numpy(),
        full.loc[known, columns].to_numpy(),
        np.array([by_arch[arch] for arch in known]),
        NASBENCH201.identity(prune_dead(genotypes)),
    )


def table_of(cells: Cells, draws: np.ndarray) -> Table:
    """What searches `[R, A]` find by each method, and how long they take."""
    methods = {"the cheap setting only": 0.0, "the full setting only": None} | {
        f"cheap, the best {float(share):.0%} again": float(share) for share in _SHARES.value
    }
    rows = []
    for name, share in methods.items():
        of_search = (Cells(*(part[rows] for part in cells)) for rows in draws)
        bar = tqdm(of_search, desc=name, total=len(draws), leave=False)
        found = [search(some, share) for some in bar]
        accuracies, num_fast, num_full = np.array(found).T
        spread = simulation.spread(accuracies)
        seconds = (num_fast * _FAST_MS.value + num_full * _FULL_MS.value) / 1000
        counts = [f"{number.mean():.1f}" for number in (num_fast, num_full)]
        accuracy = f"{spread.mean:.2f} ± {spread.deviation:.2f}"
        rows.append([name, accuracy, f"{seconds.mean():.2f}", *counts])
    title = (
        f"Test accuracy in % of the chosen cell: mean ± standard deviation of {len(draws)} random "
        f"searches of {draws.shape[1]} cells, drawn from {len(cells.accuracies)}"
    )
    header = ["scored at", "accuracy", "seconds", "networks, cheap", "networks, full"]
    return Table(title, header, rows)


def search(cells: Cells, share: float | None) -> Outcome:
    """Simulates a search by what it drew.

    Args:
      cells: the cells that it drew.
      share: the share of the best cells to score again at the full setting; 0: none; None: all
        cells are scored at the full setting alone.
    """
    num_networks = len(np.unique(cells.networks))
    num_fast, num_full = num_networks, 0
    if share is None:
        scores = ranking.log_rank_sum(cells.full)
        num_fast, num_full = 0, num_networks
    else:
        scores = ranking.log_rank_sum(cells.fast)
    if share:
        indices = refinement.best_share(scores, share)
        indices = refinement.with_equal_cells(indices, cells.networks)
        found = ranking.log_rank_sum(cells.full[indices])
        scores = refinement.refined_scores(scores, indices, found)
        num_full = len(np.unique(cells.networks[indices]))
    best = ranking.best_index(scores)
    return Outcome(np.nan if best is None else cells.accuracies[best], num_fast, num_full)


if __name__ == "__main__":
    app.run(main)
