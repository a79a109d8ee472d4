"""The DARTS search space: a normal and a reduction cell as genotypes (Liu et al. 2019, section 2).

A cell has two input nodes, 0 and 1, and four intermediate nodes, 2 to 5. An intermediate node is
the sum of two edges from two different earlier nodes, each with one of 7 operations, and the output
is the concatenation of the four intermediate nodes. The two names of a pair of cells:

* text: ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[2, 3, 4, 5], reduce=[...],
  reduce_concat=[2, 3, 4, 5])``, as DARTS and NAS-Bench-301 write it: two (operation, source) pairs
  per node;
* genotype: ``int32[28]``, the operation's index in `OPERATIONS` for each of the 14 possible edges
  of the normal cell in `CELL_EDGES` order, then of the reduction cell; none where there is no edge.

The functions from `sample` on also accept edges with a pair of operations (see `edges`), because
`spaces.nasbench301` uses them too.

In this space "cell" means such a pair of cells, and E is 28.
"""

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.arrays import as_array
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import check_rows
from epe_nas_jax.spaces.darts.edges import (
    CELL_EDGES,
    CELLS,
    EDGES_INTO,
    INPUTS_PER_NODE,
    NODES,
    NUM_CELL_EDGES,
    NUM_EDGES,
    NUM_OPERATIONS,
    NUM_OPERATIONS_OF,
    OPERATIONS_OF,
    value_of,
)
from epe_nas_jax.spaces.darts.text import read_genotype, write_genotype

_WORD_BITS = 30
# Approximate time of each operation on a CPU core.
_RELATIVE_WORK = np.array([0, 2, 1, 1, 6, 10, 3, 5])


def parse_genotype(text: str) -> np.ndarray:
    """Reads a genotype's text; nothing in it is executed.

    Args:
      text: the cells as DARTS writes them. A pair with none means no edge.

    Returns:
      The genotype, int32 `[E]`.

    Raises:
      InputError: the text does not have this form, names an unknown operation, has another number
        of edges, or a node reads itself, a later node or one node twice.

    Examples:
      >>> from epe_nas_jax.spaces.darts.published import DARTS_V2
      >>> epe_nas_jax.parse_genotype(DARTS_V2).shape
      (28,)
    """
    return read_genotype(text, may_read_twice=False)


def format_genotype(genotype: np.ndarray | jax.Array) -> str:
    """Writes a genotype, int `[E]`, as text, with the edges of a node ordered by source.

    Missing edges of a node are written as none, from the first sources that it does not read.

    Raises:
      InputError: the genotype is not one of the space.

    Examples:
      >>> from epe_nas_jax.spaces.darts.published import DARTS_V2
      >>> text = epe_nas_jax.format_genotype(epe_nas_jax.parse_genotype(DARTS_V2))
      >>> print(text)
      Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ...], normal_concat=[2, 3, 4, 5],
      reduce=[('max_pool_3x3', 0), ...], reduce_concat=[2, 3, 4, 5])
    """
    return write_genotype(check_genotypes(np.asarray(as_array(genotype, "genotype"))[None])[0])


def sample(key: jax.Array, num_cells: int, *, replace: bool = False) -> np.ndarray:
    """Draws cells uniformly, all nodes with two edges.

    Args:
      key: random key, consumed.
      num_cells: how many cells, A.
      replace: whether a cell may be drawn twice.

    Returns:
      Genotypes, int32 `[A, E]`.

    Raises:
      InputError: A is below 1.
    """
    if num_cells < 1:
        raise InputError(f"number of samples: found {num_cells}, expected at least 1")
    if replace:
        return _draw(key, num_cells)
    # Equal cells are very rare: there are about 10^18 cells.
    found: dict[bytes, np.ndarray] = {}
    while len(found) < num_cells:
        key, draw_key = jax.random.split(key)
        rows = _draw(draw_key, num_cells - len(found))
        found.update((row.tobytes(), row) for row in rows)
    return np.array(list(found.values()))


def _draw(key: jax.Array, num_cells: int) -> np.ndarray:
    """Draws genotypes `[A, E]`, of which two may be equal."""
    op_key, source_key = jax.random.split(key)
    shape = (num_cells, 2, NUM_CELL_EDGES)
    edge_ops = np.asarray(jax.random.randint(op_key, shape, 1, NUM_OPERATIONS, jnp.int32))
    drawn = np.asarray(jax.random.uniform(source_key, shape))
    is_there = np.zeros(shape, bool)
    for into in EDGES_INTO.values():
        # A node has the two of its possible edges that drew the largest numbers.
        ranks = np.argsort(np.argsort(drawn[..., into], axis=-1, kind="stable"), axis=-1)
        is_there[..., into] = ranks >= len(into) - INPUTS_PER_NODE
    return np.where(is_there, edge_ops, 0).reshape(num_cells, NUM_EDGES)


def neighbours(genotype: np.ndarray) -> np.ndarray:
    """All cells that one change makes of a genotype, int `[E]`: int32 `[A, E]`.

    A change gives an edge another operation, or moves it to another source that its node does not
    read yet. A node with fewer than two edges may get one more. No change makes an operation none,
    or adds a second operation to an edge. There are 120 neighbours where every node has two edges.
    """
    row = np.asarray(genotype, np.int32)
    found = []
    for first in (0, NUM_CELL_EDGES):
        for into in EDGES_INTO.values():
            edges = first + into
            free = edges[row[edges] == 0]
            inputs = [(edge, op) for edge in edges for op in OPERATIONS_OF[row[edge]] if op]
            for edge, op in inputs:
                # The other operation of the edge: none, or the second one of a pair.
                rest = OPERATIONS_OF[row[edge]].sum() - op
                for other_op in range(1, NUM_OPERATIONS):
                    if other_op != op:
                        found.append(_changed(row, {edge: value_of(rest, other_op)}))
                for other in free:
                    found.append(_changed(row, {edge: rest, other: op}))
            if len(inputs) < INPUTS_PER_NODE:
                for edge in free:
                    for op in range(1, NUM_OPERATIONS):
                        found.append(_changed(row, {edge: op}))
    # The two operations of an equal pair give the same cells.
    return np.array(list({row.tobytes(): row for row in found}.values()))


def _changed(row: np.ndarray, changes: dict[int, int]) -> np.ndarray:
    """A copy of a genotype with other values of some edges."""
    copy = row.copy()
    copy[list(changes)] = list(changes.values())
    return copy


def mutate(key: jax.Array, genotypes: np.ndarray | jax.Array) -> np.ndarray:
    """Changes every cell in one place: to one of its neighbours, drawn uniformly.

    Args:
      key: random key, consumed.
      genotypes: int `[A, E]`.

    Returns:
      int32 `[A, E]`.
    """
    draws = np.asarray(jax.random.uniform(key, (len(genotypes),)))
    children = np.array(genotypes, np.int32)
    for child, draw in zip(children, draws, strict=True):
        near = neighbours(child)
        child[:] = near[int(draw * len(near))]
    return children


def identity(genotypes: np.ndarray | jax.Array, bits: int = 3) -> np.ndarray:
    """The exact identity of genotypes, int `[A, E]`: int32 `[A, W]`, W words of 30 bits.

    A word holds the values of as many edges as fit: ten edges of 3 bits, the bits of an operation.
    """
    edges_per_word = _WORD_BITS // bits
    rows = np.asarray(genotypes, np.int64)
    rows = np.pad(rows, ((0, 0), (0, -NUM_EDGES % edges_per_word)))
    rows = rows.reshape(len(rows), -1, edges_per_word)
    return (rows << (bits * np.arange(edges_per_word))).sum(axis=-1).astype(np.int32)


def prune_dead(genotypes: np.ndarray) -> np.ndarray:
    """Removes from genotypes, int `[..., E]`, the edges that leave nodes without incoming edges.

    Such a node is zero, and at the initial weights so is the output of every operation on it. All
    other edges lead to the cell's output. (If normal cells never read the cell before them, which
    DARTS's texts allow, no cell reads some cells of the network; they are kept, and counted.)
    """
    live = np.array(genotypes)
    for first in (0, NUM_CELL_EDGES):
        cell = live[..., first : first + NUM_CELL_EDGES]
        for node in NODES:
            is_empty = ~np.any(cell[..., EDGES_INTO[node]], axis=-1)
            for edge, (source, _) in enumerate(CELL_EDGES):
                if source == node:
                    cell[..., edge] *= ~is_empty
    return live


def has_path(genotypes: np.ndarray) -> np.ndarray:
    """Whether the normal cell has an operation: bool `[A]` of genotypes `[A, E]`.

    Otherwise the output of the last cell is zero for any image. The last cell is a normal one in
    every network of more than 3 cells.
    """
    return np.any(prune_dead(genotypes)[..., :NUM_CELL_EDGES] != 0, axis=-1)


def relative_work(genotypes: np.ndarray) -> np.ndarray:
    """How long genotypes, int `[A, E]`, take to score, in any unit: `[A]`."""
    return _RELATIVE_WORK[OPERATIONS_OF[genotypes]].sum(axis=(1, 2))


def check_genotypes(
    genotypes: np.ndarray | jax.Array, num_values: int = NUM_OPERATIONS
) -> np.ndarray:
    """Checks that rows are genotypes of the space.

    Args:
      genotypes: integers `[A, E]` on the host.
      num_values: how many values an edge may have.

    Returns:
      The genotypes as int32 `[A, E]`.

    Raises:
      InputError: wrong rank, shape or dtype, a value out of range, or a node with more than two
        edges.
    """
    rows = check_rows(genotypes, NUM_EDGES, num_values)
    for node, into in EDGES_INTO.items():
        values = rows.reshape(-1, len(CELLS), NUM_CELL_EDGES)[..., into]
        counts = NUM_OPERATIONS_OF[values].sum(axis=-1)
        wrong = np.argwhere(counts > INPUTS_PER_NODE)
        if wrong.size:
            cell, kind = wrong[0]
            raise InputError(
                f"genotype {cell}, {CELLS[kind]}, node {node}: found {counts[cell, kind]} edges, "
                f"expected at most {INPUTS_PER_NODE}"
            )
    return rows
