"""Counts edges, such as pools, on the paths of a cell from input to output; needs no network.

A path goes along live edges. A `Counter` holds how many paths have each count, so that the work
grows with the number of edges and not with that of paths.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from epe_nas_jax.spaces.base import CellGraph, GraphEdge

# From an edge to how much it counts: 0 or 1, or any weight.
Counts = Callable[[GraphEdge], int]


def is_pool(edge: GraphEdge) -> bool:
    """Whether an edge is a pool."""
    return edge.kind == "pool"


def is_wide_conv(edge: GraphEdge) -> bool:
    """Whether an edge is a convolution wider than one pixel."""
    return edge.kind == "conv" and not edge.operation.endswith("1x1")


def is_conv(edge: GraphEdge) -> bool:
    """Whether an edge is a convolution."""
    return edge.kind == "conv"


def count_on_edges(graph: CellGraph, counts: Counts) -> float:
    """Counts the edges that lie on any path, each once; NaN without a path.

    Args:
      graph: as in `count_on_paths`.
      counts: how much an edge counts.
    """
    live = [edge for edge in graph.edges if edge.is_live]
    return float(sum(map(counts, live))) if live else np.nan


def count_on_paths(graph: CellGraph, counts: Counts) -> Counter[int]:
    """Counts edges on every path, and how many paths have each count.

    Args:
      graph: a cell, as `SearchSpace.graphs` gives it; every edge must lead from an earlier to a
        later node.
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
    """The smallest count on a path; NaN without a path."""
    return min(paths, default=np.nan)


def most(paths: Counter[int]) -> float:
    """The largest count on a path; NaN without a path."""
    return max(paths, default=np.nan)


def mean(paths: Counter[int]) -> float:
    """The mean count over all paths; NaN without a path."""
    num_paths = paths.total()
    return sum(c * n for c, n in paths.items()) / num_paths if num_paths else np.nan
