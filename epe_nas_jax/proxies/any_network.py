"""EPE-NAS scores of any network that is a function from weights and images to logits."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from epe_nas_jax.arrays import Array, as_array, in_float32
from epe_nas_jax.errors import InputError, type_of
from epe_nas_jax.proxies.epe import epe_score
from epe_nas_jax.proxies.jacobian import input_jacobian
from epe_nas_jax.spaces.layers.checks import check_labels

ApplyFn = Callable[[Any, jax.Array], jax.Array]


def network_score(
    apply_fn: ApplyFn,
    variables: Any,
    images: Any,
    labels: Any,
    num_classes: int,
    variant: str = "released",
) -> float:
    """Scores one network of any kind by EPE-NAS; larger is better (EPE-NAS, section 3).

    A network is compiled when it is first scored; other weights and images of equal shapes then
    need no compilation. Inside `jax.jit` use `epe_score(input_jacobian(...), ...)`, which computes
    the same without the checks.

    Args:
      apply_fn: the network in training mode, `(variables, images [N, ...]) -> logits [N, K]`; a
        hashable function without side effects.
      variables: its weights, any pytree of arrays.
      images: the normalised mini-batch, `[N, ...]`, an array of any library, or lists; float16 and
        bfloat16 are computed in float32.
      labels: the images' classes 0..K-1, int `[N]`, an array of any library, or a list.
      num_classes: K.
      variant: as in `epe_score`.

    Returns:
      The score. NaN, no score, if the Jacobian of an image has no variance.

    Raises:
      InputError: the logits are not one array `[N, K]`, or they or their Jacobian are not finite;
        or images, labels or the variant do not have the form above.

    Examples:
      >>> weights = np.random.default_rng(0).normal(size=(192, 16)), np.ones((16, 3))
      >>> def two_layers(weights, images):
      ...     hidden = jax.nn.relu(images.reshape(len(images), -1) @ weights[0])
      ...     return hidden @ weights[1]
      >>> score = epe_nas_jax.network_score(two_layers, weights, images, labels, num_classes=3)
      >>> score > 0
      True
    """
    images, labels = in_float32(as_array(images, "images")), as_array(labels, "labels")
    check_float_images(images)
    check_labels(images, labels, num_classes)
    check_logits(jax.eval_shape(apply_fn, variables, images), len(images), num_classes)
    # NaN is a valid result here: it must not stop a user who has `jax_debug_nans` on.
    with jax.debug_nans(False):
        score, finite_logits, finite_jacobian = _score(
            variables,
            images,
            jnp.asarray(labels, jnp.int32),
            apply_fn=apply_fn,
            num_classes=num_classes,
            variant=variant,
        )
    for name, is_finite in (("logits", finite_logits), ("input Jacobian", finite_jacobian)):
        if not is_finite:
            raise InputError(f"{name}: found NaN or infinite values, expected finite ones")
    return float(score)


def score_networks(
    networks: Mapping[str, tuple[ApplyFn, Any]],
    images: Any,
    labels: Any,
    num_classes: int,
    variant: str = "released",
) -> dict[str, float]:
    """Scores several networks, of any shapes, on one mini-batch; see `network_score`.

    Args:
      networks: `(apply_fn, variables)` by name.
      images: the normalised mini-batch, `[N, ...]`, an array of any library, or lists; float16 and
        bfloat16 are computed in float32.
      labels: the images' classes 0..K-1, int `[N]`, an array of any library, or a list.
      num_classes: K.
      variant: as in `epe_score`.

    Returns:
      Scores by name, in the given order.

    Raises:
      InputError: as `network_score`; the message names the network.

    Examples:
      >>> def linear(weights, images):
      ...     return images.reshape(len(images), -1) @ weights
      >>> def two_layers(weights, images):
      ...     return jax.nn.relu(linear(weights[0], images)) @ weights[1]
      >>> first = np.random.default_rng(0).normal(size=(192, 16))
      >>> networks = {
      ...     "linear": (linear, first[:, :3]),
      ...     "two layers": (two_layers, (first, np.ones((16, 3)))),
      ... }
      >>> scores = epe_nas_jax.score_networks(networks, images, labels, num_classes=3)
      >>> max(scores, key=scores.get)
      'two layers'
    """
    scores = {}
    for name, (apply_fn, variables) in networks.items():
        try:
            scores[name] = network_score(apply_fn, variables, images, labels, num_classes, variant)
        except InputError as error:
            raise InputError(f"network {name!r}, {error}") from None
    return scores


@functools.partial(jax.jit, static_argnames=("apply_fn", "num_classes", "variant"))
def _score(
    variables: Any,
    images: jax.Array,
    labels: jax.Array,
    *,
    apply_fn: ApplyFn,
    num_classes: int,
    variant: str,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The score, and whether the logits and the Jacobian are finite."""
    jacobian = input_jacobian(apply_fn, variables, images)
    score = epe_score(jacobian, labels, num_classes, variant)
    # Costs nothing: the compiler reuses the forward pass of the Jacobian.
    logits = apply_fn(variables, images)
    return score, jnp.isfinite(logits).all(), jnp.isfinite(jacobian).all()


def check_float_images(images: Array) -> None:
    """Checks that images are floating point `[N, ...]`; raises `InputError` if they are not."""
    if images.ndim < 2 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            f"images: found {images.dtype} of shape {images.shape}, "
            "expected floating point [images, ...]"
        )


def check_logits(logits: Any, num_images: int, num_classes: int) -> None:
    """Checks the shape and dtype of a network's output.

    Args:
      logits: shape and dtype, a `jax.ShapeDtypeStruct`; any other type means not one array.
      num_images: N.
      num_classes: K.

    Raises:
      InputError: the output is not one array `[N, K]` of floating point.
    """
    expected = f"expected one array [{num_images}, {num_classes}]: [images, classes]"
    if not isinstance(logits, jax.ShapeDtypeStruct):
        raise InputError(f"logits: found {type_of(logits)}, {expected}")
    if logits.shape != (num_images, num_classes) or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise InputError(f"logits: found {logits.dtype} of shape {logits.shape}, {expected}")
