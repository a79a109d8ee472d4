"""One cell scored by several proxies, in as few passes as they need."""

from typing import Any

import jax
import jax.numpy as jnp

from epe_nas_jax.errors import InputError
from epe_nas_jax.proxies.epe import class_scores
from epe_nas_jax.proxies.jacobian import probed_jacobian
from epe_nas_jax.proxies.table import PROXIES, Need, Pass, Proxy
from epe_nas_jax.proxies.weight_gradients import cross_entropy
from epe_nas_jax.spaces.base import CellNetwork
from epe_nas_jax.spaces.layers import gradient_probes, relu_agreement

# What a network puts there if it has what the need asks for.
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

    `nwot` counts the ReLUs of every operation that the genotype has, also of dead ones: give the
    cell's live form to count those that lead to the output.

    Args:
      variables: the weights, as `network.init` makes them.
      genotype: the cell, int32 `[E]`.
      images: the mini-batch, `[N, H, W, 3]`.
      labels: its classes, int `[N]`.
      network: a module that makes a network from a genotype.
      proxies: names from `table.PROXIES`.

    Returns:
      The scores, `[P]`, and each class's part e_c of EPE-NAS, `[K]`, as in `epe.class_scores`.

    Raises:
      InputError: the network lacks what a proxy needs.
    """
    found = _pass(variables, genotype, images, labels, network, proxies)
    scores = jnp.stack([PROXIES[name].score(found) for name in proxies])
    return scores, class_scores(found.jacobian, labels, network.num_classes)


def _pass(
    variables: Any,
    genotype: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    network: CellNetwork,
    proxies: tuple[str, ...],
) -> Pass:
    """Runs the network forward and back, and collects what the proxies need on the way."""
    needs = frozenset().union(*(PROXIES[name].needs for name in proxies))
    collections = [_COLLECTION_OF_NEED[need] for need in sorted(needs & set(_COLLECTION_OF_NEED))]
    scalars = gradient_probes.scalars(images.dtype) if "probes" in needs else {}

    def apply_fn(scalars: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        probed = {**variables, gradient_probes.COLLECTION: scalars}
        if collections:
            return network.apply(probed, images, genotype, mutable=collections)
        return network.apply(probed, images, genotype), {}

    jacobian, probes, collected = probed_jacobian(apply_fn, scalars, images)
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
    return Pass(
        network, variables, genotype, images, labels, jacobian, agreement, probes, weight_gradient
    )


def _check_needs(proxy: Proxy, collected: Any) -> None:
    """Checks that a network put into its collections what a proxy needs."""
    for need, collection in _COLLECTION_OF_NEED.items():
        if need in proxy.needs and not jax.tree.leaves(collected.get(collection)):
            raise InputError(
                f"proxy {proxy.name}: found a network without a collection {collection!r}, "
                "expected one"
            )
