"""The NAS-Bench-101 search space as a `SearchSpace`."""

import functools

import numpy as np

from epe_nas_jax.spaces.base import SearchSpace
from epe_nas_jax.spaces.nasbench101 import cost, drawing
from epe_nas_jax.spaces.nasbench101 import genotype as cells

_BENCHMARK = cost.Sizes(channels=128, cells_per_stage=3, num_classes=10)


def _relative_work(genotypes: np.ndarray) -> np.ndarray:
    """How long genotypes, int `[A, E]`, take: the FLOPs of the benchmark's network, `[A]`."""
    return cost.count(genotypes, _BENCHMARK, side=32).flops


NASBENCH101 = SearchSpace(
    name="nasbench101",
    num_edges=cells.NUM_EDGES,
    parse=cells.parse,
    format=cells.format_cell,
    check=cells.check_genotypes,
    identity=cells.identity,
    sample=cells.sample,
    sample_with_replacement=functools.partial(cells.sample, replace=True),
    mutate=cells.mutate,
    neighbours=cells.neighbours,
    every=None,
    prune_dead=cells.prune_dead,
    has_path=cells.has_path,
    relative_work=_relative_work,
    graphs=drawing.graphs,
    canonical_form=cells.module_hash,
    table_columns=("adjacency", "ops"),
)
