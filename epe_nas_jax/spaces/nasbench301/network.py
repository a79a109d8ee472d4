"""The network of NAS-Bench-301's cells (Zela et al. 2022), as a form of the DARTS network.

Like DARTS's network, with the batch norms of the one that DARTS searches with: those of operations
have no scale and offset, and one of them stands behind each pool. A node may read another one by
two operations. The last batch norm and ReLU are no part of the benchmark's network
(`last_activation=False`).
"""

from typing import ClassVar

from epe_nas_jax.spaces.base import SearchSpace
from epe_nas_jax.spaces.darts.network import DartsNetwork
from epe_nas_jax.spaces.nasbench301.space import NASBENCH301


class NasBench301Network(DartsNetwork):
    """A network built from a pair of cells; the attributes are those of `DartsNetwork`.

    The sizes of the benchmark are the defaults.
    """

    plain_norm: ClassVar[bool] = True
    has_pairs: ClassVar[bool] = True

    channels: int = 32
    num_cells: int = 8

    @property
    def space(self) -> SearchSpace:
        """The search space of the cells."""
        return NASBENCH301
