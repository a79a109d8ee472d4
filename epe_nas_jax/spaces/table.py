"""The table of search spaces: a new one is a folder beside this file and an entry here."""

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
        (without reduction cells or blocks) and the dtype of the weights to the network.
      is_trainable: whether the network has running averages of batch norm, which training needs.

    Examples:
      >>> from epe_nas_jax.spaces.table import SPACES
      >>> entry = SPACES["nasbench201"]
      >>> network = entry.make_network(10, 16, 5, jnp.float32)
      >>> network.space.name, entry.is_trainable
      ('nasbench201', True)
    """

    space: SearchSpace
    make_network: Callable[[int, int, int, jnp.dtype], CellNetwork]
    is_trainable: bool = False


def _darts_network(
    num_classes: int, channels: int, cells_per_stage: int, param_dtype: jnp.dtype
) -> CellNetwork:
    """Adds two reduction cells between the stages: the paper's 20 cells have 6 per stage."""
    num_cells = 3 * cells_per_stage + 2
    return DartsNetwork(num_classes, channels, num_cells, param_dtype=param_dtype)


def _nasbench301_network(
    num_classes: int, channels: int, cells_per_stage: int, param_dtype: jnp.dtype
) -> CellNetwork:
    """Adds two reduction cells between the stages: the benchmark's 8 cells have 2 per stage."""
    num_cells = 3 * cells_per_stage + 2
    return NasBench301Network(num_classes, channels, num_cells, param_dtype=param_dtype)


def _transnas_micro_network(
    num_classes: int, channels: int, cells_per_stage: int, param_dtype: jnp.dtype
) -> CellNetwork:
    """The stem has C output channels, each of five modules the cells of a stage (64 and 2)."""
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
"""All search spaces by name."""


def space_entry(name: str) -> Entry:
    """Looks up the entry of a space by the space's name.

    Raises:
      InputError: there is no space of this name.

    Examples:
      >>> from epe_nas_jax.spaces.table import space_entry
      >>> space_entry("darts").space.num_edges
      28
      >>> space_entry("nasbench")
      Traceback (most recent call last):
      ...
      epe_nas_jax.errors.InputError: space.name: found 'nasbench', expected one of nasbench201, ...
    """
    if name not in SPACES:
        raise InputError(f"space.name: found {name!r}, expected one of {', '.join(SPACES)}")
    return SPACES[name]


def trainable_entry(name: str) -> Entry:
    """Looks up the entry of a space whose networks can be trained.

    Raises:
      InputError: there is no space of this name, or its networks cannot be trained.
    """
    entry = space_entry(name)
    if not entry.is_trainable:
        known = ", ".join(name for name, entry in SPACES.items() if entry.is_trainable)
        raise InputError(f"space.name: found {name!r}, expected {known} for training")
    return entry
