"""The table of columns: to add one is its function and an entry here (docs/extending.md).

A column is a number for every cell of a run: `scores.csv` has them, a search may be limited by
some, and an objective is made of some. Every proxy is a column; the others are below.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.proxies.table import PROXIES
from epe_nas_jax.search.ranking import COMBINATIONS, Combine
from epe_nas_jax.spaces import paths
from epe_nas_jax.spaces.base import CellGraph, CellNetwork, Cost

# The recommended ranking (docs/ranking.md).
BEST_RANKING = ("jacob_cov", "nwot", "grad_entropy", "grad_decay", "live_params")
# The one that ranks most search spaces well (docs/spaces-ranked.md).
COMMON_RANKING = ("nwot", "grad_decay", "few_pools", "little_pooling", "wide_convs")

# From genotypes `[A, E]` to the milliseconds of their networks' forward pass, `[A]`.
Latency = Callable[[np.ndarray], np.ndarray]


class RunCells:
    """Cells, and the network that a run builds around them: what columns are computed from.

    What several columns share is computed once, when one of them is asked for.
    """

    def __init__(
        self,
        genotypes: np.ndarray,
        network: CellNetwork,
        side: int,
        image_channels: int = 3,
        *,
        latency: Latency | None = None,
    ):
        """Holds genotypes `[A, E]`, the network, and the side H and channels of the images.

        With `latency`, which says how long they take, the cells have measured columns too.
        """
        self.genotypes = genotypes
        self._network = network
        self._side = side
        self._image_channels = image_channels
        self._latency = latency

    @property
    def columns(self) -> "dict[str, Column]":
        """The columns that these cells have, of `COLUMNS`."""
        is_measured = self._latency is not None
        return {
            name: column
            for name, column in COLUMNS.items()
            if is_measured or not column.is_measured
        }

    @functools.cached_property
    def latency_ms(self) -> np.ndarray:
        """How long their networks take, `[A]`; NaN where that is not known."""
        assert self._latency is not None
        return self._latency(self.genotypes)

    @functools.cached_property
    def built(self) -> Cost:
        """What the cells cost as built."""
        return self._cost(live=False)

    @functools.cached_property
    def live(self) -> Cost:
        """What they cost without operations that change no score."""
        return self._cost(live=True)

    def on_paths(self, counts: paths.Counts, reduce: Callable[[Counter[int]], float]) -> np.ndarray:
        """What lies on the paths from input to output, `[A]`.

        Args:
          counts: how much an edge counts.
          reduce: from the paths through a cell to a number; of several cells they are added up.
        """
        return self._of_graphs(lambda graph: reduce(paths.count_on_paths(graph, counts)))

    def on_edges(self, counts: paths.Counts) -> np.ndarray:
        """What lies on all paths together, `[A]`, an edge counting once."""
        return self._of_graphs(lambda graph: paths.count_on_edges(graph, counts))

    def _of_graphs(self, number: Callable[[CellGraph], float]) -> np.ndarray:
        """A number of each cell's graph, `[A]`; those of several cells with a path are added up."""
        graphs, cell = self._graphs
        return np.array([_sum_of_known(map(number, of_cell)) for of_cell in graphs])[cell]

    @functools.cached_property
    def _graphs(self) -> tuple[list[tuple[CellGraph, ...]], np.ndarray]:
        """The graphs of all different cells, and which of these each cell is."""
        space = self._network.space
        networks = space.prune_dead(np.asarray(self.genotypes))
        different, cell = np.unique(networks, axis=0, return_inverse=True)
        return [space.graphs(genotype) for genotype in different], cell

    def _cost(self, *, live: bool) -> Cost:
        return self._network.cost(
            self.genotypes, side=self._side, image_channels=self._image_channels, live=live
        )


def _sum_of_known(numbers: Iterable[float]) -> float:
    known = [number for number in numbers if not math.isnan(number)]
    return float(sum(known)) if known else math.nan


class Column(NamedTuple):
    """One column that is no proxy.

    Attributes:
      name: its name in `scores.csv`.
      values: from cells to a number each, `[A]`.
      meaning: of the numbers, with their unit.
      is_limit: whether `search.max_NAME` may limit it: what the cell costs, not what it is worth.
      is_measured: whether it does not follow from the genotype. It is there only where a run has it
        measured or reads it from a table, and is no part of an objective.
    """

    name: str
    values: Callable[[RunCells], np.ndarray]
    meaning: str
    is_limit: bool = False
    is_measured: bool = False


COLUMNS = {
    column.name: column
    for column in (
        Column("params", lambda cells: cells.built.params, "parameters", is_limit=True),
        Column(
            "mflops",
            lambda cells: cells.built.flops / 1e6,
            "millions of FLOPs of one image's forward pass",
            is_limit=True,
        ),
        Column(
            "live_params",
            lambda cells: cells.live.params,
            "parameters of operations on a path from input to output",
        ),
        Column(
            "live_mflops",
            lambda cells: cells.live.flops / 1e6,
            "millions of FLOPs of operations on a path from input to output",
        ),
        Column(
            "few_pools",
            lambda cells: 0 - cells.on_paths(paths.is_pool, paths.fewest),
            "minus the fewest pools on a path from input to output",
        ),
        Column(
            "little_pooling",
            lambda cells: 0 - cells.on_paths(paths.is_pool, paths.mean),
            "minus the mean number of pools on a path from input to output",
        ),
        Column(
            "wide_convs",
            lambda cells: cells.on_paths(paths.is_wide_conv, paths.most),
            "the most convolutions wider than one pixel on a path from input to output",
        ),
        Column(
            "all_wide_convs",
            lambda cells: cells.on_edges(paths.is_wide_conv),
            "convolutions wider than one pixel on any path from input to output",
        ),
        Column(
            "mean_convs",
            lambda cells: cells.on_paths(paths.is_conv, paths.mean),
            "the mean number of convolutions on a path from input to output",
        ),
        Column(
            "latency_ms",
            lambda cells: cells.latency_ms,
            "milliseconds of a forward pass",
            is_limit=True,
            is_measured=True,
        ),
    )
}
LIMITS = tuple(name for name, column in COLUMNS.items() if column.is_limit)
MEASURED = tuple(name for name, column in COLUMNS.items() if column.is_measured)


class Objective(NamedTuple):
    """What a search maximises.

    Attributes:
      columns: names of proxies and of `COLUMNS`, none of `MEASURED`.
      combine: from their values `[A, P]` to scores `[A]`, by ranks; None for a single column.
    """

    columns: tuple[str, ...]
    combine: Combine | None

    @property
    def proxies(self) -> tuple[str, ...]:
        """Those of its columns that are proxies."""
        return tuple(name for name in self.columns if name in PROXIES)

    def values(self, proxies: Mapping[str, np.ndarray], cells: RunCells) -> np.ndarray:
        """What the score is made of: `[A]` of a single column, else `[A, P]`.

        An infinite proxy, such as `nwot` of a cell without a path, is none: NaN.
        """
        found = [
            np.where(np.isinf(proxies[name]), np.nan, proxies[name])
            if name in PROXIES
            else COLUMNS[name].values(cells)
            for name in self.columns
        ]
        return np.stack(found, axis=1) if self.combine else found[0]


def objective_of(columns: tuple[str, ...], combine: str) -> Objective:
    """The objective of some columns.

    Args:
      columns: names of proxies and of `COLUMNS`, none of `MEASURED`, at least one of them a proxy.
      combine: a name of `ranking.COMBINATIONS`, by which several columns are one score.

    Raises:
      InputError: an unknown column or combination, one column twice, or no proxy among them.
    """
    if combine not in COMBINATIONS:
        expected = ", ".join(COMBINATIONS)
        raise InputError(f"score.combine: found {combine!r}, expected one of {expected}")
    known = [name for name in (*PROXIES, *COLUMNS) if name not in MEASURED]
    for name in columns:
        if name not in known:
            expected = ", ".join(known)
            raise InputError(f"score.objective: found {name!r}, expected one of {expected}")
        if columns.count(name) > 1:
            raise InputError(f"score.objective: found {name!r} twice, expected each once")
    objective = Objective(columns, COMBINATIONS[combine] if len(columns) > 1 else None)
    if not objective.proxies:
        found = ", ".join(columns) or "nothing"
        raise InputError(f"score.objective: found {found}, expected a proxy among them")
    return objective


def proxies_to_score(objective: Objective, further: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The proxies of an objective, then further ones, each once."""
    return tuple(dict.fromkeys((*objective.proxies, *further)))
