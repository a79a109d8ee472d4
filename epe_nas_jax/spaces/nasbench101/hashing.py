"""The graph hash by which NAS-Bench-101 names its cells."""

import hashlib
from collections.abc import Sequence

import numpy as np

# The hash has operations by number, in an order of its own.
_LABELS = {
    "input": -1,
    "output": -2,
    "conv3x3-bn-relu": 0,
    "conv1x1-bn-relu": 1,
    "maxpool3x3": 2,
}


def graph_hash(matrix: np.ndarray, labels: Sequence[str]) -> str:
    """The MD5 digest of a cell, 32 hexadecimal digits, equal for two cells that are isomorphic.

    A vertex starts from the digest of how many edges leave and enter it and of its label. As often
    as there are vertices, it takes the digest of its sources, its targets and itself. The graph's
    is that of all vertices', sorted (Ying et al. 2019, section 2.1, after Ying 2019).

    Args:
      matrix: adjacency, 0 and 1, a row a vertex.
      labels: of the vertices.
    """
    edges = np.asarray(matrix) != 0
    ends = zip(edges.sum(axis=1).tolist(), edges.sum(axis=0).tolist(), labels, strict=True)
    digests = [_digest(str((leave, enter, _LABELS[label]))) for leave, enter, label in ends]

    def joined(is_near: np.ndarray) -> str:
        return "".join(sorted(digests[other] for other in np.flatnonzero(is_near)))

    for _ in labels:
        digests = [
            _digest(f"{joined(edges[:, vertex])}|{joined(edges[vertex])}|{digests[vertex]}")
            for vertex in range(len(labels))
        ]
    return _digest(str(sorted(digests)))


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
