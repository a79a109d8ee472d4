"""What lies on the paths of a cell from input to output: counts that need no network.

A path goes along live edges. The number of paths by what is counted on them is a `Counter`, so that
a cell of many paths costs no more than its edges.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from epe_nas_jax.spaces.base import CellGraph, GraphEdge

# How much an edge counts: 0 or 1, or any weight.
Counts = Callable[[GraphEdge], int]


def is_pool(edge: GraphEdge) -> bool:
    """Whether an edge averages or takes maxima."""
    return edge.kind == "pool"


def is_wide_conv(edge: GraphEdge) -> bool:
    """Whether an edge is a convolution that sees more than one pixel."""
    return edge.kind == "conv" and not edge.operation.endswith("1x1")


def is_conv(edge: GraphEdge) -> bool:
    """Whether an edge is a convolution."""
    return edge.kind == "conv"


def count_on_edges(graph: CellGraph, counts: Counts) -> float:
    """How much lies on all paths together, an edge counting once; NaN without a path.

    Args:
      graph: as in `count_on_paths`.
      counts: how much an edge counts.
    """
    live = [edge for edge in graph.edges if edge.is_live]
    return float(sum(map(counts, live))) if live else np.nan


def count_on_paths(graph: CellGraph, counts: Counts) -> Counter[int]:
    """How many paths there are by how much lies on them.

    Args:
      graph: a cell, as `SearchSpace.graphs` gives it, its nodes in an order in which every edge
        leads from an earlier to a later one.
      counts: how much an edge counts.

    Returns:
      Numbers of paths by the sum over their edges; empty for a cell without a path.
    """
    live = [edge for edge in graph.edges if edge.is_live]
    sources, targets = {edge.source for edge in live}, {edge.target for edge in live}
    into = {node: Counter({0: 1}) for node in sources - targets}
    for edge in sorted(live, key=lambda edge: edge.source):
        of_target = into.setdefault(edge.target, Counter())
        for count, paths in into[edge.source].items():
            of_target[count + counts(edge)] += paths
    return sum((into[node] for node in targets - sources), start=Counter())


def fewest(paths: Counter[int]) -> float:
    """The smallest number on a path; NaN without a path."""
    return min(paths, default=np.nan)


def most(paths: Counter[int]) -> float:
    """The largest number on a path; NaN without a path."""
    return max(paths, default=np.nan)


def mean(paths: Counter[int]) -> float:
    """The mean number over all paths; NaN without a path."""
    num_paths = paths.total()
    return sum(c * n for c, n in paths.items()) / num_paths if num_paths else np.nan
