"""Reads and writes genotypes of DARTS cells as text; nothing in a text is executed.

A text has two (operation, source) pairs per node, as DARTS and NAS-Bench-301 write them:
``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[2, 3, 4, 5], reduce=[...],
reduce_concat=[2, 3, 4, 5])``.
"""

import ast
import reprlib

import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.darts.edges import (
    CELL_EDGES,
    CELLS,
    EDGES_INTO,
    INPUTS_PER_NODE,
    NODES,
    NUM_CELL_EDGES,
    OPERATIONS,
    OPERATIONS_OF,
    value_of,
)

_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
_FORM = "Genotype(normal=[(op, from), ...], normal_concat=[...], reduce=[...], reduce_concat=[...])"


def read_genotype(text: str, *, may_read_twice: bool) -> np.ndarray:
    """Reads a genotype's text.

    Args:
      text: the cells. A pair with none means no edge.
      may_read_twice: whether a node may read one node by two operations.

    Returns:
      The genotype, int32 `[E]`, of the values in `edges`.

    Raises:
      InputError: the text does not have this form, names an unknown operation, has another number
        of edges, or a node reads itself, a later node or, unless allowed, one node twice.
    """
    fields = _read_call(text)
    rows = []
    for cell in CELLS:
        concat = fields[f"{cell}_concat"]
        if not isinstance(concat, list | tuple | range) or tuple(concat[:5]) != NODES:
            found = reprlib.repr(concat)
            raise InputError(f"{cell}_concat: found {found}, expected {list(NODES)}")
        rows.append(_read_cell(cell, fields[cell], may_read_twice))
    return np.concatenate(rows)


def write_genotype(row: np.ndarray) -> str:
    """Writes a genotype, int32 `[E]` in range, with the inputs of a node ordered by source.

    Missing inputs of a node are written as none, from the first sources that it does not read.
    """
    parts = []
    for cell, values in zip(CELLS, row.reshape(2, NUM_CELL_EDGES), strict=True):
        pairs = []
        for node in NODES:
            ops = OPERATIONS_OF[values[EDGES_INTO[node]]]
            inputs = [(source, op) for source in range(node) for op in ops[source] if op]
            unread = [(source, 0) for source in range(node) if not ops[source].any()]
            inputs += unread[: INPUTS_PER_NODE - len(inputs)]
            pairs += [(OPERATIONS[op], source) for source, op in sorted(inputs)]
        parts.append(f"{cell}={pairs}, {cell}_concat={list(NODES)}")
    return f"Genotype({', '.join(parts)})"


def _read_call(text: str) -> dict[str, object]:
    """The arguments of ``Genotype(...)`` by name."""
    if not isinstance(text, str):
        raise InputError(f"genotype: found {type(text).__name__}, expected the form {_FORM}")
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != "Genotype" or call.args:
            raise ValueError
        fields = [(str(item.arg), _read_value(item.value)) for item in call.keywords]
        # Messages quote them, and Python refuses to write a number of thousands of digits.
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


def _read_cell(cell: str, pairs: object, may_read_twice: bool) -> np.ndarray:
    """The values of a cell's 14 edges from its (operation, source) pairs."""
    expected = INPUTS_PER_NODE * len(NODES)
    if not isinstance(pairs, list | tuple) or len(pairs) != expected:
        found = len(pairs) if isinstance(pairs, list | tuple) else type(pairs).__name__
        raise InputError(f"{cell}: found {found} edges, expected {expected}, two per node")
    values = np.zeros(NUM_CELL_EDGES, np.int32)
    seen = set()
    for number, pair in enumerate(pairs):
        node = NODES[number // INPUTS_PER_NODE]
        where = f"{cell}, node {node}"
        match pair:
            case (str(name), int(source)) if not isinstance(source, bool):
                pass
            case _:
                raise InputError(f"{where}: found {reprlib.repr(pair)}, expected (operation, from)")
        if name not in OPERATIONS:
            found, known = reprlib.repr(name), ", ".join(OPERATIONS)
            raise InputError(f"{where}: unknown operation {found}, expected {known}")
        if not 0 <= source < node:
            raise InputError(
                f"{where}: reads node {source}, expected an earlier one, 0..{node - 1}"
            )
        if (source, node) in seen and not may_read_twice:
            raise InputError(f"{where}: reads node {source} twice, expected two nodes")
        seen.add((source, node))
        edge = CELL_EDGES.index((source, node))
        values[edge] = value_of(values[edge], OPERATIONS.index(name))
    return values
