"""The DARTS search space: a normal and a reduction cell as genotypes (Liu et al. 2019, section 2).

A cell has two input nodes, 0 and 1, and four intermediate nodes, 2 to 5. An intermediate node is
the sum of two edges from two different earlier nodes, each with one of 7 operations, and the output
is all four intermediate nodes together. The two names of a pair of cells:

* text: ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[2, 3, 4, 5], reduce=[...],
  reduce_concat=[2, 3, 4, 5])``, as DARTS and NAS-Bench-301 write it: two (operation, source) pairs
  a node;
* genotype: ``int32[28]``, the operation's index in `OPERATIONS` for each of the 14 possible edges
  of the normal cell in `CELL_EDGES` order, then of the reduction cell; none where no edge is.

A cell here is such a pair, and E is 28.
"""

import ast
import reprlib

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.arrays import as_array
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import check_rows

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
NODES = (2, 3, 4, 5)
CELL_EDGES = tuple((source, target) for target in NODES for source in range(target))
NUM_CELL_EDGES = len(CELL_EDGES)
NUM_EDGES = 2 * NUM_CELL_EDGES
INPUTS_PER_NODE = 2

_CELLS = ("normal", "reduce")
_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
_FORM = "Genotype(normal=[(op, from), ...], normal_concat=[...], reduce=[...], reduce_concat=[...])"
_EDGES_INTO = {
    node: np.array([edge for edge, (_, target) in enumerate(CELL_EDGES) if target == node])
    for node in NODES
}
# Operations in a word of an identity.
_EDGES_PER_WORD = 10
# Time of each operation on a CPU core, roughly.
_RELATIVE_WORK = np.array([0, 2, 1, 1, 6, 10, 3, 5])


def parse_genotype(text: str) -> np.ndarray:
    """Reads a genotype's text; nothing in it is executed.

    Args:
      text: the cells as DARTS writes them. An edge with none is an edge that is not there.

    Returns:
      The genotype, int32 `[E]`.

    Raises:
      InputError: the text is not of the form, names an unknown operation, has another number of
        edges, or a node reads itself, a later node or one node twice.
    """
    fields = _read_call(text)
    rows = []
    for cell in _CELLS:
        concat = fields[f"{cell}_concat"]
        if not isinstance(concat, list | tuple | range) or tuple(concat[:5]) != NODES:
            found = reprlib.repr(concat)
            raise InputError(f"{cell}_concat: found {found}, expected {list(NODES)}")
        rows.append(_read_cell(cell, fields[cell]))
    return np.concatenate(rows)


def format_genotype(genotype: np.ndarray | jax.Array) -> str:
    """Writes a genotype, int `[E]`, as text, with the edges of a node ordered by source.

    A node with fewer than two edges is written with none from the first sources it does not read.

    Raises:
      InputError: the genotype is not one of the space.
    """
    row = check_genotypes(np.asarray(as_array(genotype, "genotype"))[None])[0]
    parts = []
    for cell, edge_ops in zip(_CELLS, row.reshape(2, NUM_CELL_EDGES), strict=True):
        pairs = []
        for node in NODES:
            into = edge_ops[_EDGES_INTO[node]]
            # Edges that are there first, then the others, and of these as many as are missing.
            sources = np.argsort(into == 0, kind="stable")[:INPUTS_PER_NODE]
            pairs += [(OPERATIONS[into[source]], int(source)) for source in np.sort(sources)]
        parts.append(f"{cell}={pairs}, {cell}_concat={list(NODES)}")
    return f"Genotype({', '.join(parts)})"


def sample(key: jax.Array, num_cells: int, *, replace: bool = False) -> np.ndarray:
    """Draws cells uniformly, none of their operations being none.

    Args:
      key: random key, consumed.
      num_cells: how many, A.
      replace: whether a cell may be drawn twice.

    Returns:
      Genotypes, int32 `[A, E]`.

    Raises:
      InputError: fewer than one.
    """
    if num_cells < 1:
        raise InputError(f"number of samples: found {num_cells}, expected at least 1")
    if replace:
        return _draw(key, num_cells)
    # Of some 10^18 cells hardly two are ever equal.
    found: dict[bytes, np.ndarray] = {}
    while len(found) < num_cells:
        key, draw_key = jax.random.split(key)
        rows = _draw(draw_key, num_cells - len(found))
        found.update((row.tobytes(), row) for row in rows)
    return np.array(list(found.values()))


def _draw(key: jax.Array, num_cells: int) -> np.ndarray:
    """Genotypes `[A, E]`, of which two may be equal."""
    op_key, source_key = jax.random.split(key)
    shape = (num_cells, 2, NUM_CELL_EDGES)
    edge_ops = np.asarray(jax.random.randint(op_key, shape, 1, NUM_OPERATIONS, jnp.int32))
    drawn = np.asarray(jax.random.uniform(source_key, shape))
    is_there = np.zeros(shape, bool)
    for into in _EDGES_INTO.values():
        # Of a node's possible edges those two are there that drew the largest numbers.
        ranks = np.argsort(np.argsort(drawn[..., into], axis=-1, kind="stable"), axis=-1)
        is_there[..., into] = ranks >= len(into) - INPUTS_PER_NODE
    return np.where(is_there, edge_ops, 0).reshape(num_cells, NUM_EDGES)


def neighbours(genotype: np.ndarray) -> np.ndarray:
    """All cells that one change makes of a genotype, int `[E]`: int32 `[A, E]`.

    A change gives an edge another operation, or lets it come from another node that its node does
    not read yet. A node with fewer than two edges may get one more. None is never put in. There are
    120 where every node has two edges.
    """
    row = np.asarray(genotype, np.int32)
    found = []
    for first in (0, NUM_CELL_EDGES):
        for into in _EDGES_INTO.values():
            edges = first + into
            free, taken = edges[row[edges] == 0], edges[row[edges] != 0]
            for edge in taken:
                for op in range(1, NUM_OPERATIONS):
                    if op != row[edge]:
                        found.append(_changed(row, {edge: op}))
                for other in free:
                    found.append(_changed(row, {edge: 0, other: row[edge]}))
            if len(taken) < INPUTS_PER_NODE:
                for edge in free:
                    for op in range(1, NUM_OPERATIONS):
                        found.append(_changed(row, {edge: op}))
    return np.array(found)


def _changed(row: np.ndarray, changes: dict[int, int]) -> np.ndarray:
    """A copy of a genotype with other operations on some edges."""
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


def identity(genotypes: np.ndarray | jax.Array) -> np.ndarray:
    """The exact identity of genotypes, int `[A, E]`: int32 `[A, W]`, W = 3 words of 30 bits.

    Each holds the operations, 3 bits each, of up to ten edges.
    """
    rows = np.asarray(genotypes, np.int64)
    rows = np.pad(rows, ((0, 0), (0, -NUM_EDGES % _EDGES_PER_WORD)))
    rows = rows.reshape(len(rows), -1, _EDGES_PER_WORD)
    return (rows << (3 * np.arange(_EDGES_PER_WORD))).sum(axis=-1).astype(np.int32)


def prune_dead(genotypes: np.ndarray) -> np.ndarray:
    """Genotypes, int `[..., E]`, without edges from nodes that have no edge themselves.

    Such a node is zero, and at the initial weights so is every operation of it. All other edges
    lead to the output.
    """
    live = np.array(genotypes)
    for first in (0, NUM_CELL_EDGES):
        cell = live[..., first : first + NUM_CELL_EDGES]
        for node in NODES:
            is_empty = ~np.any(cell[..., _EDGES_INTO[node]], axis=-1)
            for edge, (source, _) in enumerate(CELL_EDGES):
                if source == node:
                    cell[..., edge] *= ~is_empty
    return live


def has_path(genotypes: np.ndarray) -> np.ndarray:
    """Whether the normal cell has an operation: bool `[A]` of genotypes `[A, E]`.

    Otherwise the last cell puts out zeros, whatever the image. It is a normal one in every network
    of more than 3 cells.
    """
    return np.any(prune_dead(genotypes)[..., :NUM_CELL_EDGES] != 0, axis=-1)


def relative_work(genotypes: np.ndarray) -> np.ndarray:
    """How long genotypes, int `[A, E]`, take to score, in any unit: `[A]`."""
    return _RELATIVE_WORK[genotypes].sum(axis=1)


def check_genotypes(genotypes: np.ndarray | jax.Array) -> np.ndarray:
    """Checks that rows are genotypes of the space.

    Args:
      genotypes: integers `[A, E]` on the host.

    Returns:
      The genotypes as int32 `[A, E]`.

    Raises:
      InputError: wrong rank, shape or dtype, an operation index out of range, or a node with more
        than two edges.
    """
    rows = check_rows(genotypes, NUM_EDGES, NUM_OPERATIONS)
    for node, into in _EDGES_INTO.items():
        counts = np.count_nonzero(rows.reshape(-1, 2, NUM_CELL_EDGES)[..., into], axis=-1)
        wrong = np.argwhere(counts > INPUTS_PER_NODE)
        if wrong.size:
            cell, kind = wrong[0]
            raise InputError(
                f"genotype {cell}, {_CELLS[kind]}, node {node}: found {counts[cell, kind]} edges, "
                f"expected at most {INPUTS_PER_NODE}"
            )
    return rows


def _read_call(text: str) -> dict[str, object]:
    """The arguments of ``Genotype(...)`` by name."""
    if not isinstance(text, str):
        raise InputError(f"genotype: found {type(text).__name__}, expected the form {_FORM}")
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != "Genotype" or call.args:
            raise ValueError
        fields = [(str(item.arg), _read_value(item.value)) for item in call.keywords]
        # Messages show them; Python writes no number of thousands of digits.
        repr(fields)
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        raise InputError(f"genotype {text[:40]!r}: expected the form {_FORM}") from None
    names = [name for name, _ in fields]
    if sorted(names) != sorted(_FIELDS):
        found = reprlib.repr(names)
        raise InputError(f"genotype: found fields {found}, expected {list(_FIELDS)}")
    return dict(fields)


def _read_value(node: ast.expr) -> object:
    """A literal, or `range` of literals."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        return range(*[ast.literal_eval(argument) for argument in node.args])
    return ast.literal_eval(node)


def _read_cell(cell: str, pairs: object) -> np.ndarray:
    """Operation indices of a cell's 14 edges from its (operation, source) pairs."""
    expected = INPUTS_PER_NODE * len(NODES)
    if not isinstance(pairs, list | tuple) or len(pairs) != expected:
        found = len(pairs) if isinstance(pairs, list | tuple) else type(pairs).__name__
        raise InputError(f"{cell}: found {found} edges, expected {expected}, two a node")
    edge_ops = np.zeros(NUM_CELL_EDGES, np.int32)
    seen = set()
    for number, pair in enumerate(pairs):
        node = NODES[number // INPUTS_PER_NODE]
        match pair:
            case (str(name), int(source)):
                pass
            case _:
                found = reprlib.repr(pair)
                raise InputError(f"{cell}, node {node}: found {found}, expected (operation, from)")
        if name not in OPERATIONS:
            found, known = reprlib.repr(name), ", ".join(OPERATIONS)
            raise InputError(f"{cell}, node {node}: unknown operation {found}, expected {known}")
        if not 0 <= source < node:
            raise InputError(
                f"{cell}, node {node}: reads node {source}, expected an earlier one, 0..{node - 1}"
            )
        if (source, node) in seen:
            raise InputError(f"{cell}, node {node}: reads node {source} twice, expected two nodes")
        seen.add((source, node))
        edge_ops[CELL_EDGES.index((source, node))] = OPERATIONS.index(name)
    return edge_ops
