r"""Which settings rank well for their cost: the table and the plot of docs/fast.md.

The cheap setting is chosen on the cells on which the recommended combination was chosen too, by
their CIFAR-10 accuracies: the cheapest one that ranks them no worse than the full setting does,
and of settings that take the same tenth of a millisecond the one that ranks them better. All
settings are then reported on the other cells. Intervals are 95 %, by a paired bootstrap of the
cells.

Command:  python -m experiments.settings_tables --scores=results/settings_cifar10.csv.gz \
              --benchmark=nasbench201.csv.gz --plot=settings.png
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from absl import app, flags
from scipy import stats

from epe_nas_jax import BEST_RANKING, NasBench201Network, parse_arch
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.reports import plots
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.scoring.columns import RunCells, objective_of
from epe_nas_jax.search import ranking
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
from experiments.choice import ACCURACIES, CHOSEN_ON, DRAWN, drawn_cells
from experiments.settings import FULL, PROXIES, Setting, live_forms

_SCORES = flags.DEFINE_string("scores", None, "The file of `settings_scores.py`.", required=True)
_BENCHMARK = flags.DEFINE_string("benchmark", None, "Trained accuracies.", required=True)
_PLOT = flags.DEFINE_string("plot", "", "Where to write the plot.")
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Bootstrap resamples.", lower_bound=2)


class Ranked(NamedTuple):
    """A setting, what it costs and how it ranks the cells, `[A]`."""

    setting: Setting
    ms: float
    scores: np.ndarray


def main(argv: Sequence[str]) -> None:
    """Prints the table and the choice, and draws the plot."""
    del argv
    archs = drawn_cells()
    accuracies = {name: _accuracies(archs, column) for name, column in ACCURACIES.items()}
    is_choice = np.arange(len(archs)) % CHOSEN_ON == 0
    found = ranked_settings(archs)
    # Rounded to a tenth of a millisecond, because smaller differences are noise.
    costs = np.round([one.ms for one in found], 1)
    rho = np.array(
        [spearman(one.scores[is_choice], accuracies["CIFAR-10"][is_choice]) for one in found]
    )
    front = set(ranking.pareto_front(rho, costs))
    number = [one.setting for one in found].index(FULL)
    full, chosen = found[number], cheapest_as_good(costs, rho, number)
    rows = []
    for i in np.lexsort((-rho, costs)):
        one = found[i]
        marks = ("chosen" if i == chosen else "") or ("front" if i in front else "")
        on_others = [
            f"{spearman(one.scores[~is_choice], values[~is_choice]):.3f} / "
            f"{kendall(one.scores[~is_choice], values[~is_choice]):.3f}"
            for values in accuracies.values()
        ]
        low, high = loss(one, full, accuracies["CIFAR-10"], is_choice)
        on_choice = [f"{rho[i]:.3f}", f"[{low:+.3f}, {high:+.3f}]"]
        rows.append([name_of(one.setting), f"{one.ms:.1f}", *on_choice, *on_others, marks])
    header = [
        "setting",
        "ms a network",
        "Spearman, cells of the choice",
        "less the full one's, 95 %",
    ]
    header += [f"{name}, others" for name in ACCURACIES]
    print(as_markdown(Table("Settings, cheapest first", [*header, ""], rows)))
    if _PLOT.value:
        others = accuracies["CIFAR-10"][~is_choice]
        held_out = np.array([spearman(one.scores[~is_choice], others) for one in found])
        depths = np.array([one.setting.cells_per_stage for one in found])
        figure = plots.cost_of_ranking(
            costs,
            held_out,
            is_shallow=depths < FULL.cells_per_stage,
            front=ranking.pareto_front(held_out, costs),
            chosen=chosen,
            name=name_of(found[chosen].setting),
        )
        Path(_PLOT.value).write_bytes(plots.to_png(figure))


def cheapest_as_good(costs: np.ndarray, rho: np.ndarray, full: int) -> int:
    """The cheapest setting that ranks no worse than the full one; of equal cost the better one."""
    as_good = np.flatnonzero(rho >= rho[full])
    return int(as_good[np.lexsort((-rho[as_good], costs[as_good]))[0]])


def ranked_settings(archs: list[str]) -> list[Ranked]:
    """All settings with the combined score of each cell, by ranks among all of them."""
    scored = pd.read_csv(_SCORES.value)
    full = pd.read_csv(DRAWN, usecols=["arch", *PROXIES])
    networks = live_forms(archs)
    cells = np.array([parse_arch(arch) for arch in archs])
    objective = objective_of(BEST_RANKING, "log_rank_sum")
    found = []
    key: Any
    for key, rows in scored.groupby(list(Setting._fields), sort=False):
        setting = Setting(*key)
        if setting == FULL:
            of_cells = full.set_index("arch").loc[archs]
        else:
            of_cells = rows.set_index("arch").loc[networks]
        network = NasBench201Network(
            10, channels=setting.channels, cells_per_stage=setting.cells_per_stage
        )
        proxies = {name: of_cells[name].to_numpy() for name in PROXIES}
        values = objective.values(proxies, RunCells(cells, network, setting.side))
        found.append(Ranked(setting, float(rows["ms"].iloc[0]), ranking.log_rank_sum(values)))
    return found


def loss(
    one: Ranked, full: Ranked, accuracies: np.ndarray, is_choice: np.ndarray
) -> tuple[float, float]:
    """The 95 % interval of a setting's Spearman on the cells of the choice less the full one's."""
    known = is_choice & ~np.isnan(one.scores) & ~np.isnan(full.scores)
    cells = np.flatnonzero(known)
    drawn = np.random.default_rng(0).choice(cells, (_RESAMPLES.value, len(cells)))
    differences = [
        spearman(one.scores[rows], accuracies[rows]) - spearman(full.scores[rows], accuracies[rows])
        for rows in drawn
    ]
    low, high = np.percentile(differences, (2.5, 97.5))
    return float(low), float(high)


def spearman(scores: np.ndarray, accuracies: np.ndarray) -> float:
    """Spearman's rho over the cells with a score."""
    return _statistic(stats.spearmanr, scores, accuracies)


def kendall(scores: np.ndarray, accuracies: np.ndarray) -> float:
    """Kendall's tau over the cells with a score."""
    return _statistic(stats.kendalltau, scores, accuracies)


def name_of(setting: Setting) -> str:
    """A setting in words, with whatever differs from the full network."""
    text = f"{setting.side}x{setting.side}, {setting.batch_size} images"
    if setting.cells_per_stage != FULL.cells_per_stage:
        text += f", {setting.cells_per_stage} cells a stage"
    if setting.channels != FULL.channels:
        text += f", {setting.channels} channels"
    return text if setting.num_inits == 1 else f"{text}, {setting.num_inits} draws"


def _accuracies(archs: Sequence[str], column: str) -> np.ndarray:
    by_arch = read_accuracies(_BENCHMARK.value, column, space=NASBENCH201)
    return np.array([by_arch[arch] for arch in archs])


def _statistic(statistic: Any, scores: np.ndarray, accuracies: np.ndarray) -> float:
    known = ~np.isnan(scores)
    return float(statistic(scores[known], accuracies[known]).statistic)


if __name__ == "__main__":
    app.run(main)
