"""The network of TransNAS-Bench-101's micro cells in PyTorch, and its weights by our names."""

import numpy as np
import torch
from torch import nn

# By (source, target), in the order of the text.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NAMES = {1: "skip_connect", 2: "nor_conv_1x1", 3: "nor_conv_3x3"}


class FactorizedReduce(nn.Module):
    """ReLU; of all pixels and of those one further, every other by a convolution; batch norm."""

    def __init__(self, channels, channels_out):
        super().__init__()
        half = channels_out // 2
        self.convs = nn.ModuleList(nn.Conv2d(channels, half, 1, 2, bias=False) for _ in range(2))
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x):
        x = torch.relu(x)
        further = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.bn(torch.cat([self.convs[0](x), self.convs[1](further)], dim=1))


class Zero(nn.Module):
    """Zeros of the shape that the edge puts out."""

    def __init__(self, channels_out, stride):
        super().__init__()
        self.channels_out, self.stride = channels_out, stride

    def forward(self, x):
        x = x[:, :1, :: self.stride, :: self.stride]
        return torch.zeros_like(x).repeat(1, self.channels_out, 1, 1)


def relu_conv_bn(channels, channels_out, size, stride):
    conv = nn.Conv2d(channels, channels_out, size, stride, size // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(channels_out))


def edge(op, channels, channels_out, stride):
    if op == 0:
        return Zero(channels_out, stride)
    if op == 1:
        same = stride == 1 and channels == channels_out
        return nn.Identity() if same else FactorizedReduce(channels, channels_out)
    return relu_conv_bn(channels, channels_out, 2 * op - 3, stride)


class Cell(nn.Module):
    def __init__(self, ops, channels, channels_out, stride):
        super().__init__()
        self.ops = [int(op) for op in ops]
        self.edges = nn.ModuleList(
            edge(op, channels, channels_out, stride)
            if source == 0
            else edge(op, channels_out, channels_out, 1)
            for op, (source, _) in zip(self.ops, EDGES, strict=True)
        )

    def forward(self, x):
        nodes = [x]
        for node in range(1, 4):
            into = [i for i, (_, target) in enumerate(EDGES) if target == node]
            nodes.append(sum(self.edges[i](nodes[EDGES[i][0]]) for i in into))
        return nodes[-1]


class MicroNetwork(nn.Module):
    """Stem, the modules 4, 1, 4, 1, 4, global average pool and linear layer."""

    def __init__(self, ops, channels, cells_per_module, num_classes, *, last_activation):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels // 2, 3, 2, 1, bias=False),
            nn.BatchNorm2d(channels // 2),
            relu_conv_bn(channels // 2, channels, 3, 2),
        )
        cells = []
        for code in "41414":
            for number in range(cells_per_module):
                grows = code == "4" and number == 0
                channels_out = 2 * channels if grows else channels
                cells.append(Cell(ops, channels, channels_out, 2 if grows else 1))
                channels = channels_out
        self.cells = nn.Sequential(*cells)
        last = [nn.BatchNorm2d(channels), nn.ReLU()] if last_activation else []
        self.last = nn.Sequential(*last)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = self.pool(self.last(self.cells(self.stem(x))))
        return self.classifier(x.flatten(1))


def torch_network(ops, channels, cells_per_module, num_classes, *, last_activation=True):
    torch.manual_seed(0)
    return MicroNetwork(
        ops, channels, cells_per_module, num_classes, last_activation=last_activation
    )


def variables_of(reference):
    """The weights of PyTorch's network by the names of ours."""

    def array(parameter):
        return parameter.detach().numpy()

    def conv_bn(convs, norm):
        kernels = [array(conv.weight).transpose(2, 3, 1, 0) for conv in convs]
        return {
            "kernel": np.concatenate(kernels, axis=-1),
            "scale": array(norm.weight),
            "bias": array(norm.bias),
        }

    head = {
        "classifier_kernel": array(reference.classifier.weight).T,
        "classifier_bias": array(reference.classifier.bias),
    }
    if len(reference.last):
        norm = reference.last[0]
        head |= {"scale": array(norm.weight), "bias": array(norm.bias)}
    stem = reference.stem
    params = {
        "stem": {
            "conv_bn_0": conv_bn([stem[0]], stem[1]),
            "conv_bn_1": conv_bn([stem[2][1]], stem[2][2]),
        },
        "head": head,
    }
    for number, cell in enumerate(reference.cells):
        own = {}
        for i, module in enumerate(cell.edges):
            name = f"edge_{i}_{NAMES.get(cell.ops[i])}"
            if isinstance(module, FactorizedReduce):
                own[name] = conv_bn(module.convs, module.bn)
            elif isinstance(module, nn.Sequential):
                own[name] = conv_bn([module[1]], module[2])
        if own:
            params[f"cell_{number}"] = own
    return {"params": params}
