"""Scores cells by several proxies, in as few passes as these need."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from epe_nas_jax.errors import InputError
from epe_nas_jax.proxies.epe import class_scores
from epe_nas_jax.proxies.jacobian import probed_jacobian
from epe_nas_jax.proxies.table import PROXIES, Need, Pass, Proxy
from epe_nas_jax.proxies.weight_gradients import cross_entropy
from epe_nas_jax.spaces.base import CellNetwork, EdgeGroups
from epe_nas_jax.spaces.layers import gradient_probes, relu_agreement

# The Flax collection into which a network puts what a proxy needs.
_COLLECTION_OF_NEED: dict[Need, str] = {
    "relus": relu_agreement.COLLECTION,
    "probes": gradient_probes.PRESENT,
}


def cell_proxies(
    variables: Any,
    genotype: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    network: CellNetwork,
    proxies: tuple[str, ...],
) -> tuple[jax.Array, jax.Array]:
    """Scores one cell by several proxies; pure, for `jax.jit` and `jax.vmap`.

    `nwot` counts the ReLUs of all operations of the genotype, dead ones too: pass the cell's live
    form to count only those on a path to the output.

    Args:
      variables: the weights, as `network.init` makes them.
      genotype: the cell, int32 `[E]`.
      images: the mini-batch, `[N, H, W, 3]`.
      labels: the images' classes, int `[N]`.
      network: a module that makes a network from a genotype.
      proxies: names from `table.PROXIES`.

    Returns:
      The scores, `[P]`, and the EPE-NAS score e_c of each class, `[K]`, as `epe.class_scores`.

    Raises:
      InputError: the network lacks what a proxy needs.
    """
    apply_fn = _apply_fn(network, proxies)
    scalars = _scalars(proxies, images.dtype)

    def run(scalars: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        return apply_fn(variables, genotype, scalars, images)

    jacobian, probes, collected = probed_jacobian(run, scalars, images)
    return _scores(
        variables,
        genotype,
        images,
        labels,
        jacobian,
        probes,
        collected,
        network=network,
        proxies=proxies,
    )


def proxies_of_cells(
    variables: Any,
    genotypes: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    network: CellNetwork,
    proxies: tuple[str, ...],
    groups: tuple[EdgeGroups, ...],
    activation_dtype: str | None,
    have_own_weights: bool,
) -> tuple[jax.Array, jax.Array]:
    """Scores many cells in one pass, operations by groups of fixed size; pure, for `jax.jit`.

    The result is that of `jax.vmap` of `cell_proxies`, but differentiation is outside of the
    `vmap`: only then can a group keep for the backward pass no more than it needs itself.

    Args:
      variables: the weights, shared by all cells, or with a leading axis of A cells.
      genotypes: the cells, int32 `[A, E]`.
      images: the mini-batch of each cell, `[A, N, H, W, 3]`.
      labels: the images' classes, int `[A, N]`.
      network: as in `cell_proxies`.
      proxies: as in `cell_proxies`.
      groups: the groups of each edge.
      activation_dtype: dtype of the layers' outputs; None: the dtype of the images.
      have_own_weights: whether each cell has weights of its own.

    Returns:
      The scores, `[A, P]`, and the EPE-NAS score e_c of each class, `[A, K]`; NaN for a cell with
      an operation whose group is full.
    """
    axes = 0 if have_own_weights else None, 0, 0, 0
    apply_fn = _apply_fn(network, proxies, groups=groups, activation_dtype=activation_dtype)
    one_each = jax.tree.map(
        lambda scalar: jnp.zeros(len(genotypes), scalar.dtype), _scalars(proxies, images.dtype)
    )

    def run(scalars: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        return jax.vmap(apply_fn, axes)(variables, genotypes, scalars, images)

    jacobians, probes, collected = probed_jacobian(run, one_each, images)
    jacobians = jacobians.reshape(*images.shape[:2], -1)
    score = functools.partial(_scores, network=network, proxies=proxies)
    return jax.vmap(score, (axes[0], 0, 0, 0, 0, 0, 0))(
        variables, genotypes, images, labels, jacobians, probes, collected
    )


def _apply_fn(network: CellNetwork, proxies: tuple[str, ...], **keywords: Any) -> Any:
    """`(variables, genotype, scalars, images) -> (logits, collections)`.

    The scalars are those of `gradient_probes`; the collections hold what the proxies need of the
    forward pass.
    """
    needs = _needs(proxies)
    collections = [_COLLECTION_OF_NEED[need] for need in sorted(needs & set(_COLLECTION_OF_NEED))]

    def apply(variables: Any, genotype: jax.Array, scalars: Any, images: jax.Array) -> Any:
        probed = {**variables, gradient_probes.COLLECTION: scalars}
        if collections:
            return network.apply(probed, images, genotype, mutable=collections, **keywords)
        return network.apply(probed, images, genotype, **keywords), {}

    return apply


def _scores(
    variables: Any,
    genotype: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    jacobian: jax.Array,
    probes: Any,
    collected: Any,
    *,
    network: CellNetwork,
    proxies: tuple[str, ...],
) -> tuple[jax.Array, jax.Array]:
    """The scores `[P]` and class scores `[K]` of one cell, from the results of its pass."""
    needs = _needs(proxies)
    for name in proxies:
        _check_needs(PROXIES[name], collected)
    agreement = None
    if "relus" in needs:
        agreement = jax.tree.reduce(jnp.add, collected[relu_agreement.COLLECTION])
    weight_gradient = None
    if "weight_gradient" in needs:

        def loss(variables: Any) -> jax.Array:
            return cross_entropy(network.apply(variables, images, genotype), labels)

        weight_gradient = jax.grad(loss)(variables)
    found = Pass(
        network, variables, genotype, images, labels, jacobian, agreement, probes, weight_gradient
    )
    scores = jnp.stack([PROXIES[name].score(found) for name in proxies])
    return scores, class_scores(jacobian, labels, network.num_classes)


def _needs(proxies: tuple[str, ...]) -> frozenset[Need]:
    return frozenset().union(*(PROXIES[name].needs for name in proxies))


def _scalars(proxies: tuple[str, ...], dtype: jnp.dtype) -> dict[str, jax.Array]:
    return gradient_probes.scalars(dtype) if "probes" in _needs(proxies) else {}


def _check_needs(proxy: Proxy, collected: Any) -> None:
    """Checks that a network's collections hold what a proxy needs."""
    for need, collection in _COLLECTION_OF_NEED.items():
        if need in proxy.needs and not jax.tree.leaves(collected.get(collection)):
            raise InputError(
                f"proxy {proxy.name}: found a network without a collection {collection!r}, "
                "expected one"
            )
