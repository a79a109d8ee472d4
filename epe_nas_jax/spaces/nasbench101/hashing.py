"""The graph hash by which NAS-Bench-101 names its cells."""

import hashlib
from collections.abc import Sequence

import numpy as np

# The numbers of operations in the hash, which differ from those in genotypes.
_LABELS = {
    "input": -1,
    "output": -2,
    "conv3x3-bn-relu": 0,
    "conv1x1-bn-relu": 1,
    "maxpool3x3": 2,
}


def graph_hash(matrix: np.ndarray, labels: Sequence[str]) -> str:
    """The MD5 digest of a cell, 32 hexadecimal digits, equal for two cells that are isomorphic.

    The first digest of a vertex is that of its label and of how many edges leave and enter it. Then
    it is replaced by the digest of its sources', its targets' and its own digest, as many times as
    there are vertices. The graph's digest is that of all vertices' sorted digests (Ying et al.
    2019, section 2.1, after Ying 2019).

    Args:
      matrix: adjacency matrix of 0 and 1, one row per vertex.
      labels: labels of the vertices.
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
