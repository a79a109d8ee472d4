r"""How well proxies and their combinations rank: the tables of docs/ranking.md.

Of every data set the cells are taken on which the recommended combination was not chosen: all but
every third one of the CIFAR-10 file. Combinations are ranked among these cells or, in a simulated
search, among the cells that the search drew. Intervals are 95 %, of 1,000 bootstrap resamples of
the cells.

Command:  python -m benchmarks.ranking --benchmark=nasbench201.csv.gz \
              --published=nasbench201_zc_9445.csv.gz --ablation=results/ablation_cifar10.csv.gz
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from absl import app, flags
from scipy import stats
from sklearn.metrics import ndcg_score
from tqdm import tqdm

from configs import best
from epe_nas_jax import counts, parse_arch, ranking, scored, simulation
from epe_nas_jax.benchmark import read_accuracies
from epe_nas_jax.report import Table, as_markdown

_RESULTS = Path(__file__).parent.parent / "results"
_BENCHMARK = flags.DEFINE_string("benchmark", None, "Trained accuracies.", required=True)
_PUBLISHED = flags.DEFINE_string("published", "", "Published scores of other proxies.")
_ABLATION = flags.DEFINE_string("ablation", "", "What `ablation.py` wrote.")
_SEARCHES = flags.DEFINE_integer("searches", 500, "Searches of each length.", lower_bound=1)
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Of the bootstrap.", lower_bound=2)

# Scored cells and the benchmark's column.
DATASETS = {
    "cifar10": ("scores_cifar10_1500.csv.gz", "cifar10_test_200"),
    "cifar100": ("scores_cifar100_1500.csv.gz", "cifar100_test_200"),
    "imagenet16_120": ("scores_imagenet16_1500.csv.gz", "imagenet16_test_200"),
}
RECOMMENDED = tuple(best.get_config().score.objective)
ALONE = ("epe", *RECOMMENDED, "params", "live_mflops")
TOGETHER = (
    ("epe", "live_params"),
    ("jacob_cov", "live_params"),
    ("jacob_cov", "nwot", "live_params"),
    ("jacob_cov", "grad_entropy", "live_params"),
    *((*RECOMMENDED[:i], *RECOMMENDED[i + 1 :]) for i in range(len(RECOMMENDED))),
    RECOMMENDED,
)
# How many places of a ranking nDCG looks at.
PLACES = 100
SIZES = (10, 100, 1000)
TOPS = (1, 5, 10)
_CHOSEN_ON = 3

Combine = Callable[[np.ndarray], np.ndarray]


def main(argv: Sequence[str]) -> None:
    """Prints the tables as Markdown."""
    del argv
    chosen_on = read(DATASETS["cifar10"][0]).index[::_CHOSEN_ON]
    for dataset, (file, column) in DATASETS.items():
        scores = read(file)
        scores = scores[~scores.index.isin(chosen_on)]
        by_arch = read_accuracies(_BENCHMARK.value, column)
        accuracies = np.array([by_arch[str(arch)] for arch in scores.index])
        for table in tables(dataset, scores, accuracies):
            print(as_markdown(table), end="\n\n")
        published = None
        if _PUBLISHED.value:
            published = scored.read_published(_PUBLISHED.value, dataset)
        if published is not None:
            print(as_markdown(published_table(dataset, scores, published, by_arch)), end="\n\n")
    if _ABLATION.value:
        print(as_markdown(ablation_table()))


def read(file: str) -> pd.DataFrame:
    """Scored cells of `results`, with EPE-NAS under its own name."""
    return scored.read_scores(str(_RESULTS / file)).rename(columns={scored.SCORE: "epe"})


def methods() -> dict[str, tuple[tuple[str, ...], Combine]]:
    """The rows of a table: columns, and how they become one score."""
    rows: dict[str, tuple[tuple[str, ...], Combine]] = {}
    for name in ALONE:
        rows[name] = ((name,), lambda values: values[:, 0])
    for names in TOGETHER:
        rows[" + ".join(names)] = (names, ranking.log_rank_sum)
    rows["the same by `rank_sum`"] = (RECOMMENDED, ranking.rank_sum)
    return rows


def tables(dataset: str, scores: pd.DataFrame, accuracies: np.ndarray) -> list[Table]:
    """How the methods order a data set's cells, and what they choose."""
    orders, choices = [], []
    for name, (columns, combine) in tqdm(methods().items(), desc=dataset, leave=False):
        values = scores[list(columns)].to_numpy()
        combined = combine(values)
        orders.append([name, *correlations(combined, accuracies)])
        choices.append([name, *tops(combined, accuracies), *searches(values, combine, accuracies)])
    no_score = np.where(np.isnan(combined), -np.inf, ranking.log_rank_sum(values))
    name = "recommended, cells without a score last"
    orders.append([name, *correlations(no_score, accuracies)])
    cells = f"{len(scores)} cells, {int(np.isnan(combined).sum())} of them without a score"
    heads = ["Spearman", "Kendall", "Spearman, top 20 %", f"nDCG, {PLACES} places"]
    chosen = [f"mean of its best {k}" if k > 1 else "its best" for k in TOPS]
    top = f"{np.sort(accuracies)[-1]:.2f} is the best of them"
    return [
        Table(f"{dataset}, {cells}", ["proxy", *heads], orders),
        Table(
            f"{dataset}: test accuracy of what is chosen, {top}; of {_SEARCHES.value} searches",
            ["proxy", *chosen, *(f"best of N = {size}" for size in SIZES)],
            choices,
        ),
    ]


def correlations(scores: np.ndarray, accuracies: np.ndarray) -> list[str]:
    """The orders' agreement with accuracy, over the cells with a score."""
    known = ~np.isnan(scores)
    scores, accuracies = scores[known], accuracies[known]
    top = ranking.most_accurate(scores, accuracies, 0.2)
    return [
        interval(spearman, scores, accuracies),
        interval(kendall, scores, accuracies),
        interval(spearman, scores[top], accuracies[top]),
        interval(ndcg, scores, accuracies),
    ]


def tops(scores: np.ndarray, accuracies: np.ndarray) -> list[str]:
    """Mean accuracy of the cells that a proxy likes best."""
    known = ~np.isnan(scores)
    cells = []
    for k in TOPS:

        def mean_of_best(scores: np.ndarray, accuracies: np.ndarray, k: int = k) -> float:
            return float(accuracies[ranking.top_k(scores, k)].mean())

        cells.append(interval(mean_of_best, scores[known], accuracies[known], digits=2))
    return cells


def searches(values: np.ndarray, combine: Combine, accuracies: np.ndarray) -> list[str]:
    """Accuracy of what random searches choose, each of which ranks only what it drew."""
    cells = []
    draws = simulation.draw_searches(
        len(values), min(SIZES[-1], len(values)), num_searches=_SEARCHES.value, seed=0
    )
    for size in SIZES:
        found = []
        for draw in draws[:, :size]:
            chosen = ranking.best_index(combine(values[draw]))
            found.append(np.nan if chosen is None else accuracies[draw[chosen]])
        mean, deviation = simulation.spread(np.array(found))
        cells.append(f"{mean:.2f} ± {deviation:.2f}" if size <= len(values) else "-")
    return cells


def published_table(
    dataset: str, scores: pd.DataFrame, published: pd.DataFrame, by_arch: Mapping[str, float]
) -> Table:
    """Published proxies beside the recommended combination, on the cells that have all scores."""
    both = scores.join(published.add_suffix(" (published)"), how="inner").dropna()
    accuracies = np.array([by_arch[str(arch)] for arch in both.index])
    names = {name: both[name].to_numpy() for name in both if "published" in str(name)}
    names |= {"epe": both["epe"].to_numpy(), "live_params": both["live_params"].to_numpy()}
    names["recommended"] = ranking.log_rank_sum(both[list(RECOMMENDED)].to_numpy())
    rows = [[str(name), *correlations(values, accuracies)] for name, values in names.items()]
    rows.sort(key=lambda row: row[1], reverse=True)
    heads = ["Spearman", "Kendall", "Spearman, top 20 %", f"nDCG, {PLACES} places"]
    return Table(f"{dataset}, {len(both)} cells that all have", ["proxy", *heads], rows)


def ablation_table() -> Table:
    """One thing changed at a time: Spearman with accuracy, and with the first variant's scores."""
    table = pd.read_csv(_ABLATION.value)
    by_arch = read_accuracies(_BENCHMARK.value, DATASETS["cifar10"][1])
    variants = {
        str(name): rows.drop(columns="variant").set_index("arch")
        for name, rows in table.groupby("variant", sort=False)
    }
    weights = [rows for name, rows in variants.items() if name.startswith("weights_")]
    for number in (2, 4, len(weights)):
        mean = sum(weights[1:number], weights[0]) / number
        variants[f"mean of weights 0 to {number - 1}"] = mean
    first = variants["weights_0"]
    known = first.index
    for rows in variants.values():
        known = known[rows.loc[known].notna().all(axis=1)]
    accuracies = np.array([by_arch[str(arch)] for arch in known])
    cells = np.array([parse_arch(str(arch)) for arch in known])
    live_params = counts.parameters(cells, num_classes=10, live=True)
    lines = []
    columns = [name for name in RECOMMENDED if name != "live_params"]
    for name, rows in tqdm(variants.items(), desc="ablation", leave=False):
        values = rows.loc[known].assign(live_params=live_params)
        combined = ranking.log_rank_sum(values[list(RECOMMENDED)].to_numpy())
        agreement = stats.spearmanr(values["epe"], first.loc[known, "epe"]).statistic
        alone = [interval(spearman, values[c].to_numpy(), accuracies) for c in ("epe", *columns)]
        lines.append([name, f"{agreement:.3f}", *alone, *correlations(combined, accuracies)[:2]])
    heads = ["epe with the first's", "epe", *columns, "recommended", "recommended, Kendall"]
    return Table(f"cifar10, {len(known)} cells: Spearman with accuracy", ["variant", *heads], lines)


def interval(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    scores: np.ndarray,
    accuracies: np.ndarray,
    digits: int = 3,
) -> str:
    """A statistic of scores and accuracies with its bootstrap interval."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(scores), (_RESAMPLES.value, len(scores)))
    resampled = [statistic(scores[rows], accuracies[rows]) for rows in drawn]
    low, high = np.percentile(resampled, (2.5, 97.5))
    value = statistic(scores, accuracies)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def spearman(scores: np.ndarray, accuracies: np.ndarray) -> float:
    """Spearman's rho."""
    return float(stats.spearmanr(scores, accuracies).statistic)


def kendall(scores: np.ndarray, accuracies: np.ndarray) -> float:
    """Kendall's tau-b."""
    return float(stats.kendalltau(scores, accuracies).statistic)


def ndcg(scores: np.ndarray, accuracies: np.ndarray) -> float:
    """Normalised discounted cumulative gain with gains 2^accuracy: one percent more, twice as much.

    Infinities of scores are given the next number.
    """
    finite = np.clip(scores, *np.percentile(scores[np.isfinite(scores)], (0, 100)))
    gains = 2.0 ** (accuracies - accuracies.max())
    return float(ndcg_score([gains], [finite], k=PLACES))


if __name__ == "__main__":
    app.run(main)
