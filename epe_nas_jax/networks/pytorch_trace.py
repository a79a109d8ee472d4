"""What a PyTorch module does on its way from images to logits, call by call.

This module imports PyTorch; it is imported when a module of PyTorch's is measured.
"""

import contextlib
import inspect
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from epe_nas_jax.networks.blocks import Ends, Node, block_ends

_SUMS = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__"})
_RECTIFIERS = frozenset(
    {"relu", "relu6", "leaky_relu", "prelu", "rrelu", "gelu", "silu", "hardswish"}
    | {"elu", "celu", "selu", "relu_", "leaky_relu_", "elu_", "celu_", "selu_"}
)
# Functions that are rectifiers if their smallest output is zero, and the argument that sets it.
_LEAST = {
    **dict.fromkeys(("clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_"), "min"),
    **dict.fromkeys(("hardtanh", "hardtanh_"), "min_val"),
}
_DROPOUTS = frozenset(
    {"dropout", "dropout_", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"}
    | {"dropout1d", "dropout2d", "dropout3d"}
)
# The argument of attention that sets its rate of dropout, and its position in functions.
_SHARE = "dropout_p"
_SHARE_OF_BUILTIN = {"scaled_dot_product_attention": 4}


class WithoutDropout(TorchFunctionMode):
    """Turns dropout off in all functions that are called within the context, also attention."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Called by PyTorch instead of a function."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if _SHARE in kwargs:
            kwargs[_SHARE] = 0.0
        elif name in _SHARE_OF_BUILTIN and len(args) > _SHARE_OF_BUILTIN[name]:
            place = _SHARE_OF_BUILTIN[name]
            args = (*args[:place], 0.0, *args[place + 1 :])
        elif name == "multi_head_attention_forward":
            bound = inspect.signature(func).bind(*args, **kwargs)
            bound.arguments[_SHARE] = 0.0
            args, kwargs = bound.args, bound.kwargs
        return self.call(func, name, args, kwargs)

    def call(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Calls a function other than dropout."""
        del name
        return func(*args, **kwargs)


class Trace(WithoutDropout):
    """Records the calls of one forward pass, in which only the images require a gradient.

    Attributes:
      images: the edge of PyTorch's graph by which to differentiate by the images.
      ends: where the blocks end; None if it is not known.
      agreement: in how many rectifiers each pair of images agrees, int `[N, N]`; None without any.
      problem: why not all rectifiers are counted; empty if they are.
    """

    def __init__(self, images: torch.Tensor):
        """Starts from images `[N, C, H, W]`, which must not be a leaf."""
        super().__init__()
        self.images = get_gradient_edge(images)
        self.ends: Ends | None = None
        self.agreement: torch.Tensor | None = None
        self.problem = ""
        self._num_images = len(images)
        self._nodes: list[Node] = []
        self._shapes: dict[Any, tuple[int, ...]] = {self.images: _channels_last(images)}
        self._scope: list[str] = []

    @contextlib.contextmanager
    def recording(self, module: torch.nn.Module) -> Iterator[None]:
        """Records what a module does within the context."""
        calls: Counter[str] = Counter()
        handles = []
        for name, part in module.named_modules():

            def enter(_part: Any, _args: Any, name: str = name) -> None:
                calls[name] += 1
                self._scope.append(f"{name} {calls[name]}")

            def leave(_part: Any, _args: Any, _output: Any) -> None:
                self._scope.pop()

            handles.append(part.register_forward_pre_hook(enter))
            handles.append(part.register_forward_hook(leave))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def find_ends(self, logits: torch.Tensor) -> list[Any]:
        """Finds where the blocks end: first those whose entropy is measured, then the last one."""
        if logits.requires_grad:
            last = get_gradient_edge(logits)
            self.ends = block_ends(self._nodes, self.images, last, self._shapes)
        return [] if self.ends is None else [*self.ends.entropy, self.ends.size]

    def call(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Calls a function and records it; what it reads may be changed in place."""
        given = _differentiable((args, kwargs))
        read = [get_gradient_edge(tensor) for tensor in given]
        shapes = [tensor.shape for tensor in given]
        is_rectifier = bool(given) and _rectifies(name, args, kwargs)
        if is_rectifier:
            self._count(given[0])
        output = func(*args, **kwargs)
        made = {}
        for tensor in _differentiable(args[0] if name == "__setitem__" else output):
            edge = get_gradient_edge(tensor)
            if edge not in read:
                made[edge] = _channels_last(tensor)
        if read and made:
            is_sum = name in _SUMS and len(shapes) == 2 and shapes[0] == shapes[1]
            kind = "sum" if is_sum else "rectifier" if is_rectifier else ""
            self._shapes.update(made)
            self._nodes.append(Node(tuple(read), tuple(made), kind, tuple(self._scope)))
        return output

    def _count(self, x: torch.Tensor) -> None:
        """Counts in how many units of a rectifier's input each pair of images agrees."""
        if x.ndim < 2 or len(x) != self._num_images:
            shape = tuple(x.shape)
            self.problem = f"a rectifier reads {shape}, whose first axis is not the images"
            return
        signs = torch.where(x.detach().flatten(1) > 0, 1.0, -1.0)
        # Exact: sums of ones, of which float32 holds 2^24.
        agreement = (signs.shape[1] + (signs @ signs.T).round().long()) // 2
        self.agreement = agreement if self.agreement is None else self.agreement + agreement


def _differentiable(values: Any) -> list[torch.Tensor]:
    """The tensors among values that depend on the images."""
    leaves = pytree.tree_leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]


def _rectifies(name: str, args: tuple[Any, ...], kwargs: Any) -> bool:
    """Whether a call is that of a rectifier."""
    if name in _LEAST:
        low = kwargs.get(_LEAST[name], args[1] if len(args) > 1 else None)
        return isinstance(low, int | float) and low == 0
    return name in _RECTIFIERS


def _channels_last(tensor: torch.Tensor) -> tuple[int, ...]:
    """A tensor's shape, `[N, C, H, W]` as `[N, H, W, C]`."""
    shape = tuple(tensor.shape)
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape
