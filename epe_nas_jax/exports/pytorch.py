"""A trained network as PyTorch code of its own and weights.

The weights have the names of NAS-Bench-201's own network (the package xautodl), so that this one
takes them, too; `mean` and `std` are beside them.
"""

import importlib
import io
from typing import Any

import jax
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.pytorch.weights import to_state_dict
from epe_nas_jax.spaces.nasbench201.genotype import EDGES, KERNEL_SIZES, NUM_NODES, OPERATIONS
from epe_nas_jax.spaces.nasbench201.network import NasBench201Network
from epe_nas_jax.training.trained import TrainedNetwork

CODE_FILE, WEIGHTS_FILE = "network.py", "weights.pt"
_INSTALL = "pip install 'epe_nas_jax[export]'"
# Operations without a layer; all others are convolutions or the average pool.
_WITHOUT_LAYER = ("none", "skip_connect")

_CODE = '''\
"""A trained network in PyTorch.

>>> from network import load_network
>>> network = load_network("weights.pt")
>>> probabilities = network(images)

The images are raw pixels 0..255, uint8 [N, 3, {side}, {side}]; the probabilities float32
[N, {num_classes}], in the order of CLASS_NAMES. Normalisation is part of the network.
"""

import torch
from torch import nn

CLASS_NAMES = {class_names}
CHANNELS = {channels}
CELLS_PER_STAGE = {cells_per_stage}


class ReluConvNorm(nn.Module):
    def __init__(self, before, after, size, stride=1):
        super().__init__()
        conv = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
        self.op = nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(after))

    def forward(self, x):
        return self.op(x)


class Cell(nn.Module):
    """{arch}"""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.ModuleDict()
{layers}

    def forward(self, node_0):
{nodes}
        return node_{last_node}


class Reduction(nn.Module):
    """Half the side, twice the channels."""

    def __init__(self, before, after):
        super().__init__()
        self.conv_a = ReluConvNorm(before, after, 3, stride=2)
        self.conv_b = ReluConvNorm(after, after, 3)
        self.downsample = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(before, after, 1, bias=False))

    def forward(self, x):
        return self.downsample(x) + self.conv_b(self.conv_a(x))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        first, second, third = (CHANNELS * factor for factor in (1, 2, 4))
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(1, 3, 1, 1))
        conv = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.stem = nn.Sequential(conv, nn.BatchNorm2d(first))
        self.cells = nn.Sequential(
            *[Cell(first) for _ in range(CELLS_PER_STAGE)],
            Reduction(first, second),
            *[Cell(second) for _ in range(CELLS_PER_STAGE)],
            Reduction(second, third),
            *[Cell(third) for _ in range(CELLS_PER_STAGE)],
        )
        self.lastact = nn.Sequential(nn.BatchNorm2d(third), nn.ReLU())
        self.classifier = nn.Linear(third, len(CLASS_NAMES))

    def forward(self, images):
        x = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        x = self.lastact(self.cells(self.stem(x)))
        return self.classifier(x.mean((2, 3))).softmax(1)


def load_network(weights):
    """The network with the weights of a file, ready to be used."""
    network = Network()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()
'''


def pytorch_files(trained: TrainedNetwork) -> dict[str, bytes]:
    """Exports a trained network as PyTorch code, plain `torch.nn`, and weights.

    The network takes uint8 `[N, 3, H, H]` and returns probabilities, float32 `[N, K]`. Its module
    `network.py` has a function `load_network`: `load_network("weights.pt")(images)`.

    Args:
      trained: what is exported.

    Returns:
      Contents by file name.

    Raises:
      InputError: PyTorch is not installed.

    Examples:
      >>> from epe_nas_jax import load_trained
      >>> from epe_nas_jax.exports.pytorch import pytorch_files
      >>> list(pytorch_files(load_trained("runs/trained")))
      ['network.py', 'weights.pt']
    """
    torch = import_for_export("torch")
    network = _nasbench201(trained)
    variables = jax.tree.map(np.asarray, trained.variables)
    weights = to_state_dict(variables, trained.genotype, cells_per_stage=network.cells_per_stage)
    weights |= {
        name: np.array(getattr(trained, name), np.float32).reshape(1, 3, 1, 1)
        for name in ("mean", "std")
    }
    buffer = io.BytesIO()
    torch.save({name: torch.tensor(value) for name, value in weights.items()}, buffer)
    return {CODE_FILE: _code(trained).encode(), WEIGHTS_FILE: buffer.getvalue()}


def import_for_export(name: str) -> Any:
    """Imports a package that only export needs.

    Raises:
      InputError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise InputError(f"{name}: not installed, expected it for export: {_INSTALL}") from None


def network_from(files: dict[str, bytes]) -> Any:
    """The `torch.nn.Module` of the files of `pytorch_files`, made by running their code."""
    names: dict[str, Any] = {}
    exec(compile(files[CODE_FILE], CODE_FILE, "exec"), names)  # noqa: S102
    return names["load_network"](io.BytesIO(files[WEIGHTS_FILE]))


def _nasbench201(trained: TrainedNetwork) -> NasBench201Network:
    # No other network can be trained.
    assert isinstance(trained.network, NasBench201Network)
    return trained.network


def _code(trained: TrainedNetwork) -> str:
    network = _nasbench201(trained)
    names = [OPERATIONS[op] for op in trained.genotype]
    layers = [
        f'        self.layers["{edge}"] = {_layer(name)}'
        for edge, name in enumerate(names)
        if name not in _WITHOUT_LAYER
    ]
    nodes = [f"        node_{node} = {_node(names, node)}" for node in range(1, NUM_NODES)]
    return _CODE.format(
        side=trained.side,
        num_classes=len(trained.class_names),
        class_names=_as_list(trained.class_names),
        channels=network.channels,
        cells_per_stage=network.cells_per_stage,
        arch=trained.arch,
        layers="\n".join(layers),
        nodes="\n".join(nodes),
        last_node=NUM_NODES - 1,
    )


def _layer(name: str) -> str:
    """The layer of an operation."""
    if name in KERNEL_SIZES:
        return f"ReluConvNorm(channels, channels, {KERNEL_SIZES[name]})"
    return "nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)"


def _node(names: list[str], node: int) -> str:
    """What a node of a cell is computed from."""
    terms = [
        f"node_{source}" if name == "skip_connect" else f'self.layers["{edge}"](node_{source})'
        for edge, (name, (source, target)) in enumerate(zip(names, EDGES, strict=True))
        if target == node and name != "none"
    ]
    return " + ".join(terms) or "torch.zeros_like(node_0)"


def _as_list(class_names: tuple[str, ...]) -> str:
    # In ASCII: a folder's name can hold characters that no encoding can write.
    lines = [f"    {name!a}," for name in class_names]
    return "\n".join(["[", *lines, "]"])
