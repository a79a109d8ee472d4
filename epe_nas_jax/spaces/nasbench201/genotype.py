"""The NAS-Bench-201 search space: cells as arch strings, genotypes and codes.

A cell has 4 nodes and 6 edges; each edge carries one of 5 operations (Dong & Yang 2020, section 2).
The three names of a cell:

* arch string: ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``, as NAS-Bench-201 writes it;
* genotype: ``int32[6]``, the operation's index in `OPERATIONS` for every edge in `EDGES` order;
* code: an integer in 0..15624, the genotype read as a number in base 5, first edge first.

NAS-Bench-201's own index is a random order that only its tables contain, and NASLib orders
operations and edges differently; neither is a code.

Without operations on no path from input to output, the 15,625 cells have 9,445 live forms. One of
these has no operations: the form of the 341 cells without a path, which have no score.

E is 6 here.
"""

import re
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.arrays import as_array
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces import four_nodes
from epe_nas_jax.spaces.base import Cells
from epe_nas_jax.spaces.product import Product

OPERATIONS = four_nodes.OPERATIONS
"""The names of the operations 0 to 4, as arch strings have them."""
KERNEL_SIZES = four_nodes.KERNEL_SIZES
EDGES = four_nodes.EDGES
NUM_NODES = four_nodes.NUM_NODES
NUM_OPERATIONS = len(OPERATIONS)
NUM_EDGES = len(EDGES)
"""E, the length of a genotype."""
PRODUCT = Product(NUM_EDGES, NUM_OPERATIONS)
NUM_CELLS = PRODUCT.size

check_genotypes = PRODUCT.check
every_genotype = PRODUCT.every
mutate = PRODUCT.mutate
prune_dead = four_nodes.prune_dead
has_path = four_nodes.has_path
relative_work = four_nodes.relative_work

_TEMPLATE = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
_PATTERN = re.compile(re.escape(_TEMPLATE).replace(r"\{\}", "([^|~+]*)"))
_INPUT, _ZERO = "0", "#"
_FORM = _TEMPLATE.format(*["op"] * NUM_EDGES)


def parse_arch(arch: str) -> np.ndarray:
    """Reads an arch string.

    Args:
      arch: a cell as NAS-Bench-201 writes it.

    Returns:
      Its genotype, int32 `[E]`.

    Raises:
      InputError: the string does not have this form, or names an unknown operation.

    Examples:
      >>> arch = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"
      >>> epe_nas_jax.parse_arch(arch).tolist()
      [3, 0, 0, 0, 1, 0]
    """
    if not isinstance(arch, str):
        raise InputError(f"arch string: found {type(arch).__name__}, expected a str like {_FORM}")
    match = _PATTERN.fullmatch(arch)
    if not match:
        raise InputError(f"arch string {arch!r}: expected the form {_FORM}")
    names = match.groups()
    for name in names:
        if name not in OPERATIONS:
            known = ", ".join(OPERATIONS)
            raise InputError(f"arch string {arch!r}: unknown operation {name!r}, expected {known}")
    return np.array([OPERATIONS.index(name) for name in names], np.int32)


def format_arch(genotype: Iterable[int] | np.ndarray | jax.Array) -> str:
    """Writes a genotype, int `[E]`, as its arch string.

    Raises:
      InputError: the genotype is not 6 operation indices.

    Examples:
      >>> epe_nas_jax.format_arch([3, 0, 0, 0, 1, 0])
      '|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|'
    """
    row = check_genotypes(np.asarray(as_array(genotype, "genotype"))[None])[0]
    return _TEMPLATE.format(*[OPERATIONS[op] for op in row])


def encode(genotypes: Cells) -> jax.Array:
    """The codes, int32 `[...]`, of genotypes, int `[..., E]`, on the host.

    Examples:
      >>> from epe_nas_jax.spaces.nasbench201.genotype import encode
      >>> int(encode([0, 0, 0, 0, 1, 2]))
      7
    """
    return jnp.asarray(PRODUCT.encode(genotypes))


def decode(codes: Cells) -> jax.Array:
    """The genotypes, int32 `[..., E]`, of codes, int `[...]`, on the host.

    Examples:
      >>> from epe_nas_jax.spaces.nasbench201.genotype import decode
      >>> decode([7, 15624]).tolist()
      [[0, 0, 0, 0, 1, 2], [4, 4, 4, 4, 4, 4]]
    """
    return jnp.asarray(PRODUCT.decode(codes))


def sample(key: jax.Array, num_cells: int, *, replace: bool = False) -> jax.Array:
    """Draws cells uniformly from the whole space, as `Product.sample`: int32 `[A, E]`.

    Examples:
      >>> from epe_nas_jax.spaces.nasbench201.genotype import sample
      >>> sample(jax.random.key(0), 10).shape
      (10, 6)
    """
    return jnp.asarray(PRODUCT.sample(key, num_cells, replace=replace))


def neighbours(genotype: np.ndarray) -> np.ndarray:
    """The 24 cells that differ from a genotype, int `[E]`, on one edge: int32 `[24, E]`.

    They are ordered by edge, then by the index of the other operation.

    Examples:
      >>> from epe_nas_jax.spaces.nasbench201.genotype import neighbours
      >>> near = neighbours(np.array([3, 3, 3, 3, 3, 3]))
      >>> len(near), near[0].tolist()
      (24, [0, 3, 3, 3, 3, 3])
    """
    by_edge = PRODUCT.neighbours(genotype).reshape(NUM_EDGES, -1, NUM_EDGES)
    return np.sort(by_edge, axis=1).reshape(-1, NUM_EDGES)


def canonical_form(genotype: Iterable[int] | np.ndarray) -> str:
    """Writes a cell, int `[E]`, as a formula that isomorphic cells share.

    Two cells of one form compute the same function, given the same weights in the same places: they
    differ in the order of their nodes, in operations on zeros, or in the place of a skip. The forms
    are exactly the 6,466 texts of NAS-Bench-201 (Dong & Yang 2020, `Structure.to_unique_str`): it
    neither sorts the terms of a sum within a sum nor replaces a sum of zeros by zero, so that cells
    of different forms can still compute the same function.

    Examples:
      >>> from epe_nas_jax.spaces.nasbench201.genotype import canonical_form
      >>> canonical_form([3, 0, 1, 0, 0, 3])
      '#+#+(#+(0)@nor_conv_3x3)@nor_conv_3x3'
      >>> canonical_form([3, 0, 1, 0, 0, 3]) == canonical_form([0, 3, 0, 0, 0, 3])
      True
    """
    ops = [int(op) for op in genotype]
    nodes = [_INPUT]
    for node in range(1, NUM_NODES):
        terms = [
            _term(ops[edge], nodes[source])
            for edge, (source, target) in enumerate(EDGES)
            if target == node
        ]
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


def _term(op: int, node: str) -> str:
    """The formula of an edge with an operation, from its source's formula."""
    if OPERATIONS[op] == "none" or node == _ZERO:
        return _ZERO
    return node if OPERATIONS[op] == "skip_connect" else f"({node})@{OPERATIONS[op]}"
