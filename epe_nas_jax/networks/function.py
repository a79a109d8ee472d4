"""Measures networks of JAX, as functions of weights and images whose steps can be read."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.memory import free_bytes
from epe_nas_jax.networks import blocks, heads, jaxpr, rectifiers
from epe_nas_jax.networks.fitting import check_fits
from epe_nas_jax.networks.found import (
    Found,
    Minibatch,
    Need,
    check_finite,
    median_seconds,
    with_jacobian,
)
from epe_nas_jax.proxies.any_network import check_logits
from epe_nas_jax.proxies.jacobian import probed_jacobian
from epe_nas_jax.proxies.weight_gradients import cross_entropy
from epe_nas_jax.spaces.layers import gradient_probes
from epe_nas_jax.spaces.layers.gradient_probes import ENTROPY, PROBES, SIZE, with_probe
from epe_nas_jax.spaces.layers.relu_agreement import relu_agreement

# `deterministic` turns dropout off, and does not change batch norm.
_KEYWORDS = ("train", "training", "is_training", "deterministic")
NO_BLOCKS = "grad_entropy and grad_decay: found no two blocks or stages of images or tokens"


class Function(NamedTuple):
    """A network as a function.

    Attributes:
      apply: `(weights, state, images [N, ...]) -> logits [N, K]`, in training mode.
      weights: what is trained, a pytree.
      state: what else the function reads, a pytree.
      channels_first: whether it takes images `[N, C, H, W]`.
      notes: lines that a user should know about it.
    """

    apply: Callable[[Any, Any, jax.Array], jax.Array]
    weights: Any
    state: Any = None
    channels_first: bool = False
    notes: tuple[str, ...] = ()


def from_variables(network: Any) -> Function:
    """Turns a pair `(apply_fn, variables)` into a function.

    The weights are the collection `params` of Flax variables or, without one, all arrays of
    floating point.
    """
    apply_fn, variables = network
    is_flax = isinstance(variables, Mapping) and "params" in variables
    paths, tree = jax.tree.flatten_with_path(variables)
    is_weight = [
        jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        and (not is_flax or getattr(path[0], "key", None) == "params")
        for path, leaf in paths
    ]
    leaves = [leaf for _, leaf in paths]

    def apply(weights: list[jax.Array], state: list[jax.Array], images: jax.Array) -> jax.Array:
        rest = iter(weights), iter(state)
        leaves = [next(rest[not own]) for own in is_weight]
        return apply_fn(jax.tree.unflatten(tree, leaves), images)

    weights, state = (
        [leaf for leaf, own in zip(leaves, is_weight, strict=True) if own == wanted]
        for wanted in (True, False)
    )
    return Function(apply, weights, state)


def training_keywords(call: Callable[..., Any]) -> dict[str, bool]:
    """The keywords that make the call of a module run in training mode, without dropout."""
    names = inspect.signature(call).parameters
    return {name: True for name in _KEYWORDS if name in names}


def measure(network: Function, minibatch: Minibatch, needs: frozenset[Need]) -> Found:
    """Measures a network of JAX on a mini-batch.

    Args:
      network: the network.
      minibatch: the mini-batch.
      needs: what to measure.

    Raises:
      InputError: the logits are not one array `[N, K]`, or they or the Jacobian are not finite.
      DoesNotFitError: the memory that is needed is more than is free.
    """
    images, _, num_classes = minibatch
    network = _with_drawn_head(network, num_classes)
    if network.channels_first and images.ndim == 4:
        images = images.transpose(0, 3, 1, 2)
    arguments = jax.device_put((network.weights, network.state, images))
    logits = jax.eval_shape(network.apply, *arguments)
    check_logits(logits, len(images), num_classes)
    found = Found(minibatch, _count(network.weights), notes=network.notes)
    if needs & {"weight_gradient", "memory"}:
        found = _with_weight_gradient(found, network, arguments, needs)
    compiled = jax.jit(network.apply).lower(*arguments).compile()
    check_finite("logits", compiled(*arguments))
    if "flops" in needs:
        found = found._replace(flops=_flops(compiled, len(images)))
    if "latency" in needs:
        found = found._replace(seconds=median_seconds(functools.partial(compiled, *arguments)))
    if "relus" in needs:
        found = _with_agreement(found, network.apply, arguments)
    if needs & {"jacobian", "probes"}:
        found = _with_jacobian(found, network, arguments, with_probes="probes" in needs)
    return found


def _with_drawn_head(network: Function, num_classes: int) -> Function:
    """A network whose last layer, if it is zeros, is drawn at random."""
    leaves, tree = jax.tree.flatten(network.weights)
    # The axis of the outputs is the first in Equinox, and the last in Flax.
    axis = 0 if network.channels_first else -1
    is_zero = [heads.is_zero_head(leaf, num_classes, axis=axis) for leaf in leaves]
    if not any(is_zero):
        return network
    weights = [
        jnp.asarray(heads.drawn_head(leaf.shape, num_classes), leaf.dtype) if zero else leaf
        for leaf, zero in zip(leaves, is_zero, strict=True)
    ]
    notes = (*network.notes, heads.NEW_HEAD)
    return network._replace(weights=jax.tree.unflatten(tree, weights), notes=notes)


def _with_agreement(found: Found, apply: Callable[..., Any], arguments: Any) -> Found:
    """Counts in how many rectifiers each pair of images agrees."""
    opens = rectifiers.opens
    program = jaxpr.trace(apply, *arguments, opens=opens, opens_rules=True)
    read = rectifiers.find_rectifiers(program, program.inputs[-1])
    if read.problem:
        return found._replace(notes=(*found.notes, f"nwot: {read.problem}"))

    @jax.jit
    def count(leaves: list[jax.Array]) -> jax.Array:
        seen: dict[int, jax.Array] = dict(zip(program.inputs, leaves, strict=True))

        def watch(number: int, value: jax.Array) -> jax.Array:
            if number in read.inputs:
                seen[number] = value
            return value

        jaxpr.evaluate(program, leaves, watch)
        counts = {value: relu_agreement(seen[value]) for value in set(read.inputs)}
        return functools.reduce(jnp.add, [counts[value] for value in read.inputs])

    return found._replace(agreement=count(jax.tree.leaves(arguments)))


def _with_jacobian(found: Found, network: Function, arguments: Any, *, with_probes: bool) -> Found:
    """Differentiates by the images, with probes at the ends of blocks if they are asked for."""
    images = arguments[-1]
    program = jaxpr.trace(network.apply, *arguments, opens=rectifiers.opens, opens_rules=False)
    ends = _ends(program, network.channels_first) if with_probes else None
    if with_probes and ends is None:
        found = found._replace(notes=(*found.notes, NO_BLOCKS))
    axis = 1 if network.channels_first else -1

    @jax.jit
    def differentiate(arguments: Any, scalars: Any) -> Any:
        def run(scalars: Mapping[str, jax.Array], images: jax.Array) -> tuple[jax.Array, None]:
            def watch(number: int, value: jax.Array) -> jax.Array:
                if ends and number in ends.entropy:
                    value = _probed(ENTROPY, value, scalars, axis)
                return (
                    _probed(SIZE, value, scalars, axis) if ends and number == ends.size else value
                )

            leaves = jax.tree.leaves((*arguments[:2], images))
            return jaxpr.evaluate(program, leaves, watch), None

        return probed_jacobian(run, scalars, arguments[-1])[:2]

    jacobian, probes = differentiate(arguments, gradient_probes.scalars(images.dtype))
    found = with_jacobian(found, jacobian)
    return found if ends is None else found._replace(entropy=probes[ENTROPY], size=probes[SIZE])


def _probed(name: str, value: jax.Array, scalars: Mapping[str, jax.Array], axis: int) -> jax.Array:
    """A value with a probe of its gradient; where it has four axes, `axis` is that of channels."""
    if value.ndim != 4 or axis == -1:
        return with_probe(PROBES[name])(value, scalars[name])
    turned = with_probe(PROBES[name])(jnp.moveaxis(value, axis, -1), scalars[name])
    return jnp.moveaxis(turned, -1, axis)


def _ends(program: jaxpr.Program, channels_first: bool) -> blocks.Ends | None:
    """The ends of the blocks of a program."""
    if not isinstance(program.output, int):
        return None
    images = program.inputs[-1]
    dependent = program.dependents(images)
    terms = dependent | program.zeros() | _made_alike(program)

    def kind(step: jaxpr.Step) -> str:
        if (step.call or "") in rectifiers.RECTIFIERS:
            return "rectifier"
        is_sum = step.name in ("add", "add_any") and len(step.values) == 2
        return "sum" if is_sum and terms.issuperset(step.values) else ""

    def shape(number: int) -> tuple[int, ...]:
        shape = program.avals[number].shape
        is_turned = channels_first and len(shape) == 4
        return (shape[0], *shape[2:], shape[1]) if is_turned else shape

    nodes = [
        blocks.Node(
            tuple(value for value in step.values if value in dependent),
            step.outputs,
            kind(step),
            step.scope,
        )
        for step in program.steps
    ]
    shapes = {number: shape(number) for number in dependent}
    return blocks.block_ends(nodes, images, program.output, shapes)


def _made_alike(program: jaxpr.Program) -> set[int]:
    """Values with an entry per image that depend on no image, such as a convolution of zeros.

    Weights that are broadcast over the images are not among them.
    """
    shape = program.avals[program.inputs[-1]].shape
    return {
        number
        for step in program.steps
        if step.name != "broadcast_in_dim"
        for number in step.outputs
        if len(shape) == len(program.avals[number].shape) > 2
        and program.avals[number].shape[0] == shape[0]
    }


def _with_weight_gradient(
    found: Found, network: Function, arguments: Any, needs: frozenset[Need]
) -> Found:
    """Adds the weights and the gradient of the loss by them, and the memory that this takes."""

    def loss(weights: Any, state: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        return cross_entropy(network.apply(weights, state, images), labels)

    labels = jnp.asarray(found.minibatch.labels, jnp.int32)
    gradient = jax.jit(jax.grad(loss)).lower(*arguments, labels).compile()
    if "memory" in needs and (account := gradient.memory_analysis()) is not None:
        # Weights and images are in memory already.
        needed = account.output_size_in_bytes + account.temp_size_in_bytes
        check_fits(needed, free_bytes(labels.device))
        found = found._replace(peak_bytes=needed + account.argument_size_in_bytes)
    if "weight_gradient" not in needs:
        return found
    leaves = jax.tree.leaves(gradient(*arguments, labels))
    return found._replace(weights=jax.tree.leaves(network.weights), weight_gradient=leaves)


def _flops(compiled: Any, num_images: int) -> float:
    """FLOPs of an image, as the compiler counts them; NaN where it does not say."""
    analysis = compiled.cost_analysis() or {}
    return float(analysis.get("flops", np.nan)) / num_images


def _count(weights: Any) -> int:
    return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(weights))
