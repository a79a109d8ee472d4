"""What is measured of a network, in whatever framework it runs."""

import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.arrays import Array
from epe_nas_jax.errors import InputError

Need = Literal["jacobian", "relus", "probes", "weight_gradient", "flops", "latency", "memory"]

NO_JACOBIAN = "the input Jacobian is zero: the last layer's weights are, or no way leads there"
_NUM_RUNS = 5


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


def median_seconds(run: Callable[[], Any]) -> float:
    """How long a function takes, the median of five runs after a first one; it waits for JAX."""
    jax.block_until_ready(run())  # type: ignore[no-untyped-call]
    seconds = []
    for _ in range(_NUM_RUNS):
        start = time.perf_counter()
        jax.block_until_ready(run())  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
