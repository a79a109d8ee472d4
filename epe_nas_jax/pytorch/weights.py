"""Converts weights of a cell's network between PyTorch and Flax, exactly and by NumPy alone.

PyTorch's side is the `state_dict` of NAS-Bench-201's `TinyNetwork` (the package xautodl, and the
released EPE-NAS code), a mapping from names to arrays; ours the variables of `NasBench201Network`.

From PyTorch to Flax, batch norm's running statistics are dropped, because an untrained network is
scored with the statistics of the mini-batch. From Flax to PyTorch they are those of a trained
network, or what PyTorch starts with (mean 0, variance 1); the counter of batches, which is not used
with a fixed momentum, is 0.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from epe_nas_jax.arrays import as_array
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.nasbench201.cost import NUM_STAGES, Sizes
from epe_nas_jax.spaces.nasbench201.genotype import (
    KERNEL_SIZES,
    OPERATIONS,
    check_genotypes,
    format_arch,
)

_REDUCTION = re.compile(r"cells\.(\d+)\.conv_a\.op\.1\.weight")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

# Our axes by number of PyTorch's axis: [out, in, h, w] to [h, w, in, out], [out, in] to [in, out].
_AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


class _Entry(NamedTuple):
    """One array: its name and shape in PyTorch, its path in our tree."""

    name: str
    shape: tuple[int, ...]
    path: tuple[str, ...]


def sizes_of(state_dict: Mapping[str, Any]) -> Sizes:
    """Reads the sizes of a network from its state dict.

    Raises:
      InputError: an entry from which a size is read is missing or has the wrong rank.
    """
    channels = _shape(state_dict, "stem.0.weight", 4)[0]
    num_classes = _shape(state_dict, "classifier.weight", 2)[0]
    # A cell may have no weights, but the first reduction block follows the first stage.
    blocks = [int(found[1]) for found in map(_REDUCTION.fullmatch, state_dict) if found]
    if not blocks:
        raise InputError(
            "weights, array 'cells.*.conv_a.op.1.weight': found none, expected a reduction block's"
        )
    return Sizes(channels, min(blocks), num_classes)


def from_state_dict(
    state_dict: Mapping[str, Any], genotype: Iterable[int], *, every_operation: bool = False
) -> dict[str, Any]:
    """Converts PyTorch's weights of a cell's network to ours.

    Args:
      state_dict: arrays by name, such as `TinyNetwork.state_dict()`; tensors must be on the CPU.
      genotype: the cell, int `[E]`.
      every_operation: add zeros for the candidates that the cell does not use, so that the
        variables can be applied with a traced genotype.

    Returns:
      Variables for `NasBench201Network(num_classes, channels, cells_per_stage)` of the same sizes,
      which are copies of the same dtypes. Batch norm's running statistics are dropped.

    Raises:
      InputError: an entry is missing, unexpected, of another shape or not floating point.

    Examples:
      >>> from epe_nas_jax import from_state_dict, to_state_dict
      >>> cell = (1, 0, 0, 3, 0, 0)
      >>> variables = network.init(jax.random.key(0), jnp.asarray(images), cell)
      >>> state_dict = to_state_dict(variables, cell, cells_per_stage=1)
      >>> list(from_state_dict(state_dict, cell))
      ['params']
    """
    cell = check_genotypes(np.asarray(genotype)[None])[0]
    sizes = sizes_of(state_dict)
    entries = _entries(cell, sizes)
    arch = format_arch(cell)

    expected = {entry.name for entry in entries}
    dropped = {f"{norm}.{name}" for norm in _norms(entries) for name in _STATISTICS}
    for name, value in state_dict.items():
        if name not in expected and name not in dropped:
            raise InputError(
                f"state dict, entry {name!r}: found one of shape {np.shape(value)}, "
                f"expected none for the cell {arch}"
            )
    params: dict[str, Any] = {}
    for entry in entries:
        if entry.name not in state_dict:
            raise InputError(
                f"state dict, entry {entry.name!r}: found none, "
                f"expected shape {entry.shape} for the cell {arch}"
            )
        value = np.array(as_array(state_dict[entry.name], f"state dict, entry {entry.name!r}"))
        _check(f"state dict, entry {entry.name!r}", value, entry.shape)
        _insert(params, entry.path, value.transpose(_AXES[value.ndim]))
    if every_operation:
        dtype = params["stem"]["conv_bn"]["kernel"].dtype
        for entry in _unused_candidates(cell, sizes):
            shape = tuple(entry.shape[axis] for axis in _AXES[len(entry.shape)])
            _insert(params, entry.path, np.zeros(shape, dtype))
    return {"params": params}


def to_state_dict(
    variables: Mapping[str, Any], genotype: Iterable[int], *, cells_per_stage: int = 5
) -> dict[str, np.ndarray]:
    """Converts our weights of a cell's network to PyTorch's.

    Args:
      variables: as `NasBench201Network.init` makes them, for the static genotype or for a traced
        one; weights of candidates that the cell does not use are left out.
      genotype: the cell, int `[E]`.
      cells_per_stage: of the network; the variables do not tell it where a cell has no weights.

    Returns:
      What `TinyNetwork.load_state_dict` takes, as NumPy arrays (copies of the same dtypes); batch
      norm's running statistics are the variables' or, without any, those of a new network.

    Raises:
      InputError: an array is missing, unexpected, of another shape or not floating point.

    Examples:
      >>> from epe_nas_jax import to_state_dict
      >>> cell = (1, 0, 0, 3, 0, 0)
      >>> variables = network.init(jax.random.key(0), jnp.asarray(images), cell)
      >>> to_state_dict(variables, cell, cells_per_stage=1)["stem.0.weight"].shape
      (4, 3, 3, 3)
    """
    cell = check_genotypes(np.asarray(genotype)[None])[0]
    arrays = dict(_walk(variables.get("params", {})))
    channels = _shape(arrays, "stem/conv_bn/kernel", 4)[3]
    num_classes = _shape(arrays, "head/classifier_kernel", 2)[1]
    sizes = Sizes(channels, cells_per_stage, num_classes)
    entries = _entries(cell, sizes)

    paths = {"/".join(entry.path) for entry in [*entries, *_unused_candidates(cell, sizes)]}
    for path, value in arrays.items():
        if path not in paths:
            raise InputError(
                f"variables, array {path!r}: found one of shape {np.shape(value)}, "
                f"expected none with {cells_per_stage} cells a stage"
            )
    state_dict: dict[str, np.ndarray] = {}
    for entry in entries:
        path = "/".join(entry.path)
        axes = _AXES[len(entry.shape)]
        shape = tuple(entry.shape[axis] for axis in axes)
        if path not in arrays:
            raise InputError(
                f"variables, array {path!r}: found none, "
                f"expected shape {shape} for the cell {format_arch(cell)}"
            )
        value = np.asarray(arrays[path]).copy()
        _check(f"variables, array {path!r}", value, shape)
        state_dict[entry.name] = value.transpose(np.argsort(axes))
    averages = dict(_walk(variables.get("batch_stats", {})))
    for entry in entries:
        if entry.path[-1] == "scale":
            norm, path = entry.name.removesuffix(".weight"), "/".join(entry.path[:-1])
            scale = state_dict[entry.name]
            mean = averages.get(f"{path}/mean", np.zeros_like(scale))
            variance = averages.get(f"{path}/var", np.ones_like(scale))
            statistics = (np.array(mean), np.array(variance), np.zeros((), np.int64))
            for name, value in zip(_STATISTICS, statistics, strict=True):
                state_dict[f"{norm}.{name}"] = value
    return state_dict


def _entries(cell: np.ndarray, sizes: Sizes) -> list[_Entry]:
    """Every array of the cell's network, in PyTorch's order of layers."""
    channels, cells_per_stage, num_classes = sizes
    entries = _conv_bn("stem.0", "stem.1", ("stem", "conv_bn"), (channels, 3, 3, 3))
    layer = 0
    for stage in range(NUM_STAGES):
        width = channels * 2**stage
        if stage > 0:
            prefix, path = f"cells.{layer}", f"reduction_{stage - 1}"
            for name, before in (("conv_a", width // 2), ("conv_b", width)):
                op = f"{prefix}.{name}.op"
                entries += _conv_bn(f"{op}.1", f"{op}.2", (path, name), (width, before, 3, 3))
            shape = (width, width // 2, 1, 1)
            entries.append(_Entry(f"{prefix}.downsample.1.weight", shape, (path, "shortcut")))
            layer += 1
        for _ in range(cells_per_stage):
            for edge, op_index in enumerate(cell):
                name = OPERATIONS[op_index]
                if name in KERNEL_SIZES:
                    entries += _candidate(layer, layer - stage, edge, name, width)
            layer += 1
    width = channels * 2 ** (NUM_STAGES - 1)
    return [
        *entries,
        _Entry("lastact.0.weight", (width,), ("head", "scale")),
        _Entry("lastact.0.bias", (width,), ("head", "bias")),
        _Entry("classifier.weight", (num_classes, width), ("head", "classifier_kernel")),
        _Entry("classifier.bias", (num_classes,), ("head", "classifier_bias")),
    ]


def _unused_candidates(cell: np.ndarray, sizes: Sizes) -> list[_Entry]:
    """The arrays of every candidate that the cell does not use."""
    entries = []
    for number in range(NUM_STAGES * sizes.cells_per_stage):
        stage = number // sizes.cells_per_stage
        for edge, op_index in enumerate(cell):
            for name in KERNEL_SIZES:
                if OPERATIONS[op_index] != name:
                    width = sizes.channels * 2**stage
                    entries += _candidate(number + stage, number, edge, name, width)
    return entries


def _candidate(layer: int, number: int, edge: int, name: str, width: int) -> list[_Entry]:
    """A candidate convolution of one edge of PyTorch's layer, which is our cell of that number."""
    op = f"cells.{layer}.layers.{edge}.op"
    path = (f"cell_{number}", f"edge_{edge}_{name}")
    return _conv_bn(f"{op}.1", f"{op}.2", path, (width, width, *[KERNEL_SIZES[name]] * 2))


def _conv_bn(conv: str, norm: str, path: tuple[str, ...], shape: tuple[int, ...]) -> list[_Entry]:
    return [
        _Entry(f"{conv}.weight", shape, (*path, "kernel")),
        _Entry(f"{norm}.weight", shape[:1], (*path, "scale")),
        _Entry(f"{norm}.bias", shape[:1], (*path, "bias")),
    ]


def _norms(entries: list[_Entry]) -> list[str]:
    """PyTorch's names of the batch norms."""
    return [entry.name.removesuffix(".weight") for entry in entries if entry.path[-1] == "scale"]


def _walk(tree: Any, path: tuple[str, ...] = ()) -> Iterable[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _walk(branch, (*path, name))
    else:
        yield "/".join(path), tree


def _insert(params: dict[str, Any], path: tuple[str, ...], value: np.ndarray) -> None:
    for name in path[:-1]:
        params = params.setdefault(name, {})
    params[path[-1]] = value


def _shape(arrays: Mapping[str, Any], name: str, rank: int) -> tuple[int, ...]:
    """The shape of an array from which a size of the network is read."""
    if name not in arrays:
        raise InputError(f"weights, array {name!r}: found none, expected a NAS-Bench-201 network's")
    shape = tuple(np.shape(arrays[name]))
    if len(shape) != rank:
        raise InputError(f"weights, array {name!r}: found shape {shape}, expected rank {rank}")
    return shape


def _check(what: str, value: np.ndarray, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise InputError(f"{what}: found shape {value.shape}, expected {shape}")
    if not np.issubdtype(value.dtype, np.floating):
        raise InputError(f"{what}: found dtype {value.dtype}, expected floating point")
