"""PyTorch's side: the network of a cell, its logits and input Jacobian, weights from a file.

The network is NAS-Bench-201's `TinyNetwork`, from the package xautodl or from a checkout of the
released EPE-NAS code. PyTorch is imported when a function needs it, never before, and no function
touches JAX, so that this module can run in a process of its own.
"""

import contextlib
import copy
import importlib
import pickle
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from epe_nas_jax.data.files import regular_file, user_path
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.nasbench201.cost import Sizes
from epe_nas_jax.spaces.nasbench201.genotype import format_arch

if TYPE_CHECKING:
    import torch

LOG_OFFSET = 1e-5
INSTALL_TORCH = "pip install torch"
INSTALL_XAUTODL = "pip install --no-deps xautodl==1.0.0"


class TorchRun(NamedTuple):
    """The results of one forward and backward pass.

    Attributes:
      logits: `[N, K]`.
      jacobian: input Jacobian in our order of pixels, `[N, D]`.
      seconds: the time of the two passes alone.
    """

    logits: np.ndarray
    jacobian: np.ndarray
    seconds: float


def check_pytorch(device: str, checkout: str = "") -> int:
    """Checks that PyTorch's side can run.

    Args:
      device: PyTorch's name of the device.
      checkout: as in `build_network`.

    Returns:
      The number of threads with which it computes on a CPU.

    Raises:
      InputError: PyTorch, the network or the device is missing.
    """
    torch = _import_torch()
    _network_classes(checkout)
    if device != "cpu" and not torch.cuda.is_available():
        raise InputError(
            f"PyTorch: found no device {device!r}, expected the one JAX runs on "
            "(install PyTorch for it, or set JAX_PLATFORMS=cpu)"
        )
    return int(torch.get_num_threads())


def build_network(genotype: Iterable[int], sizes: Sizes, *, checkout: str = "") -> Any:
    """The network of a cell in training mode, with PyTorch's own fresh weights.

    Args:
      genotype: the cell, int `[E]`.
      sizes: channels, cells in a stage and classes.
      checkout: a folder with the released EPE-NAS code, whose `models` package is imported (and so
        executed); by default xautodl's network.

    Returns:
      A `TinyNetwork`, float32, on the CPU.

    Raises:
      InputError: PyTorch, xautodl or the checkout's network cannot be imported.
    """
    _import_torch()
    network_class, structure_class = _network_classes(checkout)
    structure = structure_class.str2structure(format_arch(np.array(genotype)))
    network = network_class(sizes.channels, sizes.cells_per_stage, structure, sizes.num_classes)
    return network.train()


def run(
    network: Any,
    images: np.ndarray,
    *,
    at_its_best: bool = False,
    compiled: bool = False,
    tensorfloat32: bool = False,
) -> TorchRun:
    """Runs a network forward and backward on a mini-batch.

    Args:
      network: as `build_network` makes it, on any device, in the images' dtype.
      images: the mini-batch, float `[N, H, H, 3]`.
      at_its_best: compute the gradient of the input only, in the memory format that suits PyTorch
        (channels last), with its fastest algorithms; by default all gradients, as the released
        code does.
      compiled: use `torch.compile`, which runs the passes once more beforehand.
      tensorfloat32: let a GPU round the factors of products to TensorFloat-32.

    Raises:
      InputError: the network's second output, which the released code takes, is not the logits.
    """
    torch = _import_torch()
    memory_format = torch.channels_last if at_its_best else torch.contiguous_format
    if at_its_best:
        network = copy.deepcopy(network).to(memory_format=memory_format).requires_grad_(False)
    device = network.classifier.weight.device
    expected = (len(images), network.classifier.out_features)
    x = torch.tensor(images.transpose(0, 3, 1, 2), device=device)
    x = x.contiguous(memory_format=memory_format).requires_grad_(True)
    network.zero_grad()
    if compiled:
        # Otherwise PyTorch compiles no more networks after some of them.
        torch.compiler.reset()
        network = torch.compile(network)
    with _algorithms(torch, fastest=at_its_best, tensorfloat32=tensorfloat32):
        if compiled:
            _pass(network, x)
            x.grad = None
        _wait(torch, device)
        start = time.perf_counter()
        logits = _pass(network, x)
        _wait(torch, device)
        seconds = time.perf_counter() - start
    if tuple(logits.shape) != expected:
        raise InputError(
            f"TinyNetwork's second output: found shape {tuple(logits.shape)}, "
            f"expected logits of shape {expected}"
        )
    jacobian = x.grad.cpu().numpy().transpose(0, 2, 3, 1).reshape(len(images), -1)
    return TorchRun(logits.detach().cpu().numpy(), jacobian, seconds)


def _pass(network: Any, x: "torch.Tensor") -> "torch.Tensor":
    """Runs a forward and a backward pass, and returns the logits."""
    _, logits = network(x)
    logits.backward(logits.new_ones(logits.shape))
    return logits


def run_cell(
    genotype: Iterable[int],
    images: np.ndarray,
    *,
    sizes: Sizes,
    state_dict: Mapping[str, np.ndarray] | None = None,
    device: str = "cpu",
    checkout: str = "",
    **how: bool,
) -> TorchRun:
    """Builds a cell's network and runs it; for a process of its own.

    Args:
      genotype: the cell, int `[E]`.
      images: the mini-batch, float `[N, H, H, 3]`.
      sizes: as in `build_network`.
      state_dict: the weights; by default PyTorch's own fresh ones.
      device: PyTorch's name of the device.
      checkout: as in `build_network`.
      **how: keywords of `run`.

    Raises:
      InputError: as `build_network` and `run`.
    """
    torch = _import_torch()
    network = build_network(genotype, sizes, checkout=checkout)
    network = network.to(device, getattr(torch, images.dtype.name))
    if state_dict is not None:
        network.load_state_dict({name: torch.tensor(value) for name, value in state_dict.items()})
    return run(network, images, **how)


def released_score(jacobian: np.ndarray, labels: np.ndarray) -> float:
    """The score as the released code computes it: class by class, by `numpy.corrcoef` in float64.

    Args:
      jacobian: input Jacobian, `[N, D]`.
      labels: classes, int `[N]`.

    Returns:
      The score; NaN if the Jacobian of an image has no variance.

    Examples:
      >>> from epe_nas_jax.pytorch.network import released_score
      >>> jacobian = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
      >>> round(released_score(jacobian, np.array([0, 1])), 7)
      2e-05
    """
    score = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        for label in np.unique(labels):
            correlation = np.corrcoef(jacobian[labels == label])
            score += float(np.abs(np.sum(np.log(np.abs(correlation) + LOG_OFFSET))))
    return score


def read_state_dict(path: str) -> dict[str, np.ndarray]:
    """Reads weights from a file that `torch.save(network.state_dict(), path)` wrote.

    Only tensors and plain containers are unpickled (`torch.load(..., weights_only=True)`): a file
    that could run code is refused.

    Returns:
      Arrays by name.

    Raises:
      InputError: the file is missing, truncated, not of PyTorch, could run code, or holds something
        else than tensors by name.
    """
    torch = _import_torch()
    file = regular_file(path, "PyTorch weights")
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: not a file of weights alone, expected a state dict that torch.save wrote "
            "(nothing else is unpickled)"
        ) from None
    except Exception as error:  # torch.load can raise any exception on a damaged file.
        reason = _first_line(error)
        raise InputError(f"{path}: not a readable file of PyTorch weights ({reason})") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: found {type(content).__name__}, expected tensors by name")
    arrays = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(
                f"{path}, entry {name!r}: found {type(value).__name__}, expected a tensor by name"
            )
        try:
            arrays[name] = _to_numpy(torch, value)
        except (RuntimeError, TypeError) as error:  # It is sparse, of float8, on no device, ...
            raise InputError(
                f"{path}, entry {name!r}: found a tensor that is no array ({_first_line(error)})"
            ) from None
    return arrays


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _to_numpy(torch: Any, value: "torch.Tensor") -> np.ndarray:
    # NumPy has no bfloat16.
    value = value.detach()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _import_torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError:
        raise InputError(f"PyTorch: not installed, expected it here: {INSTALL_TORCH}") from None


def _network_classes(checkout: str) -> tuple[Any, Any]:
    """The classes `TinyNetwork` and `Structure`."""
    package = "xautodl.models"
    if checkout:
        package = "models"
        checkout = str(user_path(checkout))
        if not (Path(checkout) / "models").is_dir():
            raise InputError(
                f"{checkout}: found no folder 'models', expected a checkout of the released code"
            )
        if checkout not in sys.path:
            sys.path.insert(0, checkout)
    try:
        cells = importlib.import_module(f"{package}.cell_infers")
        genotypes = importlib.import_module(f"{package}.cell_searchs.genotypes")
        return cells.TinyNetwork, genotypes.Structure
    # The code of a checkout can raise any exception.
    except Exception as error:
        if checkout:
            raise InputError(f"{checkout}: cannot import its network ({error})") from None
        raise InputError(
            f"xautodl: cannot import it ({error}), expected it here: {INSTALL_XAUTODL}"
        ) from None


def _algorithms(
    torch: Any, *, fastest: bool, tensorfloat32: bool
) -> contextlib.AbstractContextManager[Any]:
    """How cuDNN chooses algorithms; the released code asks for deterministic, untimed ones."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=fastest, deterministic=not fastest, allow_tf32=tensorfloat32
    )


def _wait(torch: Any, device: Any) -> None:
    if device.type != "cpu":
        torch.cuda.synchronize(device)
