"""The micro search space of TransNAS-Bench-101 as a `SearchSpace`."""

import functools

from epe_nas_jax.spaces import four_nodes
from epe_nas_jax.spaces.base import SearchSpace
from epe_nas_jax.spaces.transnas_micro import genotype as cells

TRANSNAS_MICRO = SearchSpace(
    name="transnas_micro",
    num_edges=cells.PRODUCT.num_entries,
    parse=cells.parse,
    format=cells.format_cell,
    check=cells.PRODUCT.check,
    identity=cells.PRODUCT.identity,
    sample=cells.PRODUCT.sample,
    sample_with_replacement=functools.partial(cells.PRODUCT.sample, replace=True),
    mutate=cells.PRODUCT.mutate,
    neighbours=cells.PRODUCT.neighbours,
    every=cells.PRODUCT.every,
    prune_dead=cells.prune_dead,
    has_path=cells.has_path,
    relative_work=cells.relative_work,
    graphs=four_nodes.graphs,
    # NAS-Bench-201's form does not hold: a skip has weights where it halves the side.
    canonical_form=None,
)
