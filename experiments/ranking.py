r"""How well proxies and their combinations rank: the tables of docs/ranking.md.

Of every data set the cells are used on which the recommended combination was not chosen: all but
every third of the first 1,500. Combinations are ranked among these cells or, in a simulated search,
among the cells that the search drew. Intervals are 95 %, by 1,000 bootstrap resamples of the cells;
those of searches by 200 resamples with 20 searches each.

Command:  python -m experiments.ranking --benchmark=nasbench201.csv.gz \
              --published=nasbench201_zc_9445.csv.gz --ablation=results/ablation_cifar10.csv.gz
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from absl import app, flags
from scipy import stats
from sklearn.metrics import ndcg_score
from tqdm import tqdm

from epe_nas_jax import BEST_RANKING, parse_arch
from epe_nas_jax.data import score_files
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.data.score_files import ScoredCells
from epe_nas_jax.reports.text import Table, as_markdown, interval
from epe_nas_jax.search import ranking, simulation
from epe_nas_jax.search.ranking import Combine
from epe_nas_jax.spaces.nasbench201 import cost
from epe_nas_jax.spaces.nasbench201.genotype import OPERATIONS, canonical_form, prune_dead
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
from experiments.choice import CHOSEN_OF, CHOSEN_ON, unscored_last

_RESULTS = Path(__file__).parent.parent / "results"
_BENCHMARK = flags.DEFINE_string("benchmark", None, "Trained accuracies.", required=True)
_PUBLISHED = flags.DEFINE_string("published", "", "Published scores of other proxies.")
_ABLATION = flags.DEFINE_string("ablation", "", "The file of scores that `ablation.py` wrote.")
_SEARCHES = flags.DEFINE_integer("searches", 500, "Searches of each length.", lower_bound=1)
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Bootstrap resamples.", lower_bound=2)

# Scored cells and the benchmark's column.
DATASETS = {
    "cifar10": ("scores_cifar10_4500.csv.gz", "cifar10_test_200"),
    "cifar100": ("scores_cifar100_4500.csv.gz", "cifar100_test_200"),
    "imagenet16_120": ("scores_imagenet16_4500.csv.gz", "imagenet16_test_200"),
}
ALONE = ("epe", *BEST_RANKING, "params", "live_mflops")
TOGETHER = (
    ("epe", "live_params"),
    ("jacob_cov", "live_params"),
    ("jacob_cov", "nwot", "live_params"),
    ("jacob_cov", "grad_entropy", "live_params"),
    *((*BEST_RANKING[:i], *BEST_RANKING[i + 1 :]) for i in range(len(BEST_RANKING))),
    BEST_RANKING,
)
# Shown a second time with cells without a score ranked last.
WHOLE = (("epe",), ("params",), ("live_params",), ("jacob_cov", "live_params"), BEST_RANKING)
# The number of first places of a ranking that count in nDCG.
PLACES = 100
HEADS = ("Spearman", "Kendall", "Spearman, top 20 %", f"nDCG, {PLACES} places")
SIZES = (10, 100, 1000)
TOPS = (1, 5, 10)
# The sizes of the network that the ablation scored.
NETWORK = cost.Sizes(channels=16, cells_per_stage=5, num_classes=10)
# Variants of the ablation that differ in their images only, from the roughest to the smoothest.
IMAGES = (
    "noise",
    "weights_0",
    "blurred",
    "half_class_mean",
    "digits",
)
_CHOSEN_AMONG = ("epe", *BEST_RANKING)
_POOLS, _SEARCHES_OF_POOL = 200, 20


def main(argv: Sequence[str]) -> None:
    """Prints the tables as Markdown."""
    del argv
    chosen_on = read("cifar10").index[:CHOSEN_OF:CHOSEN_ON]
    printed = [choice_table(chosen_on)]
    for dataset in DATASETS:
        scores = read(dataset)
        cells = joined(dataset, scores[~scores.index.isin(chosen_on)], dataset)
        printed += tables(cells, chosen_on)
        if _PUBLISHED.value:
            published = score_files.read_published(_PUBLISHED.value, dataset, space=NASBENCH201)
            if published is not None:
                printed.append(published_table(score_files.beside_published(cells, published)))
    printed += [crossed_table(chosen_on), accuracies_table(chosen_on)]
    if _ABLATION.value:
        printed += ablation_tables()
    print("\n\n".join(map(as_markdown, printed)))


def read(dataset: str) -> pd.DataFrame:
    """The scored cells of a data set, with EPE-NAS under its own name."""
    path = _RESULTS / DATASETS[dataset][0]
    scores = score_files.read_scores(str(path), space=NASBENCH201)
    return scores.rename(columns={score_files.SCORE: "epe"})


def joined(name: str, scores: pd.DataFrame, dataset: str) -> ScoredCells:
    """Scores with the accuracies of a data set."""
    by_arch = read_accuracies(_BENCHMARK.value, DATASETS[dataset][1], space=NASBENCH201)
    return score_files.with_accuracies(name, scores, {"test": by_arch})


def methods() -> dict[str, tuple[tuple[str, ...], Combine]]:
    """The rows of a table: columns, and how they become one score."""
    rows: dict[str, tuple[tuple[str, ...], Combine]] = {}
    for name in ALONE:
        rows[name] = ((name,), lambda values: values[:, 0])
    for names in TOGETHER:
        rows[" + ".join(names)] = (names, ranking.log_rank_sum)
    rows["the same by `rank_sum`"] = (BEST_RANKING, ranking.rank_sum)
    return rows


def choice_table(chosen_on: pd.Index) -> Table:
    """The best sums of log ranks on the cells of the choice."""
    cells = joined("cifar10", read("cifar10").loc[chosen_on], "cifar10")
    accuracies = cells.accuracies["test"].to_numpy()
    found = []
    for size in range(2, len(_CHOSEN_AMONG) + 1):
        for names in itertools.combinations(_CHOSEN_AMONG, size):
            combined = ranking.log_rank_sum(cells.scores[list(names)].to_numpy())
            known = ~np.isnan(combined)
            rho = stats.spearmanr(combined[known], accuracies[known]).statistic
            tau = stats.kendalltau(combined[known], accuracies[known]).statistic
            found.append((rho, tau, " + ".join(names)))
    rows = [[names, f"{rho:.3f}", f"{tau:.3f}"] for rho, tau, names in sorted(found)[::-1][:10]]
    return Table(
        f"The best 10 of {len(found)} sums of log ranks, {len(chosen_on)} cells of the choice",
        ["proxies", "Spearman", "Kendall"],
        rows,
    )


def tables(cells: ScoredCells, chosen_on: pd.Index) -> list[Table]:
    """How the methods order a data set's cells, and how accurate the cells are that they choose."""
    accuracies = cells.accuracies["test"].to_numpy()
    orders, choices = [], []
    for name, (columns, combine) in tqdm(methods().items(), desc=cells.dataset, leave=False):
        values = cells.scores[list(columns)].to_numpy()
        combined = combine(values)
        orders.append([name, *correlations(combined, accuracies)])
        choices.append([name, *tops(combined, accuracies), *searches(values, combine, accuracies)])
    for names in WHOLE:
        combined = unscored_last(ranking.log_rank_sum(cells.scores[list(names)].to_numpy()))
        name = f"{' + '.join(names)}, cells without a score last"
        orders.append([name, *correlations(combined, accuracies)])
    combined = recommended(cells.scores)
    seen = {canonical_form(parse_arch(arch)) for arch in chosen_on}
    new = np.array([canonical_form(parse_arch(str(a))) not in seen for a in cells.scores.index])
    name = f"the last, of the {new.sum()} cells isomorphic to none of the choice"
    orders.append([name, *correlations(unscored_last(combined)[new], accuracies[new])])
    counted = f"{len(combined)} cells, {int(np.isnan(combined).sum())} of them without a score"
    chosen = [f"mean of its best {k}" if k > 1 else "its best" for k in TOPS]
    best_of_them = f"{accuracies.max():.2f} is the best of them"
    return [
        Table(f"{cells.dataset}, {counted}", ["proxy", *HEADS], orders),
        Table(
            f"{cells.dataset}: test accuracy of what is chosen, {best_of_them}; "
            f"of {_SEARCHES.value} searches",
            ["proxy", *chosen, *(f"best of N = {size}" for size in SIZES)],
            choices,
        ),
    ]


def recommended(scores: pd.DataFrame) -> np.ndarray:
    """The recommended combination's scores."""
    return ranking.log_rank_sum(scores[list(BEST_RANKING)].to_numpy())


def correlations(scores: np.ndarray, accuracies: np.ndarray) -> list[str]:
    """The orders' agreement with accuracy, over the cells with a score."""
    known = ~np.isnan(scores)
    scores, accuracies = scores[known], accuracies[known]
    top = ranking.most_accurate(scores, accuracies, 0.2)
    kendall = ranking.kendall(scores, accuracies, num_resamples=_RESAMPLES.value)
    gain = ranking.with_interval(ndcg, scores, accuracies, num_resamples=_RESAMPLES.value)
    return [
        spearman(scores, accuracies),
        interval(kendall and kendall._asdict()),
        spearman(scores[top], accuracies[top]),
        interval(gain._asdict()),
    ]


def spearman(scores: np.ndarray, accuracies: np.ndarray) -> str:
    """Spearman's rho with its interval."""
    found = ranking.spearman(scores, accuracies, num_resamples=_RESAMPLES.value)
    return interval(found and found._asdict())


def tops(scores: np.ndarray, accuracies: np.ndarray) -> list[str]:
    """Mean accuracy of the cells with the best scores."""
    known = ~np.isnan(scores)
    cells = []
    for k in TOPS:

        def mean_of_best(scores: np.ndarray, accuracies: np.ndarray, k: int = k) -> float:
            return float(accuracies[ranking.top_k(scores, k)].mean())

        mean = ranking.with_interval(
            mean_of_best, scores[known], accuracies[known], num_resamples=_RESAMPLES.value
        )
        cells.append(interval(mean._asdict(), digits=2))
    return cells


def searches(values: np.ndarray, combine: Combine, accuracies: np.ndarray) -> list[str]:
    """Accuracy of what random searches choose, each of which ranks only what it drew.

    Mean and standard deviation over all searches, and the interval of the mean.
    """

    def chosen(rows: np.ndarray) -> float:
        best = ranking.best_index(combine(values[rows]))
        return np.nan if best is None else float(accuracies[rows[best]])

    cells = []
    draws = simulation.draw_searches(
        len(values), min(SIZES[-1], len(values)), num_searches=_SEARCHES.value, seed=0
    )
    pools = np.random.default_rng(0).integers(0, len(values), (_POOLS, len(values)))
    for size in SIZES:
        if size > len(values):
            cells.append("-")
            continue
        mean, deviation = simulation.spread(np.array([chosen(draw[:size]) for draw in draws]))
        means = [
            np.nanmean([chosen(pool[draw[:size]]) for draw in draws[:_SEARCHES_OF_POOL]])
            for pool in pools
        ]
        low, high = np.percentile(means, (2.5, 97.5))
        cells.append(f"{mean:.2f} ± {deviation:.2f} [{low:.2f}, {high:.2f}]")
    return cells


def published_table(both: ScoredCells) -> Table:
    """Published proxies beside ours, on the cells that have all scores."""
    accuracies = both.accuracies["test"].to_numpy()
    names = {str(name): both.scores[name].to_numpy() for name in both.scores}
    ours = {name: names[name] for name in ("epe", "live_params")}
    ours["recommended"] = recommended(both.scores)
    columns = ["jacov (published)", "params (published)"]
    if set(columns) <= set(both.scores):
        ours[" + ".join(columns)] = ranking.log_rank_sum(both.scores[columns].to_numpy())
    rows = [
        [name, *correlations(values, accuracies)]
        for name, values in {**names, **ours}.items()
        if name in ours or "published" in name
    ]
    rows.sort(key=lambda row: row[1], reverse=True)
    return Table(f"{both.dataset}, {len(accuracies)} cells that all have", ["proxy", *HEADS], rows)


def crossed_table(chosen_on: pd.Index) -> Table:
    """The recommended combination, by the images it was scored on and the accuracies to rank."""
    rows = []
    for images in DATASETS:
        scores = read(images)
        was_chosen_on = scores.index.isin(chosen_on)
        for which, some in (("the others", ~was_chosen_on), ("chosen on", was_chosen_on)):
            for dataset in DATASETS:
                cells = joined(images, scores[some], dataset)
                found = correlations(recommended(cells.scores), cells.accuracies["test"].to_numpy())
                rows.append([f"{images}, {which}", dataset, *found])
    return Table(
        "The recommended combination on cells with a score, by images and by accuracies",
        ["images, cells", "accuracies", *HEADS],
        rows,
    )


def accuracies_table(chosen_on: pd.Index) -> Table:
    """How accuracies on CIFAR-10, instead of a proxy, rank the accuracies on other data sets."""
    scores = read("cifar10")
    others = scores[~scores.index.isin(chosen_on)]
    of = {name: joined(name, others, name).accuracies["test"].to_numpy() for name in DATASETS}
    rows = [[name, *correlations(of["cifar10"], of[name])] for name in list(DATASETS)[1:]]
    return Table("CIFAR-10 accuracies in place of a score", ["accuracies", *HEADS], rows)


def ablation_tables() -> list[Table]:
    """How the mini-batch and the weights change the proxies of the same cells."""
    table = pd.read_csv(_ABLATION.value)
    variants = {
        str(name): rows.drop(columns="variant").set_index("arch")
        for name, rows in table.groupby("variant", sort=False)
    }
    weights = [rows for name, rows in variants.items() if name.startswith("weights_")]
    for number in (2, 4, len(weights)):
        mean = sum(weights[1:number], weights[0]) / number
        variants[f"mean of weights 0 to {number - 1}"] = mean
    known = variants["weights_0"].index
    for rows in variants.values():
        known = known[rows.loc[known].notna().all(axis=1)]
    variants = {name: rows.loc[known] for name, rows in variants.items()}
    by_arch = read_accuracies(_BENCHMARK.value, DATASETS["cifar10"][1], space=NASBENCH201)
    accuracies = np.array([by_arch[str(arch)] for arch in known])
    cells = np.array([parse_arch(str(arch)) for arch in known])
    return [
        variants_table(variants, accuracies, cells),
        images_table({name: variants[name] for name in IMAGES}, accuracies, cells),
    ]


def variants_table(
    variants: dict[str, pd.DataFrame], accuracies: np.ndarray, cells: np.ndarray
) -> Table:
    """One thing changed at a time: Spearman with accuracy, and with the first variant's scores."""
    live_params = cost.parameters(cells, NETWORK, live=True)
    lines = []
    columns = [name for name in BEST_RANKING if name != "live_params"]
    for name, rows in tqdm(variants.items(), desc="ablation", leave=False):
        combined = recommended(rows.assign(live_params=live_params))
        agreement = stats.spearmanr(rows["epe"], variants["weights_0"]["epe"]).statistic
        alone = [spearman(rows[c].to_numpy(), accuracies) for c in ("epe", *columns)]
        lines.append([name, f"{agreement:.3f}", *alone, *correlations(combined, accuracies)[:2]])
    heads = ["epe with the first's", "epe", *columns, "recommended", "recommended, Kendall"]
    return Table(f"cifar10, {len(cells)} cells: Spearman with accuracy", ["variant", *heads], lines)


def images_table(
    variants: dict[str, pd.DataFrame], accuracies: np.ndarray, cells: np.ndarray
) -> Table:
    """What epe correlates with, on images from the roughest to the smoothest."""
    live_params = cost.parameters(cells, NETWORK, live=True)
    live = prune_dead(cells)
    of_operation = {
        name: np.sum(live == OPERATIONS.index(name), axis=1)
        for name in ("nor_conv_3x3", "nor_conv_1x1", "skip_connect")
    }
    lines = []
    for name, rows in variants.items():
        scores = rows["epe"].to_numpy()
        highest = scores > scores.max() - 0.05 * np.ptp(scores)
        numbers = [
            stats.spearmanr(scores, accuracies).statistic,
            *(stats.spearmanr(scores, count).statistic for count in of_operation.values()),
            partial_spearman(scores, accuracies, live_params),
        ]
        lines.append([name, *(f"{number:.3f}" for number in numbers), str(highest.sum())])
    heads = [
        "with accuracy",
        *(f"with the number of {name}" for name in of_operation),
        "with accuracy, live_params being equal",
        "cells in the upper 5 % of the scores' range",
    ]
    return Table(f"cifar10, {len(cells)} cells: Spearman of epe", ["images", *heads], lines)


def partial_spearman(scores: np.ndarray, accuracies: np.ndarray, given: np.ndarray) -> float:
    """Spearman's rho of scores and accuracies when the ranks of a third value are held constant."""
    rho = stats.spearmanr(np.stack([scores, accuracies, given], axis=1)).statistic
    inverse = np.linalg.inv(rho)
    return float(-inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1]))


def ndcg(scores: np.ndarray, accuracies: np.ndarray) -> float:
    """Normalised discounted cumulative gain with gains 2^accuracy: one percent more doubles a gain.

    Infinite scores are replaced by the largest or smallest finite one.
    """
    finite = np.clip(scores, *np.percentile(scores[np.isfinite(scores)], (0, 100)))
    gains = 2.0 ** (accuracies - accuracies.max())
    return float(ndcg_score([gains], [finite], k=PLACES))


if __name__ == "__main__":
    app.run(main)
