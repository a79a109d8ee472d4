r"""How far scores agree between processors, in float32 and in float64 (docs/reproducibility.md).

XLA makes other programs for other processors, which add up in another order. Here it has to use the
instructions of older ones: the scores of the cells of `make search` are computed once for each set
of instructions, and compared. Sets that this processor does not have are not run.

Command:  python -m experiments.processors --cells=100
"""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from epe_nas_jax import compile_scorer
from epe_nas_jax.data.datasets import draw_fixed_minibatch, load_dataset
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.runs import runtime
from epe_nas_jax.search import ranking
from epe_nas_jax.seeds import random_key
from epe_nas_jax.spaces.nasbench201.genotype import sample

# From XLA's names to those of the processor. AVX2 brings fused multiply-adds, which round once
# where there were two roundings.
INSTRUCTIONS = {"SSE4_2": "sse4_2", "AVX": "avx", "AVX2": "avx2", "AVX512": "avx512f"}
DTYPES = ("float32", "float64")
# How many of the best cells are compared as sets.
_SIZES = (1, 5, 10)


def scores_of_search(num_cells: int, dtype: str) -> tuple[np.ndarray, float]:
    """Scores `[A]` of the first cells and the mini-batch of `make search`, and ms a cell."""
    search_key, batch_key = jax.random.split(random_key(0))
    digits = load_dataset("digits")
    images, labels = draw_fixed_minibatch(batch_key, digits, 256, augment=False)
    cells = np.asarray(sample(search_key, num_cells))
    scorer = compile_scorer(np.asarray(images, dtype), labels, seed=0)
    scorer.proxies(cells[:1])
    start = time.perf_counter()
    scores = scorer.proxies(cells)[:, 0]
    return scores, 1e3 * (time.perf_counter() - start) / num_cells


def scores_by_instructions(
    instructions: str, num_cells: int, dtype: str
) -> tuple[np.ndarray, float]:
    """What `scores_of_search` returns in a process that may use these instructions only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.npz"
        code = (
            "from experiments.processors import save_scores; "
            f"save_scores({str(path)!r}, {num_cells}, {dtype!r})"
        )
        settings = {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa={instructions}",
            "JAX_ENABLE_X64": str(int(dtype == "float64")),
            # A program of another set must not be taken from the cache.
            "JAX_ENABLE_COMPILATION_CACHE": "0",
        }
        command = [sys.executable, "-c", code]
        subprocess.run(command, env={**os.environ, **settings}, check=True)  # noqa: S603
        with np.load(path) as found:
            return found["scores"], float(found["ms"])


def save_scores(path: str, num_cells: int, dtype: str) -> None:
    """Writes what `scores_of_search` returns."""
    runtime.prepare()
    scores, ms = scores_of_search(num_cells, dtype)
    np.savez(path, scores=scores, ms=ms)


def agreement_rows(scores: Mapping[str, np.ndarray]) -> list[list[str]]:
    """For every two processors: how far their scores `[A]` agree.

    The largest and the median relative difference, the rank correlation, how many cells have
    another rank, and how many of the best are the same.
    """
    rows = []
    for first, second in itertools.combinations(scores, 2):
        a, b = scores[first], scores[second]
        known = ~np.isnan(a) & ~np.isnan(b)
        if not known.any():
            raise app.UsageError(f"{first} and {second}: found no cell with both scores")
        a, b = a[known], b[known]
        errors = np.abs(b / a - 1)
        correlation = ranking.spearman(a, b)
        moved = np.sum(ranking.top_k(a, len(a)) != ranking.top_k(b, len(b)))
        same = [
            f"{len(set(ranking.top_k(a, k)) & set(ranking.top_k(b, k)))} of {k}" for k in _SIZES
        ]
        rho = "none" if correlation is None else f"{correlation.value:.6f}"
        differences = f"{errors.max():.1e}", f"{np.median(errors):.1e}"
        rows.append([f"{first}, {second}", *differences, rho, str(moved), *same])
    return rows


def main(argv: Sequence[str]) -> None:
    """Prints a table for each precision, and what it costs."""
    del argv
    processor = Path("/proc/cpuinfo")
    has = processor.read_text().split() if processor.exists() else []
    known = [name for name, flag in INSTRUCTIONS.items() if flag in has]
    if len(known) < 2:
        raise app.UsageError(f"found instructions {known}, expected two of {list(INSTRUCTIONS)}")
    header = ["instructions", "largest difference", "median", "Spearman", "other rank"]
    header += [f"best {k}" for k in _SIZES]
    times: dict[str, list[float]] = {}
    for dtype in DTYPES:
        found = {name: scores_by_instructions(name, _CELLS.value, dtype) for name in known}
        times[dtype] = [ms for _, ms in found.values()]
        rows = agreement_rows({name: scores for name, (scores, _) in found.items()})
        print(as_markdown(Table(f"{dtype}, {_CELLS.value} cells", header, rows)), "\n")
    rows = [[dtype, *(f"{value:.0f}" for value in values)] for dtype, values in times.items()]
    print(as_markdown(Table("ms a cell", ["", *known], rows)))


if __name__ == "__main__":
    _CELLS = flags.DEFINE_integer("cells", 100, "How many cells.", lower_bound=20)
    app.run(main)
