"""The interfaces of a search space and of the network around its cells.

A space is a folder beside this file: `SearchSpace` lists what it must provide, `CellNetwork` what
its network must. `spaces.table` lists all spaces.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.arrays import as_array, is_integer
from epe_nas_jax.errors import InputError

Cells = np.ndarray | jax.Array
# A genotype from which to build a network: ints are static, a JAX array may be traced.
Genotype = Sequence[int] | np.ndarray | jax.Array
# For each entry of a genotype and each of its values: how many of a step's cells may have it.
Capacities = tuple[tuple[int, ...], ...]


class EdgeGroups(NamedTuple):
    """The groups of fixed size in which the cells of a step run the operations of an edge.

    Attributes:
      capacities: how many of the cells may have each operation.
      kept_dtype: dtype in which the outputs of convolutions are kept for the backward pass; None:
        their own.
    """

    capacities: tuple[int, ...]
    kept_dtype: str | None = None


_MOST_SAMPLES = 10_000_000


class GraphNode(NamedTuple):
    """A node of a cell's drawing.

    Attributes:
      name: the text in it.
      x: distance of its centre from the left, in units of the drawing.
      y: distance of its centre from the top, in units of the drawing.
    """

    name: str
    x: float
    y: float


class GraphEdge(NamedTuple):
    """An edge of a cell, as drawings show it and columns count it.

    Attributes:
      source: index of the node it leaves.
      target: index of the node it enters, larger than that of its source.
      operation: name of its operation; empty for an edge that only joins nodes. The name of a
        convolution of single pixels ends in `1x1`.
      kind: `"skip"`, `"conv"` or `"pool"`, which decides how it is drawn and counted.
      is_live: whether it lies on a path from input to output.
      bend: the point towards which it bends; None: it is straight.
      via: points through which it runs, the last of which has its label; then it has no bend.
    """

    source: int
    target: int
    operation: str
    kind: str
    is_live: bool = True
    bend: tuple[float, float] | None = None
    via: tuple[tuple[float, float], ...] = ()


class CellGraph(NamedTuple):
    """The graph of a cell, for drawings and for columns that count its edges (`spaces.paths`).

    Attributes:
      title: name of the cell, where a genotype has several; empty where it has one.
      width: width of the drawing.
      height: height of the drawing.
      nodes: its nodes.
      edges: its edges.

    Examples:
      >>> (graph,) = network.space.graphs(np.array([3, 0, 0, 1, 0, 0]))
      >>> [(edge.operation, bool(edge.is_live)) for edge in graph.edges]
      [('nor_conv_3x3', False), ('skip_connect', True)]
    """

    title: str
    width: float
    height: float
    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """A search space: its cells, their names, and how to move between them.

    A genotype is a row of E small integers. The row of zeros must be a valid genotype: it fills the
    slots that no cell needs.

    Attributes:
      name: name of the space, as in the config key `space.name`.
      num_edges: E, the length of a genotype.
      parse: from the text of a cell to its genotype, int32 `[E]`; raises `InputError`.
      format: from a genotype, int `[E]`, to its text; raises `InputError`.
      check: from genotypes `[A, E]` to these genotypes as int32; raises `InputError`.
      identity: from genotypes, int `[A, E]`, to their exact identities, int32 `[A, W]`: W numbers
        that are not negative and differ for different cells.
      sample: from a key and a number A to A cells, `[A, E]`, drawn uniformly, all different.
      sample_with_replacement: like `sample`, but a cell may be drawn twice.
      mutate: from a key and cells `[A, E]` to as many cells, each with one change.
      neighbours: from a genotype `[E]` to all cells that differ from it by one change, `[A, E]`.
      every: lists all cells, `[A, E]`; None if there are too many.
      prune_dead: from cells `[A, E]` to these cells without operations that change no score.
      has_path: whether cells `[A, E]` lead from input to output, bool `[A]`; others have no score.
      relative_work: how long cells `[A, E]` take to score, in any unit, `[A]`.
      graphs: from a genotype `[E]` to its graphs, one per cell; edges on a path are live.
      canonical_form: from a genotype `[E]` to a text that isomorphic cells share; None: unknown.
      table_columns: in tables without a column `arch`, the columns whose entries, joined by colons,
        are a cell's text.

    Examples:
      >>> from epe_nas_jax.spaces.table import SPACES
      >>> space = SPACES["nasbench201"].space
      >>> len(space.every())
      15625
      >>> space.format([3, 0, 0, 0, 0, 1])
      '|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|'
      >>> space.has_path(np.array([[3, 0, 0, 0, 0, 1], [3, 0, 3, 0, 0, 1]]))
      array([False,  True])
    """

    name: str
    num_edges: int
    parse: Callable[[str], np.ndarray]
    format: Callable[[Cells], str]
    check: Callable[[Cells], np.ndarray]
    identity: Callable[[np.ndarray], np.ndarray]
    sample: Callable[[jax.Array, int], Cells]
    sample_with_replacement: Callable[[jax.Array, int], Cells]
    mutate: Callable[[jax.Array, Cells], Cells]
    neighbours: Callable[[np.ndarray], np.ndarray]
    every: Callable[[], np.ndarray] | None
    prune_dead: Callable[[np.ndarray], np.ndarray]
    has_path: Callable[[np.ndarray], np.ndarray]
    relative_work: Callable[[np.ndarray], np.ndarray]
    graphs: Callable[[np.ndarray], tuple[CellGraph, ...]]
    canonical_form: Callable[[Iterable[int]], str] | None
    table_columns: tuple[str, ...] = ("arch",)


class Cost(NamedTuple):
    """The size of the networks of cells.

    Attributes:
      params: number of trainable parameters, int64 `[A]`.
      flops: FLOPs of one image's forward pass, int64 `[A]`.

    Examples:
      >>> cost = network.cost(np.array([[3, 0, 3, 0, 0, 3]]), side=32)
      >>> cost.params.tolist(), cost.flops.tolist()
      ([14015], [2001216])
    """

    params: np.ndarray
    flops: np.ndarray


class CellNetwork(Protocol):
    """The network around a cell: a Flax module that is called with images and a genotype.

    It is hashable, and equal to another network if both compute the same.

    Examples:
      >>> network.space.name, network.num_classes
      ('nasbench201', 3)
      >>> network.cost(np.array([[3, 3, 3, 3, 3, 3], [1, 1, 1, 1, 1, 1]]), side=8).params
      array([23255,  4775])
    """

    num_classes: int
    param_dtype: jnp.dtype

    @property
    def space(self) -> SearchSpace:
        """The search space of its cells."""

    @property
    def init(self) -> Callable[..., Any]:
        """Draws the weights: `(key, images, genotype) -> variables`."""

    @property
    def apply(self) -> Callable[..., Any]:
        """Runs the network: `(variables, images, genotype) -> logits [N, K]`.

        The genotype may be traced. Where `group_work` is not None, it takes two keywords for cells
        under a `jax.vmap`: `groups`, the `EdgeGroups` of each edge, and `activation_dtype`, the
        name of the dtype of the layers' outputs (None: that of the images).
        """

    @property
    def group_work(self) -> tuple[int, ...] | None:
        """For each operation, how long it takes per cell of its group on one edge.

        The unit is the time of a cell without operations. 0 for an operation that needs no group,
        such as operation 0, of which empty slots consist. None if `apply` takes no `groups`: then
        GPUs and TPUs run the operations of different cells by loops.
        """

    def activation_count(self, batch_shape: tuple[int, ...]) -> float:
        """How many numbers are kept for the backward pass of a score, for images `[N, H, W, 3]`."""

    def cost(
        self, genotypes: np.ndarray, *, side: int, image_channels: int = 3, live: bool = False
    ) -> Cost:
        """Counts the parameters and FLOPs of the networks of cells `[A, E]`.

        Args:
          genotypes: the cells.
          side: H of the images.
          image_channels: channels of the images.
          live: leave out operations that change no score, as `SearchSpace.prune_dead` does.
        """


def check_rows(genotypes: Cells, num_edges: int, num_operations: int) -> np.ndarray:
    """Checks that genotypes are rows of E indices of operations.

    Args:
      genotypes: integers `[A, E]` on the host.
      num_edges: E.
      num_operations: how many operations there are.

    Returns:
      The genotypes as int32 `[A, E]`.

    Raises:
      InputError: wrong rank, shape or dtype, or an operation index out of range.

    Examples:
      >>> from epe_nas_jax.spaces.base import check_rows
      >>> check_rows([[0, 1, 2], [2, 0, 0]], num_edges=3, num_operations=3).shape
      (2, 3)
      >>> check_rows([[0, 1, 3]], num_edges=3, num_operations=3)
      Traceback (most recent call last):
      ...
      epe_nas_jax.errors.InputError: genotype 0, edge 2: found operation index 3, expected 0..2
    """
    rows = np.asarray(as_array(genotypes, "genotypes"))
    if rows.ndim != 2 or rows.shape[1] != num_edges:
        raise InputError(f"genotypes: found shape {rows.shape}, expected [cells, {num_edges}]")
    if not is_integer(rows):
        raise InputError(f"genotypes: found dtype {rows.dtype}, expected integers")
    wrong = np.argwhere((rows < 0) | (rows >= num_operations))
    if wrong.size:
        cell, edge = wrong[0]
        raise InputError(
            f"genotype {cell}, edge {edge}: found operation index {rows[cell, edge]}, "
            f"expected 0..{num_operations - 1}"
        )
    return rows.astype(np.int32)


def genotypes_of(cells: Any, space: SearchSpace) -> np.ndarray:
    """Converts cells, given as genotypes or as texts, to genotypes.

    Args:
      cells: integers `[A, E]` of any library, or A texts that the space can parse; a single text
        means one cell.
      space: the cells' search space.

    Returns:
      Genotypes, int32 `[A, E]`.

    Raises:
      InputError: a text or a row is not a cell of the space.

    Examples:
      >>> from epe_nas_jax.spaces.base import genotypes_of
      >>> arch = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"
      >>> genotypes_of([arch], network.space).tolist()
      [[3, 0, 0, 0, 1, 0]]
      >>> genotypes_of([[3, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]], network.space).shape
      (2, 6)
    """
    if isinstance(cells, str):
        cells = [cells]
    if isinstance(cells, Sized) and isinstance(cells, Iterable) and getattr(cells, "ndim", 1) == 1:
        if not len(cells):
            return np.zeros((0, space.num_edges), np.int32)
        if isinstance(next(iter(cells)), str):
            return np.stack([space.parse(text) for text in cells])
    return space.check(cells)


def check_num_samples(space: SearchSpace, num_cells: int, *, replace: bool) -> None:
    """Checks that a number of cells can be drawn from a space.

    Raises:
      InputError: fewer than one cell, more than 10 millions, or more distinct cells than the space
        has.
    """
    if not 1 <= num_cells <= _MOST_SAMPLES:
        raise InputError(f"number of samples: found {num_cells}, expected 1..{_MOST_SAMPLES}")
    if replace or space.every is None:
        return
    size = len(space.every())
    if num_cells > size:
        raise InputError(
            f"number of samples: found {num_cells}, expected at most {size} "
            "different cells (or sample with replacement)"
        )
