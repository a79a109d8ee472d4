"""Proxies: scores of an untrained cell, all from the one pass that EPE-NAS makes.

EPE-NAS and `jacob_cov` look at the input Jacobian, `nwot` at which ReLUs are open on the way there,
`grad_entropy` and `grad_decay` at the gradient on its way back. Larger is better for each.

Shape legend: N images, D inputs per image, H height and width, K classes, P proxies,
E = 6 edges.
"""

from typing import Any

import jax
import jax.numpy as jnp

from epe_nas_jax import probes
from epe_nas_jax.errors import InputError
from epe_nas_jax.jacobian import probed_jacobian
from epe_nas_jax.score import CellNetwork, class_scores, correlation_matrix, epe_score

PROXIES = ("epe", "epe_two_branch", "jacob_cov", "nwot", "grad_entropy", "grad_decay")

_PROBED = ("grad_entropy", "grad_decay")

_EIGENVALUE_OFFSET = 1e-5


def jacob_cov_score(jacobian: jax.Array) -> jax.Array:
    """How far the input Jacobians of all images are from being alike (Mellor et al. 2020, v1).

    With v the eigenvalues of the correlation matrix and k = 1e-5: -sum(log(v + k) + 1 / (v + k)).

    Args:
      jacobian: input Jacobian, `[N, D]`.

    Returns:
      The score, a scalar. NaN if the Jacobian of an image has no variance.
    """
    rho = correlation_matrix(jacobian)
    defined = jnp.isfinite(rho).all()
    # Rounding may leave a zero eigenvalue slightly negative.
    v = jnp.maximum(jnp.linalg.eigvalsh(jnp.where(defined, rho, 0)), 0) + _EIGENVALUE_OFFSET
    return jnp.where(defined, -jnp.sum(jnp.log(v) + 1 / v), jnp.nan)


def nwot_score(agreement: jax.Array, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """How differently a network's ReLUs open for different images (Mellor et al. 2021, section 3).

    The log-determinant of the kernel whose entry (i, j) counts the ReLU units that are both open or
    both closed for images i and j.

    Args:
      agreement: that kernel, int32 `[N, N]`.
      dtype: dtype to compute in.

    Returns:
      The score, a scalar; -inf if two images open the same units.
    """
    return jnp.linalg.slogdet(agreement.astype(dtype))[1]


def grad_entropy_score(entropy: jax.Array, jacobian: jax.Array) -> jax.Array:
    """In how many directions the gradients of the cells' outputs vary.

    The sum of `probes.channel_entropy` over all cells but those of the last stage: what AZ-NAS (Lee
    & Ham 2024) measures of features, here of gradients. It is low where the channels' gradients
    have become alike.

    Args:
      entropy: what the probes of that name tell, a scalar.
      jacobian: input Jacobian, `[N, D]`.

    Returns:
      The score, a scalar; NaN if the input Jacobian is zero.
    """
    return jnp.where(jnp.any(jacobian != 0), entropy, jnp.nan)


def grad_decay_score(size: jax.Array, jacobian: jax.Array) -> jax.Array:
    """How much smaller a gradient is at the images than at the last cell's output.

    log(G / J), with G and J the sums of squares of the two gradients. Low where gradients explode
    on their way back, which makes a network hard to train; a simple form of AZ-NAS's trainability.

    Args:
      size: G, a scalar.
      jacobian: input Jacobian, `[N, D]`.

    Returns:
      The score, a scalar; NaN if one of them is zero.
    """
    ratio = size / jnp.sum(jnp.square(jacobian))
    return jnp.where(jnp.isfinite(ratio) & (ratio > 0), jnp.log(ratio), jnp.nan)


def cell_proxies(
    variables: Any,
    genotype: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    network: CellNetwork,
    proxies: tuple[str, ...],
) -> tuple[jax.Array, jax.Array]:
    """Scores one cell by several proxies in one pass; pure, for `jax.jit` and `jax.vmap`.

    `nwot` counts the ReLUs of every operation that the genotype has, also of dead ones: give the
    cell's live form to count those that lead to the output.

    Args:
      variables: the weights, as `network.init` makes them.
      genotype: the cell, int32 `[E]`.
      images: the mini-batch, `[N, H, H, 3]`.
      labels: its classes, int `[N]`.
      network: a module that makes a network from a genotype.
      proxies: names from `PROXIES`.

    Returns:
      The scores, `[P]`, and each class's part e_c of EPE-NAS, `[K]`, as in `score.class_scores`.
    """
    nwot = "nwot" in proxies
    scalars = probes.scalars(images.dtype) if set(proxies) & set(_PROBED) else {}

    def apply_fn(scalars: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        probed = {**variables, probes.COLLECTION: scalars}
        if nwot:
            return network.apply(probed, images, genotype, mutable=["relus"])
        return network.apply(probed, images, genotype), {}

    jacobian, told, collected = probed_jacobian(apply_fn, scalars, images)
    if nwot and not jax.tree.leaves(collected):
        raise InputError("proxy nwot: found a network without a collection 'relus', expected one")

    def score(proxy: str) -> jax.Array:
        match proxy:
            case "epe":
                return epe_score(jacobian, labels, network.num_classes)
            case "epe_two_branch":
                return epe_score(jacobian, labels, network.num_classes, "two_branch")
            case "jacob_cov":
                return jacob_cov_score(jacobian)
            case "grad_entropy":
                return grad_entropy_score(told[probes.ENTROPY], jacobian)
            case "grad_decay":
                return grad_decay_score(told[probes.SIZE], jacobian)
            case _:
                agreement = jax.tree.reduce(jnp.add, collected)
                return nwot_score(agreement, images.dtype)

    scores = jnp.stack([score(proxy) for proxy in proxies])
    return scores, class_scores(jacobian, labels, network.num_classes)


def check_proxies(proxies: tuple[str, ...]) -> None:
    """Checks names of proxies.

    Raises:
      InputError: none, an unknown one, or one twice.
    """
    if not proxies:
        raise InputError(f"proxies: found none, expected some of {', '.join(PROXIES)}")
    for proxy in proxies:
        if proxy not in PROXIES:
            raise InputError(f"proxy: found {proxy!r}, expected one of {', '.join(PROXIES)}")
        if proxies.count(proxy) > 1:
            raise InputError(f"proxies: found {proxy!r} twice, expected each once")
