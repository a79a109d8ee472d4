"""What is measured of a network, in whatever framework it runs."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.arrays import Array
from epe_nas_jax.errors import InputError

Need = Literal["jacobian", "relus", "probes", "weight_gradient", "flops", "latency", "memory"]

NO_JACOBIAN = "the input Jacobian is zero: the last layer's weights are, or no way leads there"
# Runs are spread if the middle half of them lies further apart than this share of the median.
_SPREAD = 0.05


class Minibatch(NamedTuple):
    """What networks are measured on.

    Attributes:
      images: `[N, H, W, C]` or other, float32 or float64.
      labels: classes, int `[N]`.
      num_classes: K.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int


class Found(NamedTuple):
    """What is measured of one network; what nobody needs is None.

    Attributes:
      minibatch: on what.
      num_params: how many weights.
      jacobian: the input Jacobian, `[N, D]`.
      agreement: in how many rectifiers each two images agree, int `[N, N]`.
      entropy: `gradient_probes.channel_entropy`, of all blocks but the last stage's, added up.
      size: `gradient_probes.sum_of_squares` at the last block's end.
      weights: a list of arrays.
      weight_gradient: of the cross-entropy by them.
      flops: of one image's forward pass.
      seconds: that a forward pass of the mini-batch takes.
      peak_bytes: the most memory that the gradient of the loss takes, with weights and images.
      notes: what is to be known of the measurement.
    """

    minibatch: Minibatch
    num_params: int
    jacobian: Any = None
    agreement: Any = None
    entropy: Any = None
    size: Any = None
    weights: Any = None
    weight_gradient: Any = None
    flops: float | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    notes: tuple[str, ...] = ()


def with_jacobian(found: Found, jacobian: Any) -> Found:
    """Adds an input Jacobian `[N, ...]`.

    Raises:
      InputError: it is not finite.
    """
    check_finite("input Jacobian", jacobian)
    if not np.asarray(jacobian).any():
        found = found._replace(notes=(*found.notes, NO_JACOBIAN))
    return found._replace(jacobian=jnp.asarray(jacobian).reshape(len(jacobian), -1))


def check_finite(what: str, values: Array) -> None:
    """Checks numbers that a network made; raises `InputError` if some are NaN or infinite."""
    if not np.isfinite(np.asarray(values)).all():
        raise InputError(f"{what}: found NaN or infinite values, expected finite ones")


def median_seconds(
    run: Callable[[], Any], *, warm_up: int = 1, least: int = 5, most: int = 5
) -> float:
    """How long a function takes, the median of some runs after first ones; it waits for JAX.

    >>> seconds = median_seconds(lambda: compiled(images), warm_up=3, least=10, most=50)

    Args:
      run: the function.
      warm_up: runs that do not count, which come first.
      least: runs that count.
      most: how many runs count where the first ones are spread: of these the quartiles lie more
        than 5 % of the median apart.
    """
    for _ in range(warm_up):
        jax.block_until_ready(run())  # type: ignore[no-untyped-call]
    seconds: list[float] = []
    while len(seconds) < least or (len(seconds) < most and _are_spread(seconds)):
        start = time.perf_counter()
        jax.block_until_ready(run())  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def _are_spread(seconds: Sequence[float]) -> bool:
    low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    return bool(high - low > _SPREAD * middle)
