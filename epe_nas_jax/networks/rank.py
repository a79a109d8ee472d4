"""Ranks networks of any framework: a table of their signals, costs, scores and ranks."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any

import jax
import numpy as np
import pandas as pd

from epe_nas_jax.arrays import as_array, in_float32
from epe_nas_jax.errors import InputError, type_of
from epe_nas_jax.memory import release
from epe_nas_jax.networks.adapters import adapter_of
from epe_nas_jax.networks.columns import (
    NETWORK_COLUMNS,
    NETWORK_RANKING,
    check_columns,
    check_objective,
    values_of,
)
from epe_nas_jax.networks.fitting import half, is_about_memory
from epe_nas_jax.networks.found import Minibatch
from epe_nas_jax.proxies.any_network import check_float_images
from epe_nas_jax.search.ranking import log_rank_sum
from epe_nas_jax.spaces.layers.checks import check_channels_last, check_labels


def rank_networks(
    networks: Mapping[str, Any] | Iterable[tuple[str, Any]],
    images: Any,
    labels: Any,
    num_classes: int,
    *,
    columns: Sequence[str] = tuple(NETWORK_COLUMNS),
    objective: Sequence[str] = NETWORK_RANKING,
    smaller_batches: bool = False,
) -> pd.DataFrame:
    """Ranks untrained networks, of any frameworks, by the recommended signal.

    Args:
      networks: networks by name, or pairs of name and network, which are read one at a time.
        docs/any-network.md says what a network may be; a function without arguments that returns
        one is called when its turn comes.
      images: the mini-batch, normalised, `[N, H, W, C]` or other, an array of any library; networks
        of a framework with channels first get them in that order. float16 and bfloat16 become
        float32.
      labels: its classes 0..K-1, int `[N]`, an array of any library.
      num_classes: K.
      columns: what to compute, names of `NETWORK_COLUMNS`; by default all. Columns of the objective
        are always included.
      objective: names of `NETWORK_COLUMNS`, larger being better, whose ranks among these networks
        are added up (`log_rank_sum`); a single column is the score itself.
      smaller_batches: whether to measure a network that needs more memory than is free on half of
        the images, a quarter and so on, which changes its signals and is said in its note. By
        default it gets a row with its error. With the column `peak_mb` the memory is checked
        beforehand.

    Returns:
      A table with one row per network, in their order, with `network`, `score` (larger is better),
      `rank` (1 is the best, missing without a score), the columns, `note` (why a column is NaN,
      what was turned off) and `error` (missing, or why the network could not be measured; then the
      rest is NaN).

    Raises:
      InputError: images, labels, names or columns cannot be used. A network that cannot be measured
        raises nothing.

    Examples:
      >>> from epe_nas_jax import rank_networks
      >>> def apply_fn(weights, images):
      ...     return jax.nn.relu(images.reshape(len(images), -1) @ weights[0]) @ weights[1]
      >>> rng = np.random.default_rng(0)
      >>> sizes = {"narrow": 16, "wide": 256}
      >>> networks = {
      ...     name: (apply_fn, [rng.normal(size=(192, size)), rng.normal(size=(size, 3))])
      ...     for name, size in sizes.items()
      ... }
      >>> table = rank_networks(networks, images, labels, 3, columns=["params"])
      >>> table.sort_values("rank")["network"].tolist()
      ['wide', 'narrow']
    """
    aim = check_objective(objective)
    names = tuple(dict.fromkeys((*aim, *check_columns("columns", columns))))
    names = tuple(name for name in NETWORK_COLUMNS if name in names)
    minibatch = make_minibatch(images, labels, num_classes)
    rows = [
        network_row(name, network, minibatch, names, smaller_batches=smaller_batches)
        for name, network in networks_by_name(networks)
    ]
    return ranking_table(rows, aim)


def ranking_table(rows: Iterable[dict[str, Any]], objective: Sequence[str]) -> pd.DataFrame:
    """The table that `rank_networks` returns, from rows of `network_row`, in their order.

    Raises:
      InputError: there are none.
    """
    table, aim = pd.DataFrame(list(rows)), list(objective)
    if table.empty:
        raise InputError("networks: found none, expected at least one")
    values = table[aim].to_numpy(np.float64)
    table.insert(1, "score", log_rank_sum(values) if len(aim) > 1 else values[:, 0])
    rank = table["score"].rank(method="min", ascending=False).astype("Int64")
    table.insert(2, "rank", rank)
    return table


def make_minibatch(images: Any, labels: Any, num_classes: int) -> Minibatch:
    """Checks images and labels, as `rank_networks` takes them, and makes a mini-batch of them.

    Raises:
      InputError: they cannot be used.
    """
    images, labels = in_float32(as_array(images, "images")), as_array(labels, "labels")
    check_float_images(images)
    if images.ndim == 4:
        check_channels_last(images.shape, "images")
    if isinstance(num_classes, bool) or not isinstance(num_classes, int | np.integer):
        raise InputError(f"number of classes: found {type_of(num_classes)}, expected an integer")
    check_labels(images, labels, int(num_classes))
    return Minibatch(np.asarray(images), np.asarray(labels, np.int32), int(num_classes))


def network_row(
    name: str,
    network: Any,
    minibatch: Minibatch,
    columns: Sequence[str],
    *,
    smaller_batches: bool = False,
) -> dict[str, Any]:
    """Measures one network.

    Args:
      name: its name.
      network: as in `rank_networks`.
      minibatch: as `make_minibatch` makes it.
      columns: names of `NETWORK_COLUMNS`.
      smaller_batches: as in `rank_networks`.

    Returns:
      `network`, the columns, `note` and `error`, as in `rank_networks`.
    """
    row = {"network": name, **dict.fromkeys(columns, np.nan), "note": "", "error": None}
    batch: Minibatch | None = minibatch
    while batch is not None:
        # A network is code of the user, which can raise any exception.
        try:
            values, notes = _measured(network, batch, columns)
        except Exception as problem:
            row["error"] = _error_of(name, problem)
            batch = half(batch) if smaller_batches and is_about_memory(problem) else None
        else:
            if batch is not minibatch:
                said = f"measured on {len(batch.images)} of {len(minibatch.images)} images"
                notes = [f"{said}, for lack of memory", *notes]
            return {**row, **values, "note": "; ".join(notes), "error": None}
    return row


def _error_of(name: str, problem: Exception) -> str:
    """One line that says what went wrong with a network."""
    kind = "" if isinstance(problem, InputError) else f"{type(problem).__name__}: "
    return str(InputError(f"network {name!r}: {kind}{problem}"))


def _measured(
    network: Any, minibatch: Minibatch, columns: Sequence[str]
) -> tuple[dict[str, float], list[str]]:
    """The columns of a network by name, and notes about them."""
    # Frees the memory of the network before this one.
    release()
    if isinstance(network, FunctionType | functools.partial) and _takes_nothing(network):
        network = network()
    needs = frozenset().union(*(NETWORK_COLUMNS[column].needs for column in columns))
    # NaN is a valid result here.
    with jax.debug_nans(False):
        return values_of(adapter_of(network).measure(network, minibatch, needs), columns)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    """Whether a function can be called without arguments."""
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    return True


def networks_by_name(networks: Any) -> Iterator[tuple[str, Any]]:
    """Names and networks, one after the other, as `rank_networks` takes them.

    Raises:
      InputError: an item is no pair of name and network, or its name was there before.
    """
    if not isinstance(networks, Iterable) or isinstance(networks, str):
        raise InputError(f"networks: found {type_of(networks)}, expected networks by name")
    seen = set()
    for pair in networks.items() if isinstance(networks, Mapping) else networks:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise InputError(f"networks: found {type_of(pair)}, expected pairs of name and network")
        if pair[0] in seen:
            raise InputError(f"networks: found the name {pair[0]!r} twice, expected each once")
        seen.add(pair[0])
        yield pair
