"""Measures PyTorch modules: they run in PyTorch, and the formulas of signals are the usual ones.

PyTorch is imported when a module of it is measured, never before. The module runs on copies of its
weights and buffers: its own ones, and PyTorch's random state, are not changed.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.memory import free_bytes
from epe_nas_jax.networks.fitting import check_fits
from epe_nas_jax.networks.found import (
    Found,
    Minibatch,
    Need,
    check_finite,
    median_seconds,
    with_jacobian,
)
from epe_nas_jax.networks.function import NO_BLOCKS
from epe_nas_jax.networks.heads import NEW_HEAD, drawn_head, is_zero_head
from epe_nas_jax.proxies.any_network import check_logits
from epe_nas_jax.spaces.layers.gradient_probes import channel_entropy, sum_of_squares

if TYPE_CHECKING:
    import torch

# Parts of the class names of layers that drop values at random, in PyTorch, torchvision and timm.
_DROPPING = ("Drop", "StochasticDepth")
NOT_FORESEEN = "the memory could not be checked beforehand: the network fails on few images"
# The memory for more images is extrapolated from that for these two numbers of images.
_FEW_IMAGES = (4, 8)


def measure(module: "torch.nn.Module", minibatch: Minibatch, needs: frozenset[Need]) -> Found:
    """Measures a PyTorch module in training mode, without dropout, on the device of its weights.

    Args:
      module: it takes images `[N, C, H, W]` and returns logits `[N, K]`.
      minibatch: the mini-batch.
      needs: what to measure.

    Raises:
      InputError: the logits are not one array `[N, K]`, or they or the Jacobian are not finite.
      DoesNotFitError: the memory that is needed is more than is free.
    """
    import torch

    copies = _Copies(module)
    copies.draw_zero_head(minibatch.num_classes)
    x = copies.images(minibatch.images)
    # The seed below is set for all devices.
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices), _in_training(module), torch.enable_grad():
        found = Found(minibatch, copies.num_params, notes=_notes(module, copies))
        if "memory" in needs:
            found = _check_fits(found, copies, x)
        torch.manual_seed(0)
        found = _with_jacobian(found, copies, x, needs)
        if needs & {"weight_gradient", "memory"}:
            found = _with_weight_gradient(found, copies, x, needs)
        with torch.no_grad():
            return _with_costs(found, copies, x, needs)


class _Copies:
    """A module that runs on copies of its weights and buffers, float16 ones in float32."""

    def __init__(self, module: "torch.nn.Module"):
        self.module = module
        self.weights = self._of_parts("_parameters")
        tensors = [*module.parameters(), *module.buffers()]
        self.is_reduced = any(_is_reduced(tensor) for tensor in tensors)
        self.device = tensors[0].device if tensors else "cpu"
        self.cuda = [self.device] if str(self.device).startswith("cuda") else []
        self.has_new_head = False

    @property
    def num_params(self) -> int:
        """How many weights there are; those that layers share count once."""
        return sum(weight.numel() for weight in self.different())

    def different(self) -> "list[torch.Tensor]":
        """The copies of weights; a weight that layers share occurs once."""
        return list({id(weight): weight for weight in self.weights.values()}.values())

    def trained(self) -> "list[torch.Tensor]":
        """The copies of weights that have a gradient; one that layers share occurs once."""
        return [weight for weight in self.different() if weight.is_floating_point()]

    @property
    def num_bytes(self) -> int:
        """How much memory the copies of weights take."""
        return sum(weight.nbytes for weight in self.different())

    def draw_zero_head(self, num_classes: int) -> None:
        """Draws the copy of the last layer's weights at random, if they are zeros."""
        import torch

        for path, part in self.module.named_modules():
            if isinstance(part, torch.nn.Linear | torch.nn.Conv2d):
                # None where it is computed from others, as by `torch.nn.utils.parametrizations`.
                weight = self.weights.get(f"{path}.weight" if path else "weight")
                if weight is not None and is_zero_head(_array(weight), num_classes, axis=0):
                    weight.copy_(torch.from_numpy(drawn_head(weight.shape, num_classes)))
                    self.has_new_head = True

    def images(self, images: np.ndarray) -> "torch.Tensor":
        """Images `[N, H, W, C]` as the module takes them, in the precision of its weights."""
        import torch

        is_double = any(weight.dtype == torch.float64 for weight in self.weights.values())
        turned = images.transpose(0, 3, 1, 2) if images.ndim == 4 else images
        dtype = torch.float64 if is_double else torch.float32
        return torch.tensor(turned, dtype=dtype, device=self.device)

    def __call__(self, x: "torch.Tensor") -> Any:
        return self.within(lambda: self.module(x))

    def within(self, work: Callable[[], Any]) -> Any:
        """Calls a function while the module uses the copies; a backward pass may call it again."""
        import torch

        class Working(torch.nn.Module):
            """A module for `functional_call`, whose forward pass is the work."""

            def __init__(self, module: torch.nn.Module):
                super().__init__()
                self.module = module

            def forward(self) -> Any:
                return work()

        tensors = {**self.weights, **self._of_parts("_buffers")}
        named = {f"module.{name}": tensor for name, tensor in tensors.items()}
        return torch.func.functional_call(Working(self.module), named, (), tie_weights=False)

    def _of_parts(self, kind: str) -> "dict[str, torch.Tensor]":
        """Copies of the tensors that each part holds itself, by name; shared ones are copied once.

        A part that occurs twice is taken once: `functional_call` would not restore a second one.
        """
        made: dict[int, torch.Tensor] = {}
        copies = {}
        for path, part in self.module.named_modules():
            for name, tensor in getattr(part, kind).items():
                if tensor is not None:
                    if id(tensor) not in made:
                        made[id(tensor)] = _copy(tensor)
                    copies[f"{path}.{name}" if path else name] = made[id(tensor)]
        return copies


def _with_jacobian(
    found: Found, copies: _Copies, x: "torch.Tensor", needs: frozenset[Need]
) -> Found:
    """Runs forward, and back to the images if that is needed, and adds what was recorded."""
    import torch

    from epe_nas_jax.networks.pytorch_trace import Trace, WithoutDropout

    # Not a leaf, because a module may change its images in place.
    x = x.clone().requires_grad_().clone()
    trace = Trace(x)

    def differentiate() -> tuple[Any, Any]:
        with trace.recording(copies.module):
            logits = copies.module(x)
        check_logits(_described(logits), len(x), found.minibatch.num_classes)
        check_finite("logits", _array(logits))
        ends = trace.find_ends(logits) if "probes" in needs else []
        # Without a path from the images to the logits, the Jacobian is zero.
        if not (needs & {"jacobian", "probes"} and logits.requires_grad):
            return None, [None] * len(ends)
        with WithoutDropout():
            jacobian, *gradients = torch.autograd.grad(
                logits.sum(), [trace.images, *ends], allow_unused=True
            )
        return jacobian, gradients

    jacobian, gradients = copies.within(differentiate)
    if "relus" in needs:
        found = _with_agreement(found, trace)
    if not needs & {"jacobian", "probes"}:
        return found
    found = with_jacobian(found, _array(torch.zeros_like(x) if jacobian is None else jacobian))
    if "probes" not in needs:
        return found
    if trace.ends is None:
        return found._replace(notes=(*found.notes, NO_BLOCKS))
    *entropies, size = [_channels_last(gradient) for gradient in gradients]
    entropy = sum(map(jax.jit(channel_entropy), entropies))
    return found._replace(entropy=entropy, size=sum_of_squares(size))


def _with_agreement(found: Found, trace: Any) -> Found:
    """Adds in how many rectifiers each pair of images agrees, or a note why it is not known."""
    problem = trace.problem or ("" if trace.agreement is not None else "found no rectifier")
    if problem:
        return found._replace(notes=(*found.notes, f"nwot: {problem}"))
    return found._replace(agreement=jnp.asarray(_array(trace.agreement), jnp.int32))


def _with_weight_gradient(
    found: Found, copies: _Copies, x: "torch.Tensor", needs: frozenset[Need]
) -> Found:
    """Adds the weights and the gradient of the loss by them, and the memory that this takes."""
    import torch

    from epe_nas_jax.networks.pytorch_memory import PeakMemory
    from epe_nas_jax.networks.pytorch_trace import WithoutDropout

    weights = copies.trained()
    labels = torch.tensor(found.minibatch.labels, dtype=torch.long, device=x.device)

    def differentiate() -> Any:
        loss = torch.nn.functional.cross_entropy(copies.module(x), labels)
        if not loss.requires_grad:
            return [None] * len(weights)
        return torch.autograd.grad(loss, weights, allow_unused=True)

    with _trainable(weights), PeakMemory() as memory, WithoutDropout():
        gradients = copies.within(differentiate)
    if "memory" in needs:
        found = found._replace(peak_bytes=memory.peak + copies.num_bytes + x.nbytes)
    if "weight_gradient" not in needs:
        return found
    # A weight that nothing reads has no gradient in PyTorch.
    arrays = [
        np.zeros(tuple(weight.shape)) if gradient is None else _array(gradient)
        for weight, gradient in zip(weights, gradients, strict=True)
    ]
    return found._replace(weights=list(map(_array, weights)), weight_gradient=arrays)


def _check_fits(found: Found, copies: _Copies, x: "torch.Tensor") -> Found:
    """Checks that there is memory for the gradient of the loss, by two passes over few images.

    Raises:
      DoesNotFitError: there is not enough.
    """
    few, more = _FEW_IMAGES
    # A network that fails on few images cannot be judged by them.
    try:
        if len(x) <= more:
            kept = _forward_bytes(copies, x.clone())
        else:
            taken = [_forward_bytes(copies, x[:number].clone()) for number in _FEW_IMAGES]
            kept = taken[0] + (taken[1] - taken[0]) * (len(x) - few) // (more - few)
    except Exception:
        return found._replace(notes=(*found.notes, NOT_FORESEEN))
    # Kept values are freed while gradients are made: as many bytes as weights are enough for these.
    check_fits(kept + copies.num_bytes, _free_bytes(copies))
    return found


def _forward_bytes(copies: _Copies, x: "torch.Tensor") -> int:
    """The most bytes of a forward pass that keeps all values for the gradient by the weights."""
    from epe_nas_jax.networks.pytorch_memory import PeakMemory
    from epe_nas_jax.networks.pytorch_trace import WithoutDropout

    with _trainable(copies.trained()), PeakMemory() as memory, WithoutDropout():
        copies(x)
    return memory.peak


def _free_bytes(copies: _Copies) -> int:
    """Bytes that are free on the device of the weights."""
    import torch

    if not copies.cuda:
        return free_bytes(jax.devices("cpu")[0])
    # Memory in PyTorch's cache is free, too.
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(copies.device)[0])


@contextlib.contextmanager
def _trainable(weights: "list[torch.Tensor]") -> Iterator[None]:
    """Makes weights require gradients within the context."""
    try:
        for weight in weights:
            weight.requires_grad_()
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(False)


def _with_costs(found: Found, copies: _Copies, x: "torch.Tensor", needs: frozenset[Need]) -> Found:
    """Adds FLOPs and the time of a forward pass."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if "flops" in needs:
        with FlopCounterMode(display=False) as counter:
            copies(x)
        found = found._replace(flops=counter.get_total_flops() / len(x))
    if "latency" in needs:

        def run() -> None:
            copies(x)
            for device in copies.cuda:
                torch.cuda.synchronize(device)

        found = found._replace(seconds=median_seconds(run))
    return found


@contextlib.contextmanager
def _in_training(module: "torch.nn.Module") -> Iterator[None]:
    """Sets every part of a module to training mode except dropout, and restores the modes."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        # Not by `train`, which modules override, to freeze a part of them for example.
        for part, _ in modes:
            part.training = not _is_dropping(part)
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _notes(module: "torch.nn.Module", copies: _Copies) -> tuple[str, ...]:
    dropping = {type(part).__name__ for part in module.modules() if _is_dropping(part)}
    notes = [f"off: {', '.join(sorted(dropping))}"] if dropping else []
    notes += ["float16 computed in float32"] if copies.is_reduced else []
    return (*notes, NEW_HEAD) if copies.has_new_head else tuple(notes)


def _is_dropping(part: "torch.nn.Module") -> bool:
    """Whether a part of a module drops values at random."""
    return any(word in type(part).__name__ for word in _DROPPING)


def _is_reduced(tensor: "torch.Tensor") -> bool:
    return tensor.is_floating_point() and tensor.element_size() < 4


def _copy(tensor: "torch.Tensor") -> "torch.Tensor":
    tensor = tensor.detach()
    return tensor.float() if _is_reduced(tensor) else tensor.clone()


def _array(tensor: "torch.Tensor") -> np.ndarray:
    """A tensor as a NumPy array; bfloat16, which NumPy lacks, becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if _is_reduced(tensor) else tensor).numpy()


def _channels_last(gradient: "torch.Tensor") -> jax.Array:
    """A gradient `[N, C, H, W]` as `[N, H, W, C]`; one of another rank is not changed."""
    array = jnp.asarray(_array(gradient))
    return jnp.moveaxis(array, 1, -1) if array.ndim == 4 else array


def _described(logits: Any) -> Any:
    """Shape and dtype of a tensor in JAX's types; anything else is not changed."""
    import torch

    if not isinstance(logits, torch.Tensor):
        return logits
    dtype = jnp.dtype(str(logits.dtype).removeprefix("torch."))
    return jax.eval_shape(lambda: jnp.zeros(tuple(logits.shape), dtype))
