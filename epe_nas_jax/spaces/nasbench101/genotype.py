"""The NAS-Bench-101 search space: cells as genotypes (Ying et al. 2019, sections 2.1 and 2.2).

A cell is a directed acyclic graph of up to 7 vertices and 9 edges. The first vertex is the input,
the last one the output, and each other vertex has one of 3 operations. Its two names:

* text: ``1100-011-01-1:input,conv3x3-bn-relu,maxpool3x3,conv1x1-bn-relu,output``, the upper
  triangle of the adjacency matrix by rows and the operation of each vertex. ``@`` and the cell's
  hash (`module_hash`) may follow, and are then checked;
* genotype: ``int32[26]``, the upper triangle of a 7x7 adjacency matrix by rows, 21 entries of 0
  and 1, then the index in `OPERATIONS` of vertices 1 to 5. Vertex 6 is the output: in a cell of
  fewer vertices, vertices without edges and of index 0 come before it.

So E is 26. The row of zeros is the empty cell, which has no score. `hashing` has the graph hash.
"""

import reprlib
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np

from epe_nas_jax.arrays import as_array
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import Cells, check_rows
from epe_nas_jax.spaces.nasbench101 import hashing

OPERATIONS = ("conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3")
KERNEL_SIZES = {"conv1x1-bn-relu": 1, "conv3x3-bn-relu": 3}
INPUT, OUTPUT = "input", "output"
MOST_VERTICES = 7
MOST_EDGES = 9
NUM_INNER = MOST_VERTICES - 2
NUM_BITS = MOST_VERTICES * (MOST_VERTICES - 1) // 2
NUM_EDGES = NUM_BITS + NUM_INNER
# Cells that are not isomorphic (Ying et al. 2019, section 2.1).
NUM_CLASSES = 423_624

_FORM = "ADJACENCY:OPERATIONS, such as 11-1:input,conv3x3-bn-relu,output"
_SOURCES, _TARGETS = np.triu_indices(MOST_VERTICES, 1)
# For each entry of the matrix its index in a genotype's bits, or the index after the last bit.
_PLACES = np.full((MOST_VERTICES, MOST_VERTICES), NUM_BITS)
_PLACES[_SOURCES, _TARGETS] = np.arange(NUM_BITS)


def matrices(genotypes: Any, xp: ModuleType = np) -> tuple[Any, Any]:
    """Adjacency matrices, bool `[..., 7, 7]`, and operations `[..., 5]` of genotypes `[..., E]`.

    Args:
      genotypes: integers.
      xp: `numpy`, or `jax.numpy` for a traced genotype.
    """
    bits = genotypes[..., :NUM_BITS] != 0
    no_edge = xp.zeros((*bits.shape[:-1], 1), bool)
    matrix = xp.concatenate([bits, no_edge], axis=-1)[..., _PLACES]
    return matrix, genotypes[..., NUM_BITS:]


def live_vertices(matrix: Any, xp: ModuleType = np) -> Any:
    """Whether vertices lie on a path from input to output, bool `[..., 7]`.

    Args:
      matrix: adjacency matrices, bool `[..., 7, 7]`.
      xp: `numpy`, or `jax.numpy` for a traced array.
    """
    last = MOST_VERTICES - 1
    ends = xp.ones(matrix.shape[:-2], bool)
    is_reached, leads = {0: ends}, {last: ends}
    for vertex in range(1, MOST_VERTICES):
        into = [is_reached[source] & matrix[..., source, vertex] for source in range(vertex)]
        is_reached[vertex] = xp.any(xp.stack(into), axis=0)
    for vertex in reversed(range(last)):
        targets = range(vertex + 1, MOST_VERTICES)
        out = [leads[target] & matrix[..., vertex, target] for target in targets]
        leads[vertex] = xp.any(xp.stack(out), axis=0)
    return xp.stack([is_reached[v] & leads[v] for v in range(MOST_VERTICES)], axis=-1)


def live_form(matrix: Any, operations: Any, xp: ModuleType = np) -> tuple[Any, Any]:
    """Removes the vertices on no path from input to output, and moves the rest up in order.

    Args:
      matrix: adjacency matrices, bool `[..., 7, 7]`.
      operations: operations of vertices 1 to 5, int `[..., 5]`.
      xp: `numpy`, or `jax.numpy` for traced arrays.

    Returns:
      Matrices and operations of the live form, of the same shapes; of a cell without a path the
      empty cell.
    """
    live = live_vertices(matrix, xp)
    # The output stays the last one, the others move up.
    inner = 1 + xp.argsort(~live[..., 1:-1], axis=-1, stable=True)
    ends = xp.zeros_like(inner[..., :1])
    order = xp.concatenate([ends, inner, ends + MOST_VERTICES - 1], axis=-1)
    live = xp.take_along_axis(live, order, axis=-1)
    matrix = xp.take_along_axis(matrix, order[..., :, None], axis=-2)
    matrix = xp.take_along_axis(matrix, order[..., None, :], axis=-1)
    operations = xp.take_along_axis(operations, inner - 1, axis=-1)
    matrix = matrix & live[..., :, None] & live[..., None, :]
    return matrix, xp.where(live[..., 1:-1], operations, 0)


def from_matrix(matrix: Any, labels: Sequence[str]) -> np.ndarray:
    """Converts a cell in the form of NAS-Bench-101's code, a matrix and labels, to its genotype.

    Args:
      matrix: adjacency matrix of 0 and 1 (or bool), one row per vertex; 2 to 7 vertices.
      labels: labels of the vertices, the first one `input` and the last one `output`.

    Returns:
      The genotype, int32 `[E]`. Vertices on no path are removed from a cell of more than 9 edges,
      because the benchmark does not count their edges.

    Raises:
      InputError: the matrix is not square, not of 0 and 1 or not upper triangular; too many
        vertices or edges; labels that do not match, or an unknown one; or no path from input to
        output, except in the empty cell of two vertices.
    """
    if not isinstance(labels, list | tuple) or not all(isinstance(x, str) for x in labels):
        raise InputError(f"labels: found {reprlib.repr(labels)}, expected a text for each vertex")
    edges = np.asarray(as_array(matrix, "matrix"))
    if edges.ndim != 2 or edges.shape[0] != edges.shape[1]:
        raise InputError(f"matrix: found shape {edges.shape}, expected a square one")
    size = len(edges)
    if not 2 <= size <= MOST_VERTICES:
        raise InputError(f"cell: found {size} vertices, expected 2..{MOST_VERTICES}")
    if edges.dtype.kind not in "biuf" or not np.isin(edges, (0, 1)).all():
        raise InputError("matrix: found other entries, expected 0 and 1")
    if np.tril(edges).any():
        source, target = np.argwhere(np.tril(edges))[0]
        raise InputError(
            f"matrix: found an edge from vertex {source} to {target}, "
            "expected an upper triangular one"
        )
    return _from_triangle(edges != 0, list(labels))


def parse(text: str) -> np.ndarray:
    """Reads the text of a NAS-Bench-101 cell.

    Returns:
      The genotype, int32 `[E]`. Vertices on no path are removed from a cell of more than 9 edges,
      because the benchmark does not count their edges.

    Raises:
      InputError: the text does not have this form, names an unknown operation, has another number
        of operations than of vertices, too many vertices or edges, no path from input to output
        (except in the empty cell, `0:input,output`), or the hash of another cell.
    """
    if not isinstance(text, str):
        raise InputError(f"cell: found {type(text).__name__}, expected the form {_FORM}")
    adjacency, colon, rest = text.partition(":")
    rows = adjacency.split("-")
    size = len(rows) + 1
    lengths = [len(row) for row in rows]
    if not colon or not set(adjacency) <= set("01-") or lengths != list(range(size - 1, 0, -1)):
        raise InputError(f"cell {reprlib.repr(text)}: expected the form {_FORM}")
    if size > MOST_VERTICES:
        raise InputError(f"cell: found {size} vertices, expected 2..{MOST_VERTICES}")
    matrix = np.zeros((size, size), bool)
    matrix[np.triu_indices(size, 1)] = [bit == "1" for bit in "".join(rows)]
    labels, at, digest = rest.partition("@")
    genotype = _from_triangle(matrix, labels.split(","))
    if at and digest != module_hash(genotype):
        found = reprlib.repr(digest)
        raise InputError(f"cell: found hash {found}, expected {module_hash(genotype)}")
    return genotype


def _from_triangle(matrix: np.ndarray, labels: list[str]) -> np.ndarray:
    """The genotype of an upper triangular matrix of 2 to 7 vertices, bool, and its labels."""
    size = len(matrix)
    if len(labels) != size:
        raise InputError(f"cell: found {len(labels)} operations, expected {size}, one per vertex")
    for end, label, expected in (("first", labels[0], INPUT), ("last", labels[-1], OUTPUT)):
        if label != expected:
            found = reprlib.repr(label)
            raise InputError(f"cell: found {found} as the {end} operation, expected {expected}")
    for vertex, label in enumerate(labels[1:-1], start=1):
        if label not in OPERATIONS:
            found, known = reprlib.repr(label), ", ".join(OPERATIONS)
            raise InputError(f"vertex {vertex}: unknown operation {found}, expected {known}")
    place = [*range(size - 1), MOST_VERTICES - 1]
    full = np.zeros((MOST_VERTICES, MOST_VERTICES), bool)
    full[np.ix_(place, place)] = matrix
    operations = np.zeros(NUM_INNER, np.int32)
    operations[: size - 2] = [OPERATIONS.index(label) for label in labels[1:-1]]
    row = _rows(full, operations)
    live = prune_dead(row)
    if not live.any() and (size > 2 or matrix.any()):
        raise InputError("cell: found no path from input to output, expected one")
    row = live if matrix.sum() > MOST_EDGES else row
    if row[:NUM_BITS].sum() > MOST_EDGES:
        raise InputError(f"cell: found {row[:NUM_BITS].sum()} edges, expected at most {MOST_EDGES}")
    return row


def _rows(matrix: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Genotypes `[..., E]` of matrices `[..., 7, 7]` and operations `[..., 5]`."""
    bits = matrix[..., _SOURCES, _TARGETS]
    return np.concatenate([bits, operations], axis=-1).astype(np.int32)


def format_cell(genotype: Cells) -> str:
    """Writes a genotype, int `[E]`, as text, without a hash.

    Raises:
      InputError: the genotype is not one of the space.
    """
    row = check_genotypes(np.asarray(as_array(genotype, "genotype"))[None])[0]
    matrix, labels = as_written(row)
    rows = ["".join(map(str, line[i + 1 :])) for i, line in enumerate(matrix[:-1].tolist())]
    return f"{'-'.join(rows)}:{','.join(labels)}"


def as_written(row: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The matrix, int, and the labels of a genotype `[E]`, without the vertices that pad it."""
    matrix, operations = matrices(row)
    is_there = matrix[1:-1].any(axis=1) | matrix[:, 1:-1].any(axis=0) | (operations != 0)
    size = np.flatnonzero(is_there).max(initial=-1) + 1
    place = [*range(size + 1), MOST_VERTICES - 1]
    labels = [OPERATIONS[operation] for operation in operations[:size]]
    return matrix[np.ix_(place, place)].astype(int), [INPUT, *labels, OUTPUT]


def check_genotypes(genotypes: Cells) -> np.ndarray:
    """Checks that rows are genotypes of the space; cells without a path are allowed.

    Args:
      genotypes: integers `[A, E]` on the host.

    Returns:
      The genotypes as int32 `[A, E]`.

    Raises:
      InputError: wrong rank, shape or dtype, an entry of the matrix that is not 0 or 1, an
        operation index out of range, or more than 9 edges.
    """
    rows = check_rows(genotypes, NUM_EDGES, len(OPERATIONS))
    bits = rows[:, :NUM_BITS]
    if (bits > 1).any():
        cell, bit = np.argwhere(bits > 1)[0]
        raise InputError(
            f"genotype {cell}, entry {bit} of the adjacency matrix: found {bits[cell, bit]}, "
            "expected 0 or 1"
        )
    counts = bits.sum(axis=1)
    if (counts > MOST_EDGES).any():
        cell = int(np.argmax(counts > MOST_EDGES))
        raise InputError(
            f"genotype {cell}: found {counts[cell]} edges, expected at most {MOST_EDGES}"
        )
    return rows


def prune_dead(genotypes: np.ndarray) -> np.ndarray:
    """The live form of genotypes, int `[..., E]`: without vertices on no path to the output.

    The other vertices move up in order. A cell without a path becomes the empty one.
    """
    rows = np.asarray(genotypes)
    return _rows(*live_form(*matrices(rows))).astype(rows.dtype)


def has_path(genotypes: np.ndarray) -> np.ndarray:
    """Whether cells lead from input to output: bool `[...]` of genotypes `[..., E]`."""
    return live_vertices(matrices(np.asarray(genotypes))[0])[..., -1]


def identity(genotypes: Cells) -> np.ndarray:
    """The exact identity of genotypes, int `[A, E]`: int32 `[A, W]`, W = 1 word of 31 bits."""
    rows = np.asarray(genotypes, np.int64)
    bits = rows[:, :NUM_BITS] << np.arange(NUM_BITS)
    operations = rows[:, NUM_BITS:] << (NUM_BITS + 2 * np.arange(NUM_INNER))
    return (bits.sum(axis=1) + operations.sum(axis=1)).astype(np.int32)[:, None]


def module_hash(genotype: Iterable[int]) -> str:
    """NAS-Bench-101's hash of a cell, int `[E]`: equal for two cells that are isomorphic.

    It is the hash of the live form, as in the benchmark.
    """
    matrix, labels = as_written(prune_dead(np.array(list(genotype), np.int32)))
    return hashing.graph_hash(matrix, labels)


def sample(key: jax.Array, num_cells: int, *, replace: bool = False) -> np.ndarray:
    """Draws cells as the benchmark's paper does (Ying et al. 2019, section 4.2, and its code).

    All entries of a 7x7 matrix and all operations are drawn uniformly, until the cell has a path
    and, without vertices on no path, at most 9 edges. These vertices are removed, so that some
    cells are more likely than others.

    Args:
      key: random key, consumed.
      num_cells: how many cells, A.
      replace: whether a cell may be drawn twice.

    Returns:
      Genotypes, int32 `[A, E]`, in live form. Some may be isomorphic.

    Raises:
      InputError: A is below 1, or, without replacement, above the number of isomorphism classes.
    """
    if num_cells < 1:
        raise InputError(f"number of samples: found {num_cells}, expected at least 1")
    if not replace and num_cells > NUM_CLASSES:
        raise InputError(
            f"number of samples: found {num_cells}, expected at most {NUM_CLASSES} "
            "different cells (or sample with replacement)"
        )
    found = np.zeros((0, NUM_EDGES), np.int32)
    while len(found) < num_cells:
        key, draw_key = jax.random.split(key)
        found = np.concatenate([found, _draw(draw_key, 2 * num_cells + 16)])
        if not replace:
            _, first = np.unique(found, axis=0, return_index=True)
            found = found[np.sort(first)]
    return found[:num_cells]


def _draw(key: jax.Array, num_draws: int) -> np.ndarray:
    """Draws random matrices and operations; returns the live forms of valid cells, `[A, E]`."""
    bit_key, operation_key = jax.random.split(key)
    bits = jax.random.bernoulli(bit_key, shape=(num_draws, NUM_BITS))
    operations = jax.random.randint(operation_key, (num_draws, NUM_INNER), 0, len(OPERATIONS))
    rows = np.concatenate([np.asarray(bits, np.int32), np.asarray(operations, np.int32)], axis=1)
    live = prune_dead(rows)
    return live[live.any(axis=1) & (live[:, :NUM_BITS].sum(axis=1) <= MOST_EDGES)]


def neighbours(genotype: np.ndarray) -> np.ndarray:
    """All valid cells that one change makes of a genotype, int `[E]`: int32 `[A, E]`.

    A change adds or removes an edge, or gives a vertex that has edges another operation. The first
    edge of a vertex without edges changes no score, but a second one may.
    """
    row = np.asarray(genotype, np.int32)
    flipped = np.tile(row, (NUM_BITS, 1))
    flipped[np.arange(NUM_BITS), np.arange(NUM_BITS)] ^= 1
    matrix, _ = matrices(row)
    has_edges = matrix[1:-1].any(axis=1) | matrix[:, 1:-1].any(axis=0)
    found = [flipped]
    for vertex in NUM_BITS + np.flatnonzero(has_edges):
        others = np.tile(row, (len(OPERATIONS) - 1, 1))
        others[:, vertex] = [i for i in range(len(OPERATIONS)) if i != row[vertex]]
        found.append(others)
    rows = np.concatenate(found)
    return rows[has_path(rows) & (rows[:, :NUM_BITS].sum(axis=1) <= MOST_EDGES)]


def mutate(key: jax.Array, genotypes: Cells) -> np.ndarray:
    """Changes every cell in one place: to one of its `neighbours`, if any, drawn uniformly.

    The mutation of the benchmark's paper (Ying et al. 2019, section 4.2) flips each edge and
    changes each operation at random, one of each on average, until the cell is valid. Here exactly
    one edge or one operation changes.

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
        if len(near):
            child[:] = near[int(draw * len(near))]
    return children
