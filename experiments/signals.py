r"""Which further signals rank better with the recommended ones: counts and measurements.

Every different network of the space (9,445) is scored once at a cheap setting: 32 images of
CIFAR-10 averaged to 8x8 pixels, 16 channels, 5 cells a stage. Candidates are counts from the
genotype, and what one pass forward and back says of features, gradients and activation patterns.
They are looked at on 500 cells with their CIFAR-10 accuracies, those on which the recommended
ranking was chosen (`experiments/ranking.py`); the sums in `REPORTED`, written down before, are then
held to all other cells and all three data sets' accuracies. A cell without a score is the last.

Command:  python -m experiments.signals --benchmark=nasbench201.csv.gz --path=cifar10.npz \
              --signals=signals_cifar10.csv.gz

scores, keeps the scores and prints the tables; without `--path` it reads scores kept before, by
default `results/signals_cifar10.csv.gz`.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import app, flags
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from scipy import stats
from tqdm import tqdm

from epe_nas_jax import (
    BEST_RANKING,
    NasBench201Network,
    ScoringConfig,
    compile_scorer,
    format_arch,
)
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.data.datasets import load_dataset
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.runs import runtime
from epe_nas_jax.scoring.columns import COLUMNS, RunCells
from epe_nas_jax.scoring.step import shared_weights
from epe_nas_jax.search import ranking, simulation
from epe_nas_jax.spaces import paths
from epe_nas_jax.spaces.base import GraphEdge
from epe_nas_jax.spaces.nasbench201.genotype import (
    EDGES,
    NUM_EDGES,
    NUM_NODES,
    OPERATIONS,
    every_genotype,
    has_path,
    prune_dead,
)
from epe_nas_jax.spaces.nasbench201.network import Cell
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

_RESULTS = Path(__file__).parent.parent / "results"
_BENCHMARK = flags.DEFINE_string("benchmark", None, "Trained accuracies.", required=True)
_PATH = flags.DEFINE_string("path", "", "CIFAR-10, to score; else the scores are read.")
_SIGNALS = flags.DEFINE_string(
    "signals", str(_RESULTS / "signals_cifar10.csv.gz"), "The scores: written, or read."
)
_SEARCHES = flags.DEFINE_integer("searches", 500, "Searches of each sum.", lower_bound=1)

# Columns of the benchmark.
ACCURACIES = {
    "CIFAR-10": "cifar10_test_200",
    "CIFAR-100": "cifar100_test_200",
    "ImageNet16-120": "imagenet16_test_200",
}
# Scores at the full setting, of uniformly drawn cells.
FULL = {
    "CIFAR-10": "scores_cifar10_4500.csv.gz",
    "CIFAR-100": "scores_cifar100_4500.csv.gz",
    "ImageNet16-120": "scores_imagenet16_4500.csv.gz",
}
# What was held to the other cells: written down before, and nothing was chosen by the result.
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
PROXIES = ("epe", "jacob_cov", "nwot", "grad_entropy", "grad_decay")
# Columns that are the same for a cell and its live form.
LIVE = ("live_params", "live_mflops", "few_pools", "little_pooling", "wide_convs")
NETWORK = NasBench201Network(num_classes=10)
SIDE, NUM_IMAGES = 8, 32
SEARCH_SIZE = 1000
_CELLS_AT_ONCE = 64
_STAGES, _CELLS = 3, NETWORK.cells_per_stage
_CONVS = ("nor_conv_1x1", "nor_conv_3x3")
# More than the convolutions on any path.
_POOL_WEIGHT = 10
# The recommended ranking was chosen on every third of so many cells, the first of those drawn.
_CHOSEN_OF, _CHOSEN_EVERY = 1500, 3
# A share of a sum below which nothing counts.
_NOTHING = 1e-30


def main(argv: Sequence[str]) -> None:
    """Scores or reads, and prints the tables as Markdown."""
    del argv
    runtime.prepare()
    cells = every_genotype()
    networks = prune_dead(cells)
    if _PATH.value:
        score(np.unique(networks, axis=0)).to_csv(_SIGNALS.value, float_format="%.6g")
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
    scored = pd.read_csv(_RESULTS / FULL["CIFAR-10"])["arch"]
    was_chosen_on = np.isin(archs, scored[:_CHOSEN_OF:_CHOSEN_EVERY])
    assert is_form.sum() == len(measured)
    assert was_chosen_on.sum() == 500
    printed = [
        *choice_tables(signals[was_chosen_on], accuracies["CIFAR-10"].to_numpy()[was_chosen_on]),
        report_table("all cells", signals, accuracies, ~was_chosen_on),
        report_table("live forms", signals, accuracies, ~was_chosen_on & is_form),
        search_table(signals, accuracies, ~was_chosen_on),
        *full_tables(signals, accuracies, was_chosen_on, is_form),
    ]
    print("\n\n".join(map(as_markdown, printed)))


def counts(networks: np.ndarray) -> dict[str, np.ndarray]:
    """Signals that take no network, `[A]` each: counts in live forms `[A, E]`.

    Larger is meant to be better, so that some are negative.
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
    """Counts convolutions, and pools so much that their paths stand apart."""
    return is_convolution(edge) + _POOL_WEIGHT * paths.is_pool(edge)


def score(networks: np.ndarray) -> pd.DataFrame:
    """Proxies and measurements of networks `[A, E]`, a row each."""
    images, labels = minibatch()
    scorer = compile_scorer(
        images,
        labels,
        seed=0,
        network=NETWORK,
        config=ScoringConfig(proxies=PROXIES),
        progress=True,
    )
    proxies = scorer.proxies(networks)
    names, rows = measure(networks, images)
    table = pd.DataFrame(np.concatenate([proxies, rows], axis=1), columns=[*PROXIES, *names])
    table[~np.isfinite(table)] = np.nan
    return table.set_index(pd.Index([format_arch(row) for row in networks], name="arch"))


def minibatch() -> tuple[np.ndarray, np.ndarray]:
    """The first images, averaged over squares, `[N, SIDE, SIDE, 3]` normalised; and labels."""
    dataset = load_dataset("cifar10", _PATH.value)
    images = dataset.images[:NUM_IMAGES].astype(np.float32) / 255
    step = images.shape[1] // SIDE
    images = images.reshape(NUM_IMAGES, SIDE, step, SIDE, step, 3).mean((2, 4))
    images = (images - images.mean((0, 1, 2))) / images.std((0, 1, 2))
    return images, dataset.labels[:NUM_IMAGES].astype(np.int32)


def measure(networks: np.ndarray, images: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The measurements' names, and the measurements of networks `[A, E]`, a row each."""
    variables = shared_weights(0, NETWORK, jnp.asarray(images))
    shapes = jax.eval_shape(measurements, variables, jnp.zeros(NUM_EDGES, jnp.int32), images)
    names = sorted(shapes)

    def shard(genotypes: jax.Array, variables: Any, images: jax.Array) -> jax.Array:
        def one(genotype: jax.Array) -> jax.Array:
            found = measurements(variables, genotype, images)
            return jnp.stack([found[name] for name in names])

        return lax.map(one, genotypes)

    cells = PartitionSpec("cells")  # type: ignore[no-untyped-call]
    every = PartitionSpec()  # type: ignore[no-untyped-call]
    mesh = Mesh(np.array(jax.devices()), ("cells",))
    program = jax.jit(
        jax.shard_map(
            shard, mesh=mesh, in_specs=(cells, every, every), out_specs=cells, check_vma=False
        )
    )
    size = _CELLS_AT_ONCE * len(jax.devices())
    rows = []
    for start in tqdm(range(0, len(networks), size), desc="measuring"):
        some = networks[start : start + size]
        filled = np.zeros((size, NUM_EDGES), np.int32)
        filled[: len(some)] = some
        rows.append(np.asarray(program(filled, variables, images))[: len(some)])
    return names, np.concatenate(rows)


def measurements(variables: Any, genotype: jax.Array, images: jax.Array) -> dict[str, jax.Array]:
    """What one pass forward and back says of a network, a scalar each.

    Args:
      variables: its weights.
      genotype: the cell, int32 `[E]`.
      images: the mini-batch, `[N, H, H, 3]`.
    """
    shapes = jax.eval_shape(lambda: _forward(None, variables, genotype, images)[1])
    outputs = {name: jnp.zeros(out.shape) for name, (_, out) in shapes.items()}
    logits, vjp, seen = jax.vjp(
        lambda added: _forward(added, variables, genotype, images), outputs, has_aux=True
    )
    (gradients,) = vjp(jnp.ones_like(logits))
    is_conv = jnp.isin(genotype, jnp.array([OPERATIONS.index(name) for name in _CONVS]))

    found: dict[str, jax.Array] = {}
    by_cell, fishers = [], []
    for stage in range(_STAGES):
        cells = [f"cell_{stage * _CELLS + i}" for i in range(_CELLS)]
        edges = [f"{cell}_{edge}" for cell in cells for edge in range(NUM_EDGES)]
        stacked = [jnp.stack([of[c] for c in cells]) for of in (_outputs(seen), gradients)]
        by_cell.append(lax.map(lambda pair: of_cell(*pair), tuple(stacked)))
        stacked = [jnp.stack([of[e] for e in edges]) for of in (_outputs(seen), gradients)]
        kernels = lax.map(
            lambda edge: lax.cond(edge[2], fisher_kernel, no_kernel, *edge[:2]),
            (*stacked, jnp.tile(is_conv, _CELLS)),
        )
        fishers.append(jnp.sum(kernels, axis=0))
    for name in by_cell[0]:
        stages = [values[name] for values in by_cell]
        found[name] = jnp.sum(jnp.concatenate(stages))
        if name in ("feature_entropy", "correlation_entropy", "smallest_correlation"):
            found[f"{name}_1"] = jnp.sum(stages[0])
        # AZ-NAS's progressivity: the smallest growth from a cell to the next of its stage.
        if name == "feature_entropy":
            found["feature_growth"] = jnp.min(jnp.stack([jnp.min(jnp.diff(s)) for s in stages]))
        if name == "grad_log_size":
            steps = jnp.concatenate([jnp.diff(s) for s in stages])
            found["trainability"] = -jnp.sum(jnp.abs(steps))
            found["grad_evenness"] = -jnp.std(jnp.concatenate(stages))
    # InTrain, as a logarithm.
    found["features_and_trainability"] = found["feature_participation"] + found["trainability"]
    v = eigenvalues(sum(fishers[1:], start=fishers[0]))
    deciles = jnp.stack([v[round(i * (len(v) - 1) / 10)] for i in range(1, 10)])
    found["fisher_deciles"] = entropy(deciles)
    found["fisher_entropy"] = entropy(v)
    found["fisher_log_determinant"] = jnp.sum(jnp.log(shares(v) + 1e-3))
    found["patterns"] = jnp.log1p(num_patterns(seen, is_conv))
    centred = logits - jnp.mean(logits, axis=0)
    found["logit_participation"] = participation(centred.T @ centred)
    return found


def _forward(
    added: dict[str, jax.Array] | None, variables: Any, genotype: jax.Array, images: jax.Array
) -> tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
    """Logits, and inputs and outputs of all cells and edges, to which something may be added."""
    seen: dict[str, tuple[jax.Array, jax.Array]] = {}

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module, method = context.module, context.method_name
        out = call(*args, **kwargs)
        if not isinstance(module, Cell) or method not in ("__call__", "_apply_edge"):
            return out
        is_edge = method == "_apply_edge"
        name = f"{module.name}_{args[0]}" if is_edge else str(module.name)
        seen[name] = args[2] if is_edge else args[0], out
        return out if added is None else out + added[name]

    with nn.intercept_methods(intercept):
        logits: Any = NETWORK.apply(variables, images, genotype)
    return logits, seen


def _outputs(seen: dict[str, tuple[jax.Array, jax.Array]]) -> dict[str, jax.Array]:
    return {name: out for name, (_, out) in seen.items()}


def of_cell(features: jax.Array, gradient: jax.Array) -> dict[str, jax.Array]:
    """Measurements of a cell's output and of its gradient, `[N, H, W, C]` each."""
    of_features, of_gradient = covariance(features), covariance(gradient)
    deviation = jnp.sqrt(jnp.diag(of_features))
    both = deviation[:, None] * deviation[None, :]
    correlations = eigenvalues(of_features / jnp.maximum(both, _NOTHING))
    return {
        "feature_entropy": entropy(eigenvalues(of_features)),
        "feature_participation": participation(of_features),
        "correlation_entropy": entropy(correlations),
        # MeCo, summed over cells as there over layers.
        "smallest_correlation": correlations[0],
        "roughness": roughness(features, jnp.trace(of_features)),
        "grad_participation": participation(of_gradient),
        "grad_roughness": roughness(gradient, jnp.trace(of_gradient)),
        "grad_log_size": jnp.log(jnp.sum(gradient**2) + _NOTHING),
    }


def fisher_kernel(output: jax.Array, gradient: jax.Array) -> jax.Array:
    """What a convolution's batch norm adds to the Fisher matrix, as a kernel of images `[N, N]`.

    The spectrum of the Fisher matrix of scales and offsets, by the gradient of each image's logits.
    VKDNW takes a few weights of each layer.
    """
    per_image = jnp.concatenate(
        [jnp.sum(gradient * output, (1, 2)), jnp.sum(gradient, (1, 2))], axis=1
    )
    return per_image @ per_image.T


def no_kernel(output: jax.Array, gradient: jax.Array) -> jax.Array:
    """Zeros of the shape of `fisher_kernel`."""
    del gradient
    return jnp.zeros((len(output), len(output)), output.dtype)


def num_patterns(seen: dict[str, tuple[jax.Array, jax.Array]], is_conv: jax.Array) -> jax.Array:
    """How many different patterns over the images the units have that ReLUs read (SWAP)."""
    words = []
    for cell, source in itertools.product(range(_STAGES * _CELLS), range(NUM_NODES - 1)):
        edges = [edge for edge in range(NUM_EDGES) if EDGES[edge][0] == source]
        x = seen[f"cell_{cell}_{edges[0]}"][0]
        bits = (x > 0).reshape(len(x), -1).astype(jnp.uint32)
        word = jnp.sum(bits << jnp.arange(len(x), dtype=jnp.uint32)[:, None], 0, jnp.uint32)
        words.append(jnp.where(is_conv[np.array(edges)].any(), word, 0))
    ordered = jnp.sort(jnp.concatenate(words))
    return 1.0 + jnp.sum(ordered[1:] != ordered[:-1])


def covariance(x: jax.Array) -> jax.Array:
    """The covariance of the channels `[C, C]` of `[N, H, W, C]`."""
    rows = x.reshape(-1, x.shape[-1])
    rows = rows - jnp.mean(rows, axis=0)
    return rows.T @ rows / len(rows)


def eigenvalues(matrix: jax.Array) -> jax.Array:
    """Those of a covariance, ascending."""
    return jnp.maximum(jnp.linalg.eigvalsh(matrix), 0)


def shares(v: jax.Array) -> jax.Array:
    """Numbers as shares of their sum."""
    return v / jnp.maximum(jnp.sum(v), _NOTHING)


def entropy(v: jax.Array) -> jax.Array:
    """The entropy of numbers as shares of their sum."""
    return -jnp.sum(jax.scipy.special.xlogy(shares(v), shares(v)))


def participation(matrix: jax.Array) -> jax.Array:
    """The entropy of order 2 of a covariance's eigenvalues, which takes none of them."""
    return 2 * jnp.log(jnp.trace(matrix) + _NOTHING) - jnp.log(jnp.sum(matrix**2) + _NOTHING)


def roughness(x: jax.Array, variance: jax.Array) -> jax.Array:
    """How much a pixel of `[N, H, W, C]` differs from its four neighbours, as a logarithm."""
    around = sum(jnp.roll(x, shift, axis) for shift in (-1, 1) for axis in (1, 2)) / 4
    pixels = x.size // x.shape[-1]
    return jnp.log(jnp.sum((x - around) ** 2) / pixels / jnp.maximum(variance, _NOTHING) + 1e-9)


def combined(signals: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Sums of log ranks `[A]`; a cell without one of the signals is the last."""
    scores = ranking.log_rank_sum(signals[list(names)].to_numpy())
    return np.where(np.isnan(scores), -np.inf, scores)


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
    """Spearman and Kendall of what is reported, on cells that had no part in the choice."""
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
    """The same of scores at the full setting, each data set's of its own images."""
    reported = [names for names in REPORTED if {*names} <= {*BEST_RANKING, *LIVE}]
    lines: dict[str, list[list[str]]] = {"cells": [], "live forms": []}
    sizes = {}
    for names in reported:
        for title, of_table in lines.items():
            of_table.append([in_words(names)])
            for dataset, file in FULL.items():
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
            ["signals", *FULL],
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
