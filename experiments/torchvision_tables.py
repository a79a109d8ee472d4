r"""How signals rank untrained torchvision networks by trained accuracy (docs/any-network.md).

Joins the `ranking.csv` of `experiments/torchvision_networks.py` with the ImageNet accuracies in
torchvision's description of its weights: a network's first weights, and its best ones. A network
without a score is worse than all others. Intervals are 95 %, by bootstrap over the networks.

Command:  python -m experiments.torchvision_tables --ranking=results/torchvision_128.csv.gz
"""

import itertools
import re
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from absl import app, flags
from scipy import stats

from epe_nas_jax.networks.columns import NETWORK_COLUMNS
from epe_nas_jax.reports.text import Table, as_markdown
from experiments.choice import combined
from experiments.spaces import spearman

# The columns recommended for cells (docs/ranking.md); these networks have no dead operations.
CELL_RANKING = ("jacob_cov", "nwot", "grad_entropy", "grad_decay", "params")
METHODS = (*((name,) for name in NETWORK_COLUMNS), CELL_RANKING)
# The fewest networks of a family that has a row of its own.
_FEWEST = 4
_RESAMPLES, _BEST_SHOWN = 1000, 5


def accuracies(names: Sequence[str]) -> pd.DataFrame:
    """Top-1 accuracies on ImageNet by a network's `first` and `best` weights, and its `family`.

    A network whose weights were trained on more images than ImageNet's is left out.
    """
    with warnings.catch_warnings():
        # torchvision warns that it cannot read images, which is not needed here.
        warnings.filterwarnings("ignore", "Failed to load image", UserWarning)
        from torchvision import models
    rows = {}
    for name in names:
        found = [
            weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
            for weights in models.get_model_weights(name)
            if re.fullmatch(r"IMAGENET1K_V\d", weights.name)
        ]
        if found:
            rows[name] = {"first": found[0], "best": max(found), "family": family_of(name)}
    return pd.DataFrame.from_dict(rows, orient="index")


def family_of(name: str) -> str:
    """The family of a network, which differs from others in it by size: the begin of its name."""
    stem = re.split(r"[_\d]", name)[0]
    version = re.search(r"_(v2|x|y)_", f"{name}_")
    is_resnet = stem in ("resnext", "wide", "resnet")
    same = {"wide": "resnet", "resnext": "resnet", "inception": "googlenet"}
    return f"{stem}_{version[1]}" if version and not is_resnet else same.get(stem, stem)


def within_families(scores: np.ndarray, trained: np.ndarray, families: np.ndarray) -> float:
    """Kendall's tau over the pairs of networks of one family."""
    first, second = np.triu_indices(len(scores), 1)
    is_pair = families[first] == families[second]
    first, second = first[is_pair], second[is_pair]
    orders = np.sign(scores[first] - scores[second]) * np.sign(trained[first] - trained[second])
    # Two networks without a score are not ordered.
    orders = np.nan_to_num(orders)
    return float(orders.sum() / max(1, np.count_nonzero(trained[first] != trained[second])))


def methods_table(signals: pd.DataFrame, trained: pd.DataFrame) -> Table:
    """How each signal, and the sum for cells, ranks all networks and those within families."""
    families = pd.factorize(trained["family"])[0]
    rows = []
    for names in METHODS:
        scores = combined(signals, names)
        row = ["the sum for cells" if names == CELL_RANKING else names[0]]
        for column in ("first", "best"):
            values = trained[column].to_numpy()
            row.append(_shown(spearman, scores, values))
            row.append(f"{stats.kendalltau(scores, values).statistic:.3f}")
        first, params = trained["first"].to_numpy(), combined(signals, ("params",))
        row.append(_shown(_ahead, scores, params, first))
        row.append(_shown(within_families, scores, first, families))
        rows.append(row)
    heads = ["signal", "Spearman, first weights", "Kendall", "Spearman, best weights", "Kendall"]
    more = ["Spearman less that of params", "Kendall within families"]
    return Table(f"{len(trained)} networks", [*heads, *more], rows)


def _ahead(scores: np.ndarray, others: np.ndarray, trained: np.ndarray) -> float:
    """By how much Spearman's rho of scores is larger than that of others."""
    return spearman(scores, trained) - spearman(others, trained)


def families_table(signals: pd.DataFrame, trained: pd.DataFrame) -> Table:
    """Spearman within each larger family."""
    shown = [("params",), ("mflops",), *((name,) for name in CELL_RANKING[:4]), CELL_RANKING]
    rows = []
    for family, members in trained.groupby("family"):
        if len(members) >= _FEWEST:
            part = signals.loc[members.index]
            values = [
                spearman(combined(part, names), members["first"].to_numpy()) for names in shown
            ]
            rows.append([str(family), str(len(members)), *(f"{value:.2f}" for value in values)])
    heads = ["family", "networks", *(names[0] for names in shown[:-1]), "the sum for cells"]
    return Table("Spearman within families, first weights", heads, rows)


def best_sums(signals: pd.DataFrame, trained: pd.DataFrame) -> Table:
    """The sums of up to three columns that rank these networks best, too optimistic for others."""
    sums = [
        names for number in (1, 2, 3) for names in itertools.combinations(NETWORK_COLUMNS, number)
    ]
    values = trained["first"].to_numpy()
    found = sorted((spearman(combined(signals, names), values), names) for names in sums)[::-1]
    rows = [[" + ".join(names), f"{value:.3f}"] for value, names in found[:_BEST_SHOWN]]
    return Table(
        f"The best of {len(sums)} sums, found on these very networks", ["sum", "Spearman"], rows
    )


def _shown(statistic: Callable[..., float], *arrays: np.ndarray) -> str:
    """A statistic with its interval."""
    found = stats.bootstrap(
        arrays,
        statistic,
        paired=True,
        vectorized=False,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return f"{statistic(*arrays):.3f} ({found.low:.2f} to {found.high:.2f})"


def main(_: list[str]) -> None:
    """Prints the tables as Markdown."""
    signals = pd.read_csv(flags.FLAGS.ranking).set_index("network")
    trained = accuracies(list(signals.index))
    signals = signals.loc[trained.index]
    unmeasured = signals.index[signals["nwot"].isna()]
    print(f"without nwot: {', '.join(unmeasured) or 'none'}\n")
    tables = methods_table, families_table, best_sums
    print("\n\n".join(as_markdown(table(signals, trained)) for table in tables))


if __name__ == "__main__":
    flags.DEFINE_string("ranking", None, "The ranking.csv of the networks.", required=True)
    app.run(main)
