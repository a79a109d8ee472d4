"""The NAS-Bench-301 search space as a `SearchSpace`."""

import dataclasses

from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.nasbench301 import genotype as cells

# Sampling, neighbours, dead operations and drawings are those of DARTS.
NASBENCH301 = dataclasses.replace(
    DARTS,
    name="nasbench301",
    parse=cells.parse_genotype,
    format=cells.format_genotype,
    check=cells.check_genotypes,
    identity=cells.identity,
)
