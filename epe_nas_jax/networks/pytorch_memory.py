"""How much memory PyTorch's tensors take while code runs.

This module imports PyTorch; it is imported when a module of PyTorch's is measured.
"""

import weakref
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that operations make within the context, also backward.

    Memory that an operation allocates and frees while it runs is not counted.

    Attributes:
      peak: the largest number of bytes at any time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        # The ids of the storages that are counted now.
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Called by PyTorch instead of an operation."""
        for storage in _storages((args, kwargs)):
            self._add(storage, num_bytes=0)
        output = func(*args, **(kwargs or {}))
        for storage in _storages(output):
            self._add(storage, storage.nbytes())
        return output

    def _add(self, storage: torch.UntypedStorage, num_bytes: int) -> None:
        """Counts the bytes of a new storage until nothing holds it any more."""
        if id(storage) in self._known:
            return
        self._known.add(id(storage))
        weakref.finalize(storage, self._remove, id(storage), num_bytes)
        self._now += num_bytes
        self.peak = max(self.peak, self._now)

    def _remove(self, identity: int, num_bytes: int) -> None:
        self._known.discard(identity)
        self._now -= num_bytes


def _storages(values: Any) -> list[torch.UntypedStorage]:
    """The storages of the tensors among values."""
    leaves = pytree.tree_leaves(values)
    return [leaf.untyped_storage() for leaf in leaves if isinstance(leaf, torch.Tensor)]
