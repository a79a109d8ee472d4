"""The table of columns: a new one is a function and an entry here (docs/extending.md).

A column has a number for every cell of a run: `scores.csv` holds the columns, some may limit a
search, and an objective combines some. Every proxy is a column; the others are below.
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

BEST_RANKING = ("jacob_cov", "nwot", "grad_entropy", "grad_decay", "live_params")
"""The columns of the recommended ranking of NAS-Bench-201 (docs/ranking.md)."""
COMMON_RANKING = ("nwot", "grad_decay", "few_pools", "little_pooling", "wide_convs")
"""The columns of the ranking that is good in most search spaces (docs/spaces-ranked.md)."""

# From genotypes `[A, E]` to the time of their networks' forward pass in milliseconds, `[A]`.
Latency = Callable[[np.ndarray], np.ndarray]


class RunCells:
    """Cells and the network around them, from which columns are computed.

    What several columns share is computed once, when it is first needed.
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

        With a function `latency`, which gives the networks' times, the cells have measured columns
        too.
        """
        self.genotypes = genotypes
        self._network = network
        self._side = side
        self._image_channels = image_channels
        self._latency = latency

    @property
    def columns(self) -> "dict[str, Column]":
        """Those of `COLUMNS` that these cells have."""
        is_measured = self._latency is not None
        return {
            name: column
            for name, column in COLUMNS.items()
            if is_measured or not column.is_measured
        }

    @functools.cached_property
    def latency_ms(self) -> np.ndarray:
        """The time of the networks' forward pass in milliseconds, `[A]`; NaN where unknown."""
        assert self._latency is not None
        return self._latency(self.genotypes)

    @functools.cached_property
    def built(self) -> Cost:
        """Parameters and FLOPs of the networks as built."""
        return self._cost(live=False)

    @functools.cached_property
    def live(self) -> Cost:
        """Parameters and FLOPs of the networks without operations that change no score."""
        return self._cost(live=True)

    def on_paths(self, counts: paths.Counts, reduce: Callable[[Counter[int]], float]) -> np.ndarray:
        """Counts edges along each path from input to output, and reduces the counts, `[A]`.

        Args:
          counts: how much an edge counts.
          reduce: from the counts of a cell's paths to one number. Where a genotype has several
            cells, their numbers are added up.
        """
        return self._of_graphs(lambda graph: reduce(paths.count_on_paths(graph, counts)))

    def on_edges(self, counts: paths.Counts) -> np.ndarray:
        """Counts the edges that lie on any path from input to output, each once, `[A]`."""
        return self._of_graphs(lambda graph: paths.count_on_edges(graph, counts))

    def _of_graphs(self, number: Callable[[CellGraph], float]) -> np.ndarray:
        """Applies a function to the graphs of each genotype and adds its values up, `[A]`.

        Graphs without a path, whose value is NaN, are left out.
        """
        graphs, cell = self._graphs
        return np.array([_sum_of_known(map(number, of_cell)) for of_cell in graphs])[cell]

    @functools.cached_property
    def _graphs(self) -> tuple[list[tuple[CellGraph, ...]], np.ndarray]:
        """The graphs of all different live forms, and the index of each cell's, `[A]`."""
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
    """A column that is not a proxy, such as the number of parameters.

    Attributes:
      name: its name in `scores.csv`.
      values: from cells to one number for each, `[A]`.
      meaning: what the numbers are, with their unit.
      is_limit: whether `search.max_NAME` may limit it: true of costs, such as parameters.
      is_measured: whether it is measured, or read from a table, instead of computed from the
        genotype. Such a column cannot be part of an objective.

    Examples:
      >>> from epe_nas_jax.scoring.columns import COLUMNS, RunCells
      >>> cells = RunCells(np.array([[3, 3, 3, 3, 3, 3], [0, 0, 0, 1, 0, 0]]), network, side=8)
      >>> COLUMNS["wide_convs"].meaning
      'the most convolutions wider than one pixel on a path from input to output'
      >>> COLUMNS["wide_convs"].values(cells)
      array([3., 0.])
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
"""All columns that are not proxies, by name."""
# Names of the columns that may limit a search, and of those that are measured.
LIMITS = tuple(name for name, column in COLUMNS.items() if column.is_limit)
MEASURED = tuple(name for name, column in COLUMNS.items() if column.is_measured)


class Objective(NamedTuple):
    """What a search maximises: one column, or several combined by their ranks.

    Attributes:
      columns: names of proxies and of `COLUMNS`, none of `MEASURED`.
      combine: from the columns' values `[A, P]` to scores `[A]`; None for a single column.

    Examples:
      >>> from epe_nas_jax.scoring.columns import Objective
      >>> from epe_nas_jax.search.ranking import rank_sum
      >>> Objective(("nwot", "live_params"), rank_sum).proxies
      ('nwot',)
    """

    columns: tuple[str, ...]
    combine: Combine | None

    @property
    def proxies(self) -> tuple[str, ...]:
        """Names of the columns that are proxies."""
        return tuple(name for name in self.columns if name in PROXIES)

    def values(self, proxies: Mapping[str, np.ndarray], cells: RunCells) -> np.ndarray:
        """The values of the columns: `[A]` of a single column, else `[A, P]`.

        An infinite proxy, such as `nwot` of a cell without a path, becomes NaN.
        """
        found = [
            np.where(np.isinf(proxies[name]), np.nan, proxies[name])
            if name in PROXIES
            else COLUMNS[name].values(cells)
            for name in self.columns
        ]
        return np.stack(found, axis=1) if self.combine else found[0]


def objective_of(columns: tuple[str, ...], combine: str) -> Objective:
    """Makes the objective that combines some columns.

    Args:
      columns: names of proxies and of `COLUMNS`, none of `MEASURED`, at least one of them a proxy.
      combine: a name of `ranking.COMBINATIONS`, which combines several columns into one score.

    Raises:
      InputError: an unknown column or combination, a column that is named twice, or no proxy among
        the columns.

    Examples:
      >>> from epe_nas_jax.scoring.columns import objective_of
      >>> objective = objective_of(("nwot", "jacob_cov", "live_params"), "log_rank_sum")
      >>> objective.proxies
      ('nwot', 'jacob_cov')
      >>> int(objective.combine(np.array([[3.0, 5.0, 9.0], [2.0, 4.0, 9.0]])).argmax())
      0
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
    """Names of an objective's proxies, then of further ones, each once."""
    return tuple(dict.fromkeys((*objective.proxies, *further)))
