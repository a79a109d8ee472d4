"""The nodes, edges and operations of DARTS cells, and the possible values of an edge.

The value of an edge is the index of an operation or, in NAS-Bench-301 only, stands for two
operations that both read the edge's source: an unordered pair without none, in which an operation
may occur twice.
"""

import itertools

import numpy as np

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NUM_OPERATIONS = len(OPERATIONS)
# Names of the normal and the reduction cell in texts.
CELLS = ("normal", "reduce")
NODES = (2, 3, 4, 5)
CELL_EDGES = tuple((source, target) for target in NODES for source in range(target))
NUM_CELL_EDGES = len(CELL_EDGES)
NUM_EDGES = len(CELLS) * NUM_CELL_EDGES
INPUTS_PER_NODE = 2
EDGES_INTO = {
    node: np.array([edge for edge, (_, target) in enumerate(CELL_EDGES) if target == node])
    for node in NODES
}

_PAIRS = tuple(itertools.combinations_with_replacement(range(1, NUM_OPERATIONS), INPUTS_PER_NODE))
NUM_VALUES = NUM_OPERATIONS + len(_PAIRS)
# The two operations of each value, none where there are fewer, and how many are not none.
OPERATIONS_OF = np.array([*((op, 0) for op in range(NUM_OPERATIONS)), *_PAIRS], np.int32)
NUM_OPERATIONS_OF = np.count_nonzero(OPERATIONS_OF, axis=1)

_VALUE_OF = {(*ops,): value for value, ops in enumerate(OPERATIONS_OF.tolist())}


def value_of(first: int, second: int) -> int:
    """The value of an edge with two operations, in any order; each may be none."""
    low, high = sorted((int(first), int(second)))
    return _VALUE_OF[low, high] if low else _VALUE_OF[high, 0]
