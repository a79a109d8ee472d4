"""NATS-Bench's size space as a `SearchSpace`."""

import functools

import numpy as np

from epe_nas_jax.spaces.base import CellGraph, GraphEdge, GraphNode, SearchSpace
from epe_nas_jax.spaces.nats_sss import genotype as cells

_LAYERS = ("cells", "reduction", "cells", "reduction", "cells")
_MIDDLE, _TOP, _ROW = 110, 40, 90


def _graphs(genotype: np.ndarray) -> tuple[CellGraph, ...]:
    """The graph of the layers; a node's name is the number of channels of a layer's output."""
    names = ("in", *cells.format_channels(genotype).split(":"))
    nodes = [GraphNode(name, _MIDDLE, _TOP + _ROW * row) for row, name in enumerate(names)]
    edges = [
        GraphEdge(layer, layer + 1, operation, "conv") for layer, operation in enumerate(_LAYERS)
    ]
    return (CellGraph("", 2 * _MIDDLE, _ROW * len(names), tuple(nodes), tuple(edges)),)


NATS_SSS = SearchSpace(
    name="nats_sss",
    num_edges=cells.PRODUCT.num_entries,
    parse=cells.parse,
    format=cells.format_channels,
    check=cells.PRODUCT.check,
    identity=cells.PRODUCT.identity,
    sample=cells.PRODUCT.sample,
    sample_with_replacement=functools.partial(cells.PRODUCT.sample, replace=True),
    mutate=cells.PRODUCT.mutate,
    neighbours=cells.PRODUCT.neighbours,
    every=cells.PRODUCT.every,
    # Every layer lies on the path.
    prune_dead=np.asarray,
    has_path=cells.has_path,
    relative_work=cells.relative_work,
    graphs=_graphs,
    canonical_form=None,
)
