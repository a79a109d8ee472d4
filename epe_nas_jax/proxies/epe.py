"""The EPE-NAS score: how a class's input Jacobians correlate (Lopes et al. 2021, section 3)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from epe_nas_jax.arrays import Array, as_array, in_float32
from epe_nas_jax.errors import InputError
from epe_nas_jax.proxies.jacobian import input_jacobian
from epe_nas_jax.spaces.base import CellNetwork
from epe_nas_jax.spaces.layers.checks import check_label_array, check_label_range

VARIANTS = ("released", "two_branch")

CLASS_LIMIT = 100
LOG_OFFSET = 1e-5


def correlation_matrix(jacobian: jax.Array) -> jax.Array:
    """The Pearson correlations of the rows of `[N, D]`: `[N, N]`, as `numpy.corrcoef`.

    A row without variance has no correlations: its row and column of the result are NaN.
    """
    centred = jacobian - jnp.mean(jacobian, axis=1, keepdims=True)
    # Jacobians may be tiny: scaled before squaring, they do not underflow.
    scaled = centred / jnp.max(jnp.abs(centred), axis=1, keepdims=True)
    unit = scaled / jnp.sqrt(jnp.sum(scaled**2, axis=1, keepdims=True))
    # log|rho| is sharp near 0, so the product never runs in reduced precision.
    return jnp.clip(jnp.matmul(unit, unit.T, precision=lax.Precision.HIGHEST), -1, 1)


def class_scores(jacobian: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """The EPE-NAS score e_c of each class c (EPE-NAS, section 3).

    With rho the correlation matrix, e_c is the sum of log(|rho_ij| + 1e-5) over the ordered pairs
    (i, j) of images of class c, i = j included.

    Args:
      jacobian: the input Jacobian, `[N, D]`.
      labels: classes 0..K-1, int `[N]`.
      num_classes: K.

    Returns:
      `[K]`: 0 for a class without images, NaN for a class with an image whose Jacobian has no
      variance.
    """
    same_class = labels[:, None] == labels[None, :]
    log_rho = jnp.log(jnp.abs(correlation_matrix(jacobian)) + LOG_OFFSET)
    # Selected, not multiplied by 0, so that a NaN stays within its own class.
    pair_sums = jnp.sum(jnp.where(same_class, log_rho, 0), axis=1)
    return jax.ops.segment_sum(pair_sums, labels, num_classes)


def epe_score(jacobian: Any, labels: Any, num_classes: int, variant: str = "released") -> jax.Array:
    """The EPE-NAS score of a network, from its input Jacobian; larger is better.

    With e_c as in `class_scores`:

    * `"released"`: sum_c |e_c|, for any number of classes, as in the released code;
    * `"two_branch"`: that sum for up to 100 classes; for more, e_c is divided by the class's number
      of images, and the score is the sum of |e_c - e_d| over ordered pairs of classes, divided by
      the number of classes. A class with a single image is left out there.

    Args:
      jacobian: the input Jacobian, `[N, D]`, an array of any library; float16 and bfloat16 are
        computed in float32.
      labels: classes 0..K-1, int `[N]`, an array of any library, or a list.
      num_classes: K.
      variant: `"released"` or `"two_branch"`.

    Returns:
      The score, a scalar of the Jacobian's dtype, at least float32. NaN if the Jacobian of an image
      has no variance (and its class is not left out): the network has no score.

    Raises:
      InputError: wrong rank, dtype or variant, a number of labels that is not N, or labels that are
        out of range and not traced.

    Examples:
      >>> jacobian = np.array([[1.0, 2.0, 4.0], [2.0, 1.0, 0.0], [3.0, 1.0, 2.0]])
      >>> score = epe_nas_jax.epe_score(jacobian, labels=[0, 0, 1], num_classes=2)
      >>> round(float(score), 2)
      0.04
    """
    jacobian = in_float32(as_array(jacobian, "jacobian"))
    labels = as_array(labels, "labels")
    _check_score_arguments(jacobian, labels, num_classes, variant)
    jacobian, labels = jnp.asarray(jacobian), jnp.asarray(labels)
    e = class_scores(jacobian, labels, num_classes)
    if variant == "released" or num_classes <= CLASS_LIMIT:
        return jnp.sum(jnp.abs(e))

    sizes = jax.ops.segment_sum(jnp.ones_like(labels, e.dtype), labels, num_classes)
    counts = sizes > 1
    e = jnp.where(counts, e / sizes, 0)
    both_count = counts[:, None] & counts[None, :]
    differences = jnp.where(both_count, jnp.abs(e[:, None] - e[None, :]), 0)
    return jnp.sum(differences) / jnp.sum(counts)


def jacobian_score(
    key: jax.Array,
    genotype: Any,
    images: Any,
    labels: Any,
    *,
    network: CellNetwork,
    variant: str = "released",
) -> jax.Array:
    """Scores one untrained cell by EPE-NAS; a pure function for `jax.jit` and `jax.vmap`.

    The `in_axes` of `jax.vmap` say what the cells of a batch share: `(None, 0, None, None)` weights
    and mini-batch, `(0, 0, None, None)` the mini-batch, `(0, 0, 0, 0)` nothing.

    Args:
      key: random key of the weights, consumed.
      genotype: the cell, int32 `[E]`.
      images: the mini-batch, `[N, H, H, 3]`, an array of any library.
      labels: the images' classes 0..K-1, int `[N]`, an array of any library.
      network: a module that makes a network from a genotype.
      variant: as in `epe_score`.

    Returns:
      The score, a scalar. NaN for a cell without a path from input to output.

    Examples:
      >>> arch = "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"
      >>> genotype = epe_nas_jax.parse_arch(arch)
      >>> def score(key):
      ...     return epe_nas_jax.jacobian_score(key, genotype, images, labels, network=network)
      >>> bool(jax.jit(score)(jax.random.key(0)) > 0)
      True
    """
    images = jnp.asarray(in_float32(as_array(images, "images")))
    variables = network.init(key, images, genotype)
    return cell_score(variables, genotype, images, labels, network=network, variant=variant)


def cell_score(
    variables: Any,
    genotype: Any,
    images: jax.Array,
    labels: Any,
    *,
    network: CellNetwork,
    variant: str = "released",
) -> jax.Array:
    """Scores one cell, with weights drawn before, by EPE-NAS; see `jacobian_score`.

    Args:
      variables: the weights, as `network.init` makes them.
      genotype: the cell, int32 `[E]`.
      images: the mini-batch, `[N, H, H, 3]`.
      labels: the images' classes, int `[N]`.
      network: a module that makes a network from a genotype.
      variant: as in `epe_score`.
    """

    def apply_fn(variables: Any, images: jax.Array) -> jax.Array:
        return network.apply(variables, images, genotype)

    jacobian = input_jacobian(apply_fn, variables, images)
    return epe_score(jacobian, labels, network.num_classes, variant)


def _check_score_arguments(jacobian: Array, labels: Array, num_classes: int, variant: str) -> None:
    if variant not in VARIANTS:
        raise InputError(f"score variant: found {variant!r}, expected one of {VARIANTS}")
    if jacobian.ndim != 2 or not jnp.issubdtype(jacobian.dtype, jnp.floating):
        raise InputError(
            f"jacobian: found {jacobian.dtype} of shape {jacobian.shape}, "
            "expected floating point [images, inputs]"
        )
    check_label_array(labels, len(jacobian))
    if num_classes < 1:
        raise InputError(f"number of classes: found {num_classes}, expected at least 1")
    check_label_range(labels, num_classes)
