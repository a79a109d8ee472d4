"""The compiled program of a step: many cells, sharded over devices.

A cell's random key is folded from the seed and, where cells have weights or mini-batches of their
own, from the cell's identity: its score depends on (seed, mini-batch, cell) and on nothing else.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from epe_nas_jax.data.minibatch import draw_minibatch
from epe_nas_jax.proxies.cell_proxies import cell_proxies, proxies_of_cells
from epe_nas_jax.scoring.config import ScoringConfig
from epe_nas_jax.seeds import random_key
from epe_nas_jax.spaces.base import Capacities, CellNetwork, EdgeGroups


@functools.partial(
    jax.jit, static_argnames=("network", "config", "mesh", "vectorise", "capacities")
)
def score_step(
    words: jax.Array,
    is_cell: jax.Array,
    genotypes: jax.Array,
    *inputs: jax.Array,
    network: CellNetwork,
    config: ScoringConfig,
    mesh: Mesh,
    vectorise: bool,
    capacities: Capacities | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Computes the proxies and class scores of a step, sharded over the mesh's devices.

    Args:
      words: identities of the cells in the slots, `[slots, W]`.
      is_cell: whether a slot has a cell, bool `[slots]`.
      genotypes: the genotypes to build in the slots, `[slots, E]`.
      *inputs: `CellScorer.inputs`, replicated on the devices.
      network: the network around the cells.
      config: how to score.
      mesh: the devices.
      vectorise: whether a device runs the cells of its shard at once, or one after another.
      capacities: how many cells of a shard may have each operation on each edge, where operations
        run by groups of fixed size; None: they run by loops.

    Returns:
      Proxies `[slots, P]` and class scores `[slots, K]`.
    """
    sharded = PartitionSpec("cells")  # type: ignore[no-untyped-call]
    replicated = PartitionSpec()  # type: ignore[no-untyped-call]
    score_shard = functools.partial(
        _score_shard,
        network=network,
        config=config,
        vectorise=vectorise,
        capacities=capacities,
    )
    with jax.default_matmul_precision(config.precision):
        return jax.shard_map(
            score_shard,
            mesh=mesh,
            in_specs=(sharded, sharded, sharded, *[replicated] * len(inputs)),
            out_specs=sharded,
            # JAX cannot follow the batching rule of `grouped_switch` across devices.
            check_vma=False,
        )(words, is_cell, genotypes, *inputs)


def shared_weights(seed: int, network: CellNetwork, images: jax.Array) -> Any:
    """The weights, of every operation, with which `score_cells(..., seed=seed)` scores cells."""
    weights_keys, _ = _keys_of_inits(random_key(seed), 1)
    empty = jnp.zeros(network.space.num_edges, jnp.int32)
    return jax.jit(network.init)(weights_keys[0], images[:1], empty)


class _Protocol(NamedTuple):
    """The images on which the cells of a shard are scored, the network and the options."""

    network: CellNetwork
    config: ScoringConfig
    images: jax.Array
    labels: jax.Array
    black: jax.Array

    def weights(self, weights_key: jax.Array) -> Any:
        """Draws the weights of every operation."""
        empty = jnp.zeros(self.network.space.num_edges, jnp.int32)
        return self.network.init(weights_key, self.images[:1], empty)

    def own_weights(self, weights_key: jax.Array, words: jax.Array) -> Any:
        """Draws weights for one cell, from its identity `[W]`."""
        return self.weights(_fold_words(weights_key, words))

    def minibatch(self, batch_key: jax.Array, words: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mini-batch of one cell: its own, or the one of all cells."""
        if not self.config.fresh_batch:
            return self.images, self.labels
        return draw_minibatch(
            _fold_words(batch_key, words),
            self.images,
            self.labels,
            self.config.fresh_batch,
            augment=self.config.augment,
            black=self.black,
            balanced_classes=self.network.num_classes if self.config.class_balanced else None,
        )

    def score(
        self,
        words: jax.Array,
        genotype: jax.Array,
        weights_key: jax.Array,
        batch_key: jax.Array,
        variables: Any,
    ) -> tuple[jax.Array, jax.Array]:
        """Proxies `[P]` and class scores `[K]` of one cell; variables None: it draws its own."""
        if variables is None:
            variables = self.own_weights(weights_key, words)
        minibatch = self.minibatch(batch_key, words)
        return cell_proxies(
            variables, genotype, *minibatch, network=self.network, proxies=self.config.proxies
        )

    def score_by_groups(
        self,
        capacities: Capacities,
        words: jax.Array,
        genotypes: jax.Array,
        weights_key: jax.Array,
        batch_key: jax.Array,
        variables: Any,
    ) -> tuple[jax.Array, jax.Array]:
        """Proxies `[S, P]` and class scores `[S, K]` of many cells; see `score`."""
        have_own_weights = variables is None
        if have_own_weights:
            variables = jax.vmap(self.own_weights, (None, 0))(weights_key, words)
        minibatches = jax.vmap(self.minibatch, (None, 0))(batch_key, words)
        # The precision allows bfloat16 for no outputs, for those that are kept, or for all.
        is_single = self.images.dtype == jnp.float32
        precision = self.config.precision if is_single else "float32"
        kept_dtype = None if precision == "float32" else "bfloat16"
        activation_dtype = "bfloat16" if precision == "bfloat16" else None
        return proxies_of_cells(
            variables,
            genotypes,
            *minibatches,
            network=self.network,
            proxies=self.config.proxies,
            groups=tuple(EdgeGroups(capacity, kept_dtype) for capacity in capacities),
            activation_dtype=activation_dtype,
            have_own_weights=have_own_weights,
        )


def _score_shard(
    words: jax.Array,
    is_cell: jax.Array,
    genotypes: jax.Array,
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    black: jax.Array,
    *,
    network: CellNetwork,
    config: ScoringConfig,
    vectorise: bool,
    capacities: Capacities | None,
) -> tuple[jax.Array, jax.Array]:
    """Proxies `[S, P]` and class scores `[S, K]` of one device's shard of `score_step`."""
    protocol = _Protocol(network, config, images, labels, black)
    weights_keys, batch_keys = _keys_of_inits(key, config.num_inits)
    shared = lax.map(protocol.weights, weights_keys) if config.init == "shared" else None

    def averaged(
        score: Callable[..., tuple[jax.Array, jax.Array]], *cells: Any
    ) -> tuple[jax.Array, jax.Array]:
        """The mean of a score over draws of the weights."""
        draws = weights_keys, batch_keys, shared
        proxies, e = lax.map(lambda draw: score(*cells, *draw), draws)
        return jnp.mean(proxies, axis=0), jnp.mean(e, axis=0)

    if capacities is not None:
        return averaged(protocol.score_by_groups, capacities, words, genotypes)
    score = functools.partial(averaged, protocol.score)
    if vectorise:
        return jax.vmap(score)(words, genotypes)

    def score_if_cell(slot: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        words, is_cell, genotype = slot
        widths = len(config.proxies), network.num_classes
        no_score = tuple(jnp.full(width, jnp.nan, images.dtype) for width in widths)
        return lax.cond(is_cell, score, lambda *_: no_score, words, genotype)

    return lax.map(score_if_cell, (words, is_cell, genotypes))


def _keys_of_inits(key: jax.Array, num_inits: int) -> tuple[jax.Array, jax.Array]:
    """Keys of the weights and keys of fresh mini-batches, one of each per draw of the weights."""
    weights_keys, batch_keys = jnp.unstack(
        jax.vmap(jax.random.split)(jax.random.split(key, num_inits)), axis=1
    )
    return weights_keys, batch_keys


def _fold_words(key: jax.Array, words: jax.Array) -> jax.Array:
    """Folds a cell's identity `[W]` into a key."""
    for word in words:
        key = jax.random.fold_in(key, word)
    return key
