"""The table of columns for any network: to add one is its function and an entry here."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.networks.found import Found, Need
from epe_nas_jax.proxies.epe import epe_score
from epe_nas_jax.proxies.jacobian_proxies import (
    grad_decay_score,
    grad_entropy_score,
    jacob_cov_score,
)
from epe_nas_jax.proxies.nwot import nwot_score
from epe_nas_jax.proxies.weight_gradients import grad_norm_score, snip_score

NETWORK_RANKING = ("nwot",)
"""The columns by which `rank_networks` ranks by default.

`nwot` ranks trained networks better than parameters and FLOPs do (docs/any-network.md); the sum of
signals that is recommended for cells does not.
"""


class NetworkColumn(NamedTuple):
    """One column of the table of networks.

    Attributes:
      name: its name in the table.
      value: from what was measured of a network to a number; None and infinity become NaN.
      meaning: what the numbers mean, with their unit.
      needs: what must be measured for it.
    """

    name: str
    value: Callable[[Found], Any]
    meaning: str
    needs: frozenset[Need] = frozenset()


def _epe(found: Found) -> Any:
    _, labels, num_classes = found.minibatch
    return epe_score(found.jacobian, labels, num_classes)


def _nwot(found: Found) -> Any:
    if found.agreement is None:
        return None
    return nwot_score(jnp.asarray(found.agreement), found.minibatch.images.dtype)


def _grad_entropy(found: Found) -> Any:
    return None if found.entropy is None else grad_entropy_score(found.entropy, found.jacobian)


def _grad_decay(found: Found) -> Any:
    return None if found.size is None else grad_decay_score(found.size, found.jacobian)


# All columns by name.
NETWORK_COLUMNS = {
    column.name: column
    for column in (
        NetworkColumn("epe", _epe, "EPE-NAS, as released", frozenset({"jacobian"})),
        NetworkColumn(
            "jacob_cov",
            lambda found: jacob_cov_score(found.jacobian),
            "how far the images' Jacobians are from being alike",
            frozenset({"jacobian"}),
        ),
        NetworkColumn(
            "nwot", _nwot, "how differently rectifiers open for images", frozenset({"relus"})
        ),
        NetworkColumn(
            "grad_entropy",
            _grad_entropy,
            "in how many directions the gradients of blocks vary",
            frozenset({"jacobian", "probes"}),
        ),
        NetworkColumn(
            "grad_decay",
            _grad_decay,
            "how much smaller the gradient is at the images than at the last block",
            frozenset({"jacobian", "probes"}),
        ),
        NetworkColumn(
            "grad_norm",
            lambda found: grad_norm_score(found.weight_gradient),
            "how large the gradient of the loss by the weights is",
            frozenset({"weight_gradient"}),
        ),
        NetworkColumn(
            "snip",
            lambda found: snip_score(found.weights, found.weight_gradient),
            "how much the loss depends on the presence of the weights",
            frozenset({"weight_gradient"}),
        ),
        NetworkColumn("params", lambda found: found.num_params, "parameters"),
        NetworkColumn(
            "mflops",
            lambda found: None if found.flops is None else found.flops / 1e6,
            "millions of FLOPs of one image's forward pass, as the compiler counts them",
            frozenset({"flops"}),
        ),
        NetworkColumn(
            "latency_ms",
            lambda found: None if found.seconds is None else 1000 * found.seconds,
            "milliseconds of the mini-batch's forward pass, the median of five",
            frozenset({"latency"}),
        ),
        NetworkColumn(
            "peak_mb",
            lambda found: None if found.peak_bytes is None else found.peak_bytes / 1e6,
            "millions of bytes that the gradient of the mini-batch's loss takes at its peak",
            frozenset({"memory"}),
        ),
    )
}


def check_columns(what: str, names: Sequence[str]) -> tuple[str, ...]:
    """Checks names of columns.

    Args:
      what: the argument that holds them, for messages.
      names: the names.

    Returns:
      The names.

    Raises:
      InputError: one is unknown or there twice, or the argument is a single text.
    """
    if isinstance(names, str):
        raise InputError(f"{what}: found {names!r}, expected a list or tuple of names")
    for name in names:
        if name not in NETWORK_COLUMNS:
            known = ", ".join(NETWORK_COLUMNS)
            raise InputError(f"{what}: found {name!r}, expected one of {known}")
        if list(names).count(name) > 1:
            raise InputError(f"{what}: found {name!r} twice, expected each once")
    return tuple(names)


def check_objective(names: Sequence[str]) -> tuple[str, ...]:
    """Checks the columns of an objective, of which there must be at least one.

    Raises:
      InputError: there is none, or as `check_columns`.
    """
    aim = check_columns("objective", names)
    if not aim:
        raise InputError("objective: found no columns, expected at least one")
    return aim


def values_of(found: Found, names: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """The columns of a network by name, and notes about them.

    A column is NaN where a measurement that it needs is missing, and where it is infinite, as
    `nwot` is where two images open the same rectifiers.
    """
    values, notes = {}, list(found.notes)
    for name in names:
        value = NETWORK_COLUMNS[name].value(found)
        values[name] = np.nan if value is None else float(value)
        if np.isinf(values[name]):
            notes.append(f"{name}: {values[name]}")
            values[name] = np.nan
    return values, notes
