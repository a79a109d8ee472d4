"""Proxies: scores of an untrained cell; larger is better for each.

From the one pass that EPE-NAS makes: EPE-NAS and `jacob_cov` look at the input Jacobian, `nwot` at
which ReLUs are open on the way there, `grad_entropy` and `grad_decay` at the gradient on its way
back. From passes of their own, with the gradient of the weights: `grad_norm` and `snip` share one
over the mini-batch, `synflow` has one over a single image.

These three take the weights of convolutions and of the linear layer, and no offsets and batch
norms, as Abdelfattah et al. 2021 do in their code. A dead operation has no gradient and adds
nothing, so that a cell and its live form have one score. A cell without a path from input to output
has no gradient at all and no score: NaN.

Shape legend: N images, D inputs per image, H height and width, K classes, P proxies,
E = 6 edges.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from epe_nas_jax import probes
from epe_nas_jax.errors import InputError
from epe_nas_jax.jacobian import probed_jacobian
from epe_nas_jax.score import CellNetwork, class_scores, correlation_matrix, epe_score

_OF_GRADIENT = ("grad_norm", "snip")
_PROBED = ("grad_entropy", "grad_decay")
PROXIES = ("epe", "epe_two_branch", "jacob_cov", "nwot", *_PROBED, "synflow", *_OF_GRADIENT)

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

    log(G / J), with G and J the sums of squares of the two gradients; a simple form of AZ-NAS's
    trainability. Low where gradients grow on their way back: through convolutions that nothing goes
    around, and where many paths without one add up.

    Args:
      size: G, a scalar.
      jacobian: input Jacobian, `[N, D]`.

    Returns:
      The score, a scalar; NaN if one of them is zero.
    """
    # Jacobians may be tiny or huge: scaled before squaring, they are not lost.
    scale = jnp.max(jnp.abs(jacobian))
    log_sum = jnp.log(jnp.sum(jnp.square(jacobian / scale))) + 2 * jnp.log(scale)
    decay = jnp.log(size) - log_sum
    return jnp.where(jnp.isfinite(decay), decay, jnp.nan)


def grad_norm_score(gradient: Any) -> jax.Array:
    """How large the gradient of the loss is (Abdelfattah et al. 2021, section 3.2).

    The sum over layers of the Euclidean norm of the gradient of a layer's weights: a sum of norms,
    as in the authors' code, and not the norm of the whole.

    Args:
      gradient: of `cross_entropy` by the weights, a pytree; arrays of rank 1 do not count.

    Returns:
      The score, a scalar. NaN if there is no gradient.
    """
    return _positive(sum(jnp.sqrt(jnp.sum(g**2)) for g in _of_layers(gradient)))


def snip_score(weights: Any, gradient: Any) -> jax.Array:
    """How much the loss depends on the presence of weights (Lee et al. 2019, section 4).

    With g the gradient of the loss L by the weights: sum |theta g|, over all layers, as Abdelfattah
    et al. 2021 (section 3.2) take it for a whole network.

    Args:
      weights: a pytree; arrays of rank 1 do not count.
      gradient: of `cross_entropy` by them.

    Returns:
      The score, a scalar. NaN if there is no gradient.
    """
    layers = zip(_of_layers(weights), _of_layers(gradient), strict=True)
    return _positive(sum(jnp.sum(jnp.abs(theta * g)) for theta, g in layers))


def synflow_score(
    variables: Any, genotype: jax.Array, image: jax.Array, *, network: CellNetwork
) -> jax.Array:
    """The logarithm of the synaptic flow (Tanaka et al. 2020, section 6).

    With all weights replaced by their absolute values, no batch norm, and R the sum of the outputs
    for an image of ones: log sum |theta dR/dtheta|. Abdelfattah et al. 2021 (section 3.2) use the
    sum, NAS-Bench-Suite-Zero its logarithm; in float32 the sum would overflow, being 1e50 for the
    cell of six 3x3 convolutions on 32x32 pixels.

    Args:
      variables: the weights, as `network.init` makes them.
      genotype: the cell, int32 `[E]`.
      image: any image, `[H, H, 3]`; only shape and dtype count.
      network: with an attribute `batch_norm`, as `network.Network`.

    Returns:
      The score, a scalar. NaN if no weight has a gradient.

    Raises:
      InputError: the network's batch norm cannot be left out.
    """
    if not hasattr(network, "batch_norm"):
        raise InputError(
            "proxy synflow: found a network without an attribute 'batch_norm', expected one"
        )
    linear: Any = network
    linear = linear.clone(batch_norm=False)
    ones = jnp.ones_like(image)[None]

    def sum_of_outputs(variables: Any) -> tuple[jax.Array, Any]:
        logits, scales = linear.apply(variables, ones, genotype, mutable=["log_scales"])
        return jnp.sum(logits), scales

    variables = jax.tree.map(jnp.abs, variables)
    # Divided by the scales, as the outputs are: R is linear in the output of each layer.
    gradient, scales = jax.grad(sum_of_outputs, has_aux=True)(variables)
    return jnp.log(snip_score(variables, gradient)) + jax.tree.reduce(jnp.add, scales)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy of logits `[N, K]` and classes, int `[N]`: a scalar."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


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

    gradient = None
    if set(proxies) & set(_OF_GRADIENT):
        gradient = jax.grad(
            lambda variables: cross_entropy(network.apply(variables, images, genotype), labels)
        )(variables)

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
            case "synflow":
                return synflow_score(variables, genotype, images[0], network=network)
            case "grad_norm":
                return grad_norm_score(gradient)
            case "snip":
                return snip_score(variables, gradient)
            case _:
                agreement = jax.tree.reduce(jnp.add, collected)
                return nwot_score(agreement, images.dtype)

    scores = jnp.stack([score(proxy) for proxy in proxies])
    return scores, class_scores(jacobian, labels, network.num_classes)


def _of_layers(tree: Any) -> list[jax.Array]:
    """The weights of convolutions and linear layers; offsets and batch norms have rank 1."""
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim > 1]


def _positive(score: Any) -> jax.Array:
    return jnp.where(score > 0, score, jnp.nan)


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
