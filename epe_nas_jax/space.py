"""What scoring needs of a search space and of the network around its cells.

`genotype` with `network.Network`, and `darts` with `darts_network.DartsNetwork`, fit as they are.

Shape legend: A cells, E edges, N images, H height and width.
"""

from typing import Any, Protocol

import jax.numpy as jnp

from epe_nas_jax.score import CellNetwork


class SearchSpace(Protocol):
    """A module or object that knows the genotypes of a space.

    The genotype of zeros is a cell like any other; it fills places that no cell needs.
    """

    @property
    def NUM_EDGES(self) -> int:  # noqa: N802
        """E, the length of a genotype."""

    @property
    def check_genotypes(self) -> Any:
        """`(genotypes) -> int32 [A, E]`, or raises `InputError`."""

    @property
    def encode(self) -> Any:
        """`(genotypes [A, E]) -> int [A]`, not negative, to tell random keys apart."""

    @property
    def live_form(self) -> Any:
        """`(genotypes [A, E]) -> [A, E]` without operations that change no score."""

    @property
    def relative_work(self) -> Any:
        """`(genotypes [A, E]) -> [A]`: how long each takes to score, in any unit."""


class SpaceNetwork(CellNetwork, Protocol):
    """What `batching.score_cells` needs of a network; hashable, equal if it computes the same."""

    param_dtype: jnp.dtype

    @property
    def space(self) -> Any:
        """The `SearchSpace` of its cells."""

    @property
    def kept_values(self) -> Any:
        """`(batch_shape [N, H, H, 3]) -> number` of values a score keeps for the backward pass."""
