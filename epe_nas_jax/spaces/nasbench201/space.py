"""The NAS-Bench-201 search space as the rest of the package sees it."""

import functools

import numpy as np

from epe_nas_jax.spaces.base import CellGraph, GraphEdge, GraphNode, SearchSpace
from epe_nas_jax.spaces.nasbench201 import genotype as cells

_NODES = (
    GraphNode("in", 150, 34),
    GraphNode("1", 64, 158),
    GraphNode("2", 236, 214),
    GraphNode("out", 150, 338),
)
# The edge from input to output would run through the others.
_BENDS = {(0, 3): (462.0, 186.0)}
_KINDS = {
    "skip_connect": "skip",
    "nor_conv_1x1": "conv",
    "nor_conv_3x3": "conv",
    "avg_pool_3x3": "pool",
}


def _graphs(genotype: np.ndarray) -> tuple[CellGraph, ...]:
    is_live = cells.prune_dead(genotype) != 0
    edges = [
        GraphEdge(*edge, cells.OPERATIONS[op], _KINDS[cells.OPERATIONS[op]], live, _BENDS.get(edge))
        for edge, op, live in zip(cells.EDGES, genotype, is_live, strict=True)
        if op
    ]
    return (CellGraph("", 372, 372, _NODES, tuple(edges)),)


NASBENCH201 = SearchSpace(
    name="nasbench201",
    num_edges=cells.NUM_EDGES,
    parse=cells.parse_arch,
    format=cells.format_arch,
    check=cells.check_genotypes,
    identity=cells.PRODUCT.identity,
    sample=cells.sample,
    sample_with_replacement=functools.partial(cells.sample, replace=True),
    mutate=cells.mutate,
    neighbours=cells.neighbours,
    every=cells.every_genotype,
    prune_dead=cells.prune_dead,
    has_path=cells.has_path,
    relative_work=cells.relative_work,
    graphs=_graphs,
    canonical_form=cells.canonical_form,
)
