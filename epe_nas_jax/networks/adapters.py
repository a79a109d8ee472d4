"""The table of frameworks: to add one is a function and an entry here.

A framework is recognised by the class that its modules are made from, so that none is imported for
a network of another one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from epe_nas_jax.errors import InputError, type_of
from epe_nas_jax.networks import equinox, function, linen, nnx, pytorch
from epe_nas_jax.networks.found import Found, Minibatch, Need

Measure = Callable[[Any, Minibatch, frozenset[Need]], Found]


class Adapter(NamedTuple):
    """One framework.

    Attributes:
      name: what a network of this framework is, for messages.
      package: the package of its class `Module`.
      is_pair: whether a network is a pair of a module and something else; None: both are possible.
      measure: from a network, a mini-batch and needs to what is measured.
    """

    name: str
    package: str
    is_pair: bool | None
    measure: Measure


def _by_function(as_function: Callable[[Any], function.Function]) -> Measure:
    """Makes a `Measure` for networks that can be turned into a function of JAX."""

    def measure(network: Any, minibatch: Minibatch, needs: frozenset[Need]) -> Found:
        return function.measure(as_function(network), minibatch, needs)

    return measure


ADAPTERS = (
    Adapter("(Flax Linen module, variables)", "flax.linen", True, _by_function(linen.as_function)),
    Adapter("Flax NNX module", "flax.nnx", False, _by_function(nnx.as_function)),
    Adapter("PyTorch module", "torch.nn", False, pytorch.measure),
    Adapter(
        "Equinox module or (module, state)", "equinox", None, _by_function(equinox.as_function)
    ),
)
_FUNCTION = Adapter("(apply_fn, variables)", "", True, _by_function(function.from_variables))


def adapter_of(network: Any) -> Adapter:
    """Finds the framework of a network.

    Raises:
      InputError: the framework is unknown, or its networks must be given in another form.
    """
    is_pair = isinstance(network, tuple) and len(network) == 2
    module = network[0] if is_pair else network
    for adapter in ADAPTERS:
        if _is_made_from(module, adapter.package):
            if adapter.is_pair in (None, is_pair):
                return adapter
            raise InputError(f"found {type_of(module)}, expected {adapter.name}")
    if is_pair and callable(module):
        return _FUNCTION
    known = ", ".join(adapter.name for adapter in (_FUNCTION, *ADAPTERS))
    raise InputError(f"found an object of type {type(network).__name__}, expected one of: {known}")


def _is_made_from(module: Any, package: str) -> bool:
    """Whether an object is of a class that comes from a package's class `Module`."""
    return any(
        kind.__name__ == "Module" and f"{kind.__module__}.".startswith(f"{package}.")
        for kind in type(module).__mro__
    )
