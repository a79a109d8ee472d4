"""The NAS-Bench-201 search space as a `SearchSpace`."""

import functools

from epe_nas_jax.spaces import four_nodes
from epe_nas_jax.spaces.base import SearchSpace
from epe_nas_jax.spaces.nasbench201 import genotype as cells

NASBENCH201 = SearchSpace(
    name="nasbench201",
    num_edges=cells.NUM_EDGES,
    parse=cells.parse_arch,
    format=cells.format_arch,
    check=cells.check_genotypes,
    identity=cells.PRODUCT.identity,
    sample=cells.sample,
    sample_with_replacement=functools.partial(cells.sample, replace=True),
    mutate=cells.mutate,
    neighbours=cells.neighbours,
    every=cells.every_genotype,
    prune_dead=cells.prune_dead,
    has_path=cells.has_path,
    relative_work=cells.relative_work,
    graphs=four_nodes.graphs,
    canonical_form=cells.canonical_form,
)
"""The cells of NAS-Bench-201."""
