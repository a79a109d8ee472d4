"""The DARTS search space as a `SearchSpace`."""

import functools

from epe_nas_jax.spaces.base import SearchSpace
from epe_nas_jax.spaces.darts import drawing
from epe_nas_jax.spaces.darts import genotype as cells
from epe_nas_jax.spaces.darts.edges import NUM_EDGES

DARTS = SearchSpace(
    name="darts",
    num_edges=NUM_EDGES,
    parse=cells.parse_genotype,
    format=cells.format_genotype,
    check=cells.check_genotypes,
    identity=cells.identity,
    sample=cells.sample,
    sample_with_replacement=functools.partial(cells.sample, replace=True),
    mutate=cells.mutate,
    neighbours=cells.neighbours,
    every=None,
    prune_dead=cells.prune_dead,
    has_path=cells.has_path,
    relative_work=cells.relative_work,
    graphs=drawing.graphs,
    canonical_form=None,
    table_columns=("genotype",),
)
