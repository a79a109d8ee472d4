"""What the rest of the package knows of a search space and of the network around its cells.

A space is a folder beside this file: `SearchSpace` says what it must give, `CellNetwork` what its
network must. `spaces.table` lists them.
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
# A genotype to build a network from: ints are static, an array may be traced.
Genotype = Sequence[int] | np.ndarray | jax.Array
# For each entry of a genotype and each value of it: how many of a step's cells may have it.
Capacities = tuple[tuple[int, ...], ...]


class EdgeGroups(NamedTuple):
    """How the cells of a step run the operations of an edge: each once, in a group of fixed size.

    Attributes:
      capacities: how many of the cells may have each operation.
      kept_dtype: as what the outputs of convolutions wait for the backward pass; None: as they are.
    """

    capacities: tuple[int, ...]
    kept_dtype: str | None = None


_MOST_SAMPLES = 10_000_000


class GraphNode(NamedTuple):
    """A node of a cell as it is drawn.

    Attributes:
      name: what stands in it.
      x: how far its centre is from the left, in units of the drawing.
      y: how far its centre is from the top, in these units.
    """

    name: str
    x: float
    y: float


class GraphEdge(NamedTuple):
    """An edge of a cell, as it is drawn and as columns count it.

    Attributes:
      source: index of the node it leaves.
      target: index of the node it enters, above that of its source.
      operation: name of its operation; empty for an edge that has none and only joins nodes. The
        name of a convolution of single pixels ends in `1x1`.
      kind: `"skip"`, `"conv"` or `"pool"`, which says how it looks and what it counts as.
      is_live: whether it lies on a path from input to output.
      bend: the point towards which it is bent; None: it is straight.
      via: points that it runs down through, the last of which has its label; it has no bend then.
    """

    source: int
    target: int
    operation: str
    kind: str
    is_live: bool = True
    bend: tuple[float, float] | None = None
    via: tuple[tuple[float, float], ...] = ()


class CellGraph(NamedTuple):
    """A cell as it is drawn, and as columns count what lies on its paths (`spaces.paths`).

    Attributes:
      title: what cell it is, where a genotype has several; empty where it has one.
      width: of the drawing.
      height: of the drawing.
      nodes: its nodes.
      edges: its edges.
    """

    title: str
    width: float
    height: float
    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """A search space: the cells there are, their names, and how to move between them.

    A genotype is a row of E small integers. The row of zeros is a genotype like any other: it fills
    the slots that no cell needs.

    Attributes:
      name: of the space, as the config key `space.name` has it.
      num_edges: E, the length of a genotype.
      parse: from the text of a cell to its genotype, int32 `[E]`; raises `InputError`.
      format: from a genotype, int `[E]`, to its text; raises `InputError`.
      check: from genotypes `[A, E]` to these genotypes as int32; raises `InputError`.
      identity: an exact name, as words: from int `[A, E]` to int32 `[A, W]`, not negative; two
        cells that differ have words that differ.
      sample: from a key and a number A to A cells, `[A, E]`, drawn uniformly, all different.
      sample_with_replacement: like `sample`, but a cell may be drawn twice.
      mutate: from a key and cells `[A, E]` to as many, each changed in one place.
      neighbours: from a genotype `[E]` to all cells that one change makes of it, `[A, E]`.
      every: lists all cells, `[A, E]`; None if there are too many.
      prune_dead: from cells `[A, E]` to these cells without operations that change no score.
      has_path: which of `[A, E]` lead from input to output: bool `[A]`. Others have no score.
      relative_work: how long each of `[A, E]` takes to score, in any unit: `[A]`.
      graphs: what a genotype `[E]` looks like, a graph a cell; the live edges are those on a path.
      canonical_form: one text for cells `[E]` that are isomorphic; None if that is not known.
      table_columns: where a table has no column `arch`, those that name its cells: their entries,
        with colons between them, are a cell's text.
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
    """What the networks of cells cost.

    Attributes:
      params: trainable parameters, int64 `[A]`.
      flops: of one image's forward pass, int64 `[A]`.
    """

    params: np.ndarray
    flops: np.ndarray


class CellNetwork(Protocol):
    """The network around a cell: a Flax module that is called with images and a genotype.

    It is hashable, and equal to another one if it computes the same.
    """

    num_classes: int
    param_dtype: jnp.dtype

    @property
    def space(self) -> SearchSpace:
        """The search space of its cells."""

    @property
    def init(self) -> Callable[..., Any]:
        """`(key, images, genotype) -> variables`."""

    @property
    def apply(self) -> Callable[..., Any]:
        """`(variables, images, genotype) -> logits [N, K]`; the genotype may be traced.

        Where `group_work` says so it takes two keywords for the cells under a `jax.vmap`: `groups`,
        the `EdgeGroups` of each edge, and `activation_dtype`, the name of the dtype of what layers
        put out (None: that of the images).
        """

    @property
    def group_work(self) -> tuple[int, ...] | None:
        """For each operation how long a group of cells that have it on an edge takes.

        The unit is what a cell takes without operations. 0 for an operation that needs no group, as
        operation 0, of which empty slots are made. None if `apply` takes no `groups`, and GPUs and
        TPUs run the operations of different cells by loops.
        """

    def activation_count(self, batch_shape: tuple[int, ...]) -> float:
        """How many numbers a score keeps for the backward pass, for images `[N, H, W, 3]`."""

    def cost(
        self, genotypes: np.ndarray, *, side: int, image_channels: int = 3, live: bool = False
    ) -> Cost:
        """What the networks of cells `[A, E]` cost.

        Args:
          genotypes: the cells.
          side: H of the images.
          image_channels: of the images.
          live: leave out operations that change no score, as `SearchSpace.prune_dead` does.
        """


def check_rows(genotypes: Cells, num_edges: int, num_operations: int) -> np.ndarray:
    """Checks that genotypes are rows of so many indices of so many operations.

    Args:
      genotypes: integers `[A, E]` on the host.
      num_edges: E.
      num_operations: how many operations there are.

    Returns:
      The genotypes as int32 `[A, E]`.

    Raises:
      InputError: wrong rank, shape or dtype, or an operation index out of range.
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
    """Cells that a user gives, as genotypes or as texts, in one form.

    Args:
      cells: integers `[A, E]` of any library, or A texts that the space can parse; one text is one
        cell.
      space: their search space.

    Returns:
      Genotypes, int32 `[A, E]`.

    Raises:
      InputError: a text or a row is no cell of the space.
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
    """Checks that so many cells can be drawn from a space.

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
