"""The table of search spaces: to add one is a folder beside this file and an entry."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import CellNetwork, SearchSpace
from epe_nas_jax.spaces.darts.network import DartsNetwork
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.nasbench101.network import NasBench101Network
from epe_nas_jax.spaces.nasbench101.space import NASBENCH101
from epe_nas_jax.spaces.nasbench201.network import NasBench201Network
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
from epe_nas_jax.spaces.nasbench301.network import NasBench301Network
from epe_nas_jax.spaces.nasbench301.space import NASBENCH301
from epe_nas_jax.spaces.nats_sss.network import NatsSssNetwork
from epe_nas_jax.spaces.nats_sss.space import NATS_SSS
from epe_nas_jax.spaces.transnas_micro.network import TransNasMicroNetwork
from epe_nas_jax.spaces.transnas_micro.space import TRANSNAS_MICRO


class Entry(NamedTuple):
    """A search space and the network around its cells.

    Attributes:
      space: the space.
      make_network: from K, the channels C of the first stage, the cells in each of the three stages
        (reduction cells or blocks stand between these) and the dtype of the weights.
      is_trainable: whether the network keeps running averages of batch norm, as training needs.
    """

    space: SearchSpace
    make_network: Callable[[int, int, int, jnp.dtype], CellNetwork]
    is_trainable: bool = False


def _darts_network(
    num_classes: int, channels: int, cells_per_stage: int, param_dtype: jnp.dtype
) -> CellNetwork:
    """Two reduction cells between the stages: the paper's 20 cells are 6 a stage."""
    num_cells = 3 * cells_per_stage + 2
    return DartsNetwork(num_classes, channels, num_cells, param_dtype=param_dtype)


def _nasbench301_network(
    num_classes: int, channels: int, cells_per_stage: int, param_dtype: jnp.dtype
) -> CellNetwork:
    """Two reduction cells between the stages: the benchmark's 8 cells are 2 a stage."""
    num_cells = 3 * cells_per_stage + 2
    return NasBench301Network(num_classes, channels, num_cells, param_dtype=param_dtype)


def _transnas_micro_network(
    num_classes: int, channels: int, cells_per_stage: int, param_dtype: jnp.dtype
) -> CellNetwork:
    """The stem puts out C channels; each of five modules has the cells of a stage: 64 and 2."""
    return TransNasMicroNetwork(num_classes, channels, cells_per_stage, param_dtype=param_dtype)


SPACES = {
    entry.space.name: entry
    for entry in (
        Entry(NASBENCH201, NasBench201Network, is_trainable=True),
        Entry(DARTS, _darts_network),
        Entry(NASBENCH301, _nasbench301_network),
        Entry(NASBENCH101, NasBench101Network),
        Entry(TRANSNAS_MICRO, _transnas_micro_network),
        Entry(NATS_SSS, NatsSssNetwork),
    )
}


def space_entry(name: str) -> Entry:
    """The entry of a space.

    Raises:
      InputError: there is none of that name.
    """
    if name not in SPACES:
        raise InputError(f"space.name: found {name!r}, expected one of {', '.join(SPACES)}")
    return SPACES[name]


def trainable_entry(name: str) -> Entry:
    """The entry of a space whose networks can be trained.

    Raises:
      InputError: there is none of that name, or its networks cannot be trained.
    """
    entry = space_entry(name)
    if not entry.is_trainable:
        known = ", ".join(name for name, entry in SPACES.items() if entry.is_trainable)
        raise InputError(f"space.name: found {name!r}, expected {known} for training")
    return entry
