"""What is measured of a network, in any framework."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.arrays import Array
from epe_nas_jax.errors import InputError

Need = Literal["jacobian", "relus", "probes", "weight_gradient", "flops", "latency", "memory"]

NO_JACOBIAN = "the input Jacobian is zero: no path to the logits, or a last layer of zeros"
# Times are spread if their quartiles lie further apart than this share of the median.
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
    """What is measured of one network; what was not asked for is None.

    Attributes:
      minibatch: the mini-batch on which the network was measured.
      num_params: how many weights it has.
      jacobian: the input Jacobian, `[N, D]`.
      agreement: in how many rectifiers each pair of images agrees, int `[N, N]`.
      entropy: the sum of `gradient_probes.channel_entropy` over the blocks before the last stage.
      size: `gradient_probes.sum_of_squares` at the end of the last block.
      weights: the weights, a list of arrays.
      weight_gradient: the gradient of the cross-entropy by the weights.
      flops: FLOPs of one image's forward pass.
      seconds: how long a forward pass of the mini-batch takes.
      peak_bytes: the most memory that the gradient of the loss takes, with weights and images.
      notes: lines that a user should know about the measurement.
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
    """Measures how long a function takes, as the median of some runs; it waits for JAX's results.

    Args:
      run: the function.
      warm_up: how many first runs do not count.
      least: how many runs count, at least.
      most: how many runs count, at most: the function is run again while the quartiles lie more
        than 5 % of the median apart.

    Returns:
      Seconds.

    Examples:
      >>> from epe_nas_jax.networks.found import median_seconds
      >>> median_seconds(lambda: jnp.ones(1000).sum(), warm_up=3, least=10, most=50) > 0
      True
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
