"""Compares our side with PyTorch's, cell by cell, with the same weights on the same mini-batch.

The times: ours is from genotypes to scores, with drawing the weights and without compiling;
PyTorch's is one forward and backward pass, without building the network and without correlating.
The sides take turns of several cells, after a first run that does not count.
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.proxies.jacobian import input_jacobian
from epe_nas_jax.pytorch.network import TorchRun, released_score
from epe_nas_jax.pytorch.weights import to_state_dict
from epe_nas_jax.scoring.progress import progress_bar
from epe_nas_jax.search import ranking
from epe_nas_jax.spaces.nasbench201.genotype import format_arch
from epe_nas_jax.spaces.nasbench201.network import NasBench201Network

ScoreFn = Callable[[np.ndarray], np.ndarray]


class RunTorch(Protocol):
    """PyTorch's side: runs one cell after another on images that are fixed beforehand."""

    def __call__(
        self, genotype: np.ndarray, state_dict: Mapping[str, np.ndarray], *, at_its_best: bool
    ) -> TorchRun:
        """Runs the network of a cell, int `[E]`, with the given weights."""


class CellComparison(NamedTuple):
    """The results of one cell on both sides.

    An error is the largest difference, relative to PyTorch's largest magnitude.

    Attributes:
      arch: the cell as a text.
      score: our score; NaN if there is none.
      pytorch_score: PyTorch's score; NaN if there is none.
      logits_error: of the logits.
      jacobian_error: of the input Jacobian.
      score_error: of the score; NaN if a side has none.
      seconds: our time, the mean over the cells of a turn.
      pytorch_seconds: PyTorch's time as in the released code, with all gradients.
      pytorch_best_seconds: PyTorch's best time, with the input gradient only and channels last.
    """

    arch: str
    score: float
    pytorch_score: float
    logits_error: float
    jacobian_error: float
    score_error: float
    seconds: float
    pytorch_seconds: float
    pytorch_best_seconds: float


def compare_cells(
    cells: np.ndarray,
    images: jax.Array,
    labels: jax.Array,
    *,
    variables: Any,
    network: NasBench201Network,
    score_fn: ScoreFn,
    cells_per_turn: int,
    run_torch: RunTorch,
) -> list[CellComparison]:
    """Runs cells on both sides and compares their results and times.

    Args:
      cells: genotypes, int `[A, E]`.
      images: the mini-batch, `[N, H, H, 3]`.
      labels: its classes, int `[N]`.
      variables: weights of every candidate, for all cells.
      network: the network around the cell.
      score_fn: our scores `[B]` of genotypes `[B, E]` with these weights, compiled and run before.
      cells_per_turn: B.
      run_torch: PyTorch's side.

    Returns:
      A comparison for each cell.
    """
    warm_up = to_state_dict(variables, cells[0], cells_per_stage=network.cells_per_stage)
    for at_its_best in (False, True):
        run_torch(cells[0], warm_up, at_its_best=at_its_best)

    comparisons = []
    compare_cell = functools.partial(
        _compare_cell,
        images=images,
        labels=labels,
        variables=variables,
        network=network,
        run_torch=run_torch,
    )
    with progress_bar(len(cells), unit="cell") as bar:
        for first in range(0, len(cells), cells_per_turn):
            step = cells[first : first + cells_per_turn]
            start = time.perf_counter()
            scores = score_fn(step)
            seconds = (time.perf_counter() - start) / len(step)
            for cell, score in zip(step, scores, strict=True):
                comparisons.append(compare_cell(cell, float(score), seconds))
                bar.update(1)
    return comparisons


def _compare_cell(
    cell: np.ndarray,
    score: float,
    seconds: float,
    *,
    images: jax.Array,
    labels: jax.Array,
    variables: Any,
    network: NasBench201Network,
    run_torch: RunTorch,
) -> CellComparison:
    """Runs PyTorch's side of a cell and compares it with our score, logits and input Jacobian."""
    state_dict = to_state_dict(variables, cell, cells_per_stage=network.cells_per_stage)
    released = run_torch(cell, state_dict, at_its_best=False)
    best = run_torch(cell, state_dict, at_its_best=True)
    # After PyTorch's runs, which are timed.
    logits, jacobian = _run_ours(variables, images, jnp.asarray(cell), network=network)
    pytorch_score = released_score(released.jacobian, np.asarray(labels))
    return CellComparison(
        arch=format_arch(cell),
        score=score,
        pytorch_score=pytorch_score,
        logits_error=relative_error(logits, released.logits),
        jacobian_error=relative_error(jacobian, released.jacobian),
        score_error=abs(score / pytorch_score - 1),
        seconds=seconds,
        pytorch_seconds=released.seconds,
        pytorch_best_seconds=best.seconds,
    )


@functools.partial(jax.jit, static_argnames="network")
def _run_ours(
    variables: Any, images: jax.Array, genotype: jax.Array, *, network: NasBench201Network
) -> tuple[jax.Array, jax.Array]:
    """Logits `[N, K]` and input Jacobian `[N, D]` of a cell."""

    def apply_fn(variables: Any, images: jax.Array) -> Any:
        return network.apply(variables, images, genotype)

    return apply_fn(variables, images), input_jacobian(apply_fn, variables, images)


def relative_error(ours: jax.Array | np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest expected magnitude; 0 if both are zero.

    Examples:
      >>> from epe_nas_jax.pytorch.comparison import relative_error
      >>> relative_error(np.array([1.0, 2.0]), np.array([1.0, 2.5]))
      0.2
    """
    difference, magnitude = np.abs(np.asarray(ours) - expected).max(), np.abs(expected).max()
    if magnitude == 0:
        return 0.0 if difference == 0 else np.inf
    return float(difference / magnitude)


def summarise(comparisons: list[CellComparison]) -> dict[str, Any]:
    """Sums up the comparisons of cells, in types of JSON (null where something is undefined).

    Examples:
      >>> from epe_nas_jax.pytorch.comparison import CellComparison, summarise
      >>> same, other = (1.0, 1.0, 0, 0, 0.0, 0.1, 0.2, 0.2), (2.0, 2.5, 0, 0, 0.2, 0.1, 0.2, 0.2)
      >>> found = summarise([CellComparison("a", *same), CellComparison("b", *other)])
      >>> found["score_error"], found["same_best"]
      ({'worst': 0.2, 'median': 0.1}, True)
    """
    columns = {
        name: np.array([getattr(comparison, name) for comparison in comparisons])
        for name in CellComparison._fields[1:]
    }
    ours, pytorchs = columns["score"], columns["pytorch_score"]
    correlation = ranking.spearman(ours, pytorchs)
    best = ranking.best_index(ours)
    pytorch_best = ranking.best_index(pytorchs)
    seconds = {
        "ours": float(columns["seconds"].mean()),
        "pytorch_as_released": float(columns["pytorch_seconds"].mean()),
        "pytorch_at_its_best": float(columns["pytorch_best_seconds"].mean()),
    }
    return {
        "num_cells": len(comparisons),
        "num_degenerate": int(np.sum(np.isnan(ours) & np.isnan(pytorchs))),
        "num_scored_on_one_side_only": int(np.sum(np.isnan(ours) != np.isnan(pytorchs))),
        **{
            name: _worst_and_median(columns[name])
            for name in ("logits_error", "jacobian_error", "score_error")
        },
        "spearman": None if correlation is None else correlation.value,
        "best_arch": None if best is None else comparisons[best].arch,
        "pytorch_best_arch": None if pytorch_best is None else comparisons[pytorch_best].arch,
        "same_best": best == pytorch_best,
        "seconds_per_cell": seconds,
        "times_ours": {
            name: value / seconds["ours"] for name, value in seconds.items() if name != "ours"
        },
    }


def to_rows(comparisons: list[CellComparison]) -> list[dict[str, Any]]:
    """The comparisons as dicts in types of JSON (null where there is no score).

    Examples:
      >>> from epe_nas_jax.pytorch.comparison import CellComparison, to_rows
      >>> cell = CellComparison("a", float("nan"), 1.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.2)
      >>> to_rows([cell])[0]["score"] is None
      True
    """
    return [
        {name: _finite(value) for name, value in comparison._asdict().items()}
        for comparison in comparisons
    ]


def _worst_and_median(errors: np.ndarray) -> dict[str, float | None]:
    known = errors[~np.isnan(errors)]
    if not len(known):
        return {"worst": None, "median": None}
    return {"worst": _finite(float(known.max())), "median": _finite(float(np.median(known)))}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
