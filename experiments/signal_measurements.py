"""Measurements of one pass forward and back, other than the proxies: see `signals.py`."""

import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from tqdm import tqdm

from epe_nas_jax import (
    NasBench201Network,
    ScoringConfig,
    compile_scorer,
    format_arch,
)
from epe_nas_jax.data.datasets import load_dataset
from epe_nas_jax.scoring.step import shared_weights
from epe_nas_jax.spaces.nasbench201.genotype import (
    EDGES,
    NUM_EDGES,
    NUM_NODES,
    OPERATIONS,
)
from epe_nas_jax.spaces.nasbench201.network import Cell

PROXIES = ("epe", "jacob_cov", "nwot", "grad_entropy", "grad_decay")
NETWORK = NasBench201Network(num_classes=10)
SIDE, NUM_IMAGES = 8, 32

_CELLS_AT_ONCE = 64
_STAGES, _CELLS = 3, NETWORK.cells_per_stage
_CONVS = ("nor_conv_1x1", "nor_conv_3x3")
# Shares of a sum below this are ignored.
_NOTHING = 1e-30


def score(networks: np.ndarray, path: str) -> pd.DataFrame:
    """Proxies and measurements of networks `[A, E]`, one row each, on the CIFAR-10 of a path."""
    images, labels = minibatch(path)
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


def minibatch(path: str) -> tuple[np.ndarray, np.ndarray]:
    """The first images, averaged over squares, `[N, SIDE, SIDE, 3]` normalised; and labels."""
    dataset = load_dataset("cifar10", path)
    images = dataset.images[:NUM_IMAGES].astype(np.float32) / 255
    step = images.shape[1] // SIDE
    images = images.reshape(NUM_IMAGES, SIDE, step, SIDE, step, 3).mean((2, 4))
    images = (images - images.mean((0, 1, 2))) / images.std((0, 1, 2))
    return images, dataset.labels[:NUM_IMAGES].astype(np.int32)


def measure(networks: np.ndarray, images: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The measurements' names, and the measurements of networks `[A, E]`, one row each."""
    variables = shared_weights(0, NETWORK, jnp.asarray(images))
    shapes = jax.eval_shape(measurements, variables, jnp.zeros(NUM_EDGES, jnp.int32), images)
    names = sorted(shapes)

    def shard(genotypes: jax.Array, variables: Any, images: jax.Array) -> jax.Array:
        def one(genotype: jax.Array) -> jax.Array:
            found = measurements(variables, genotype, images)
            return jnp.stack([found[name] for name in names])

        return lax.map(one, genotypes)

    cells = PartitionSpec("cells")
    every = PartitionSpec()
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
    """Measurements of one pass forward and back through a network, scalars by name.

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
        # MeCo, which sums over layers; here it is summed over cells.
        "smallest_correlation": correlations[0],
        "roughness": roughness(features, jnp.trace(of_features)),
        "grad_participation": participation(of_gradient),
        "grad_roughness": roughness(gradient, jnp.trace(of_gradient)),
        "grad_log_size": jnp.log(jnp.sum(gradient**2) + _NOTHING),
    }


def fisher_kernel(output: jax.Array, gradient: jax.Array) -> jax.Array:
    """A batch norm's part of the Fisher matrix, as a kernel of images `[N, N]`.

    It has the spectrum of the Fisher matrix of scales and offsets, by the gradient of each image's
    logits. VKDNW uses a few weights of each layer instead.
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
    """The eigenvalues of a covariance, ascending."""
    return jnp.maximum(jnp.linalg.eigvalsh(matrix), 0)


def shares(v: jax.Array) -> jax.Array:
    """Numbers as shares of their sum."""
    return v / jnp.maximum(jnp.sum(v), _NOTHING)


def entropy(v: jax.Array) -> jax.Array:
    """The entropy of numbers as shares of their sum."""
    return -jnp.sum(jax.scipy.special.xlogy(shares(v), shares(v)))


def participation(matrix: jax.Array) -> jax.Array:
    """The entropy of order 2 of a covariance's eigenvalues, which need not be computed for it."""
    return 2 * jnp.log(jnp.trace(matrix) + _NOTHING) - jnp.log(jnp.sum(matrix**2) + _NOTHING)


def roughness(x: jax.Array, variance: jax.Array) -> jax.Array:
    """How much a pixel of `[N, H, W, C]` differs from its four neighbours, as a logarithm."""
    around = sum(jnp.roll(x, shift, axis) for shift in (-1, 1) for axis in (1, 2)) / 4
    pixels = x.size // x.shape[-1]
    return jnp.log(jnp.sum((x - around) ** 2) / pixels / jnp.maximum(variance, _NOTHING) + 1e-9)
