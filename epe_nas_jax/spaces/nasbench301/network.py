"""The network of NAS-Bench-301's cells (Zela et al. 2022), a variant of the DARTS network.

It has the batch norms of the network in which DARTS searches: those of operations have no scale and
offset, and one of them follows each pool. A node may read another one by two operations. The
benchmark's network has no last batch norm and ReLU (`last_activation=False`).
"""

from typing import ClassVar

from epe_nas_jax.spaces.base import SearchSpace
from epe_nas_jax.spaces.darts.network import DartsNetwork
from epe_nas_jax.spaces.nasbench301.space import NASBENCH301


class NasBench301Network(DartsNetwork):
    """The network of a pair of NAS-Bench-301 cells; the attributes are those of `DartsNetwork`.

    The default sizes are those of the benchmark.

    Examples:
      >>> from epe_nas_jax.spaces.darts.published import DARTS_V2
      >>> network = epe_nas_jax.NasBench301Network(num_classes=10)
      >>> genotype = network.space.parse(DARTS_V2)
      >>> network.cost(genotype[None], side=32).params
      array([910890])
    """

    plain_norm: ClassVar[bool] = True
    has_pairs: ClassVar[bool] = True

    channels: int = 32
    num_cells: int = 8

    @property
    def space(self) -> SearchSpace:
        """The search space of the cells."""
        return NASBENCH301
