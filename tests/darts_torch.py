"""DARTS's evaluation network by xautodl, and NAS-Bench-301's network in plain code, in PyTorch."""

import contextlib
import io

import numpy as np
import torch
from xautodl.nas_infer_model.DXYs.CifarNet import NetworkCIFAR
from xautodl.nas_infer_model.DXYs.genotypes import Genotype


def read(text):
    """The fields of a genotype's text."""
    return eval(text, {"Genotype": dict, "range": range})


def torch_network(text, channels, cells_per_stage, num_classes, *, last_activation):
    """The network of a genotype's text: two reduction cells between three stages of normal ones.

    xautodl takes the pairs of edges of each node. Its `NetworkCIFAR` is DARTS's evaluation network;
    the last batch norm and ReLU are put in.
    """
    call = read(text)
    for name in ("normal", "reduce"):
        call[name] = list(zip(call[name][::2], call[name][1::2], strict=True))
    genotype = Genotype(**call, connectN=None, connects=None)
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        network = NetworkCIFAR(channels, cells_per_stage, 3, False, genotype, num_classes)
    if last_activation:
        norm = torch.nn.BatchNorm2d(network.classifier.in_features)
        network.global_pooling = torch.nn.Sequential(norm, torch.nn.ReLU(), network.global_pooling)
    return network


def relu_codes(network, images):
    """Which units are open, of every ReLU that a network runs, and what the network puts out."""
    codes, handles = [], []
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU):

            def record(_, inputs):
                codes.append((inputs[0] > 0).flatten(1).numpy())

            handles.append(module.register_forward_pre_hook(record))
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    return codes


class BenchNetwork(torch.nn.Module):
    """NAS-Bench-301's network, of `Genotype(...)` as text, with weights of ours.

    The batch norms of operations have no scale and offset, and one of them stands behind each pool.
    A node may read another one twice. Behind the last cell come batch norm and ReLU.
    """

    def __init__(self, text, channels, num_cells, num_classes):
        super().__init__()
        call = read(text)
        width = 3 * channels
        self.stem = torch.nn.Sequential(conv(3, width, 3), torch.nn.BatchNorm2d(width))
        reductions = {num_cells // 3, 2 * num_cells // 3}
        self.cells = torch.nn.ModuleList()
        before, last, is_behind_reduction = width, width, False
        for number in range(num_cells):
            is_reduction = number in reductions
            channels *= 1 + is_reduction
            pairs = call["reduce" if is_reduction else "normal"]
            self.cells.append(
                BenchCell(pairs, before, last, channels, is_reduction, is_behind_reduction)
            )
            before, last, is_behind_reduction = last, 4 * channels, is_reduction
        self.norm, self.relu = torch.nn.BatchNorm2d(last), torch.nn.ReLU()
        self.classifier = torch.nn.Linear(last, num_classes)

    def forward(self, images):
        before = last = self.stem(images)
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.classifier(self.relu(self.norm(last)).mean((2, 3)))

    def load(self, params):
        """Takes our weights."""
        set_conv_bn(self.stem[0], self.stem[1], params["stem"])
        for number, cell in enumerate(self.cells):
            cell.load(params[f"cell_{number}"])
        set_affine(self.norm, params["last_scale"], params["last_bias"])
        assign(self.classifier.weight, np.asarray(params["classifier_kernel"]).T)
        assign(self.classifier.bias, params["classifier_bias"])
        return self


class BenchCell(torch.nn.Module):
    def __init__(self, pairs, before, last, channels, is_reduction, is_behind_reduction):
        super().__init__()
        self.preprocess = torch.nn.ModuleList(
            [
                FactorizedReduce(before, channels, affine=True)
                if is_behind_reduction
                else torch.nn.Sequential(
                    torch.nn.ReLU(), conv(before, channels), torch.nn.BatchNorm2d(channels)
                ),
                torch.nn.Sequential(
                    torch.nn.ReLU(), conv(last, channels), torch.nn.BatchNorm2d(channels)
                ),
            ]
        )
        self.edges = []
        self.operations = torch.nn.ModuleList()
        for node in range(2, 6):
            # As our genotypes order them: by source, and operations on one source by our index.
            own = sorted(pairs[2 * node - 4 : 2 * node - 2], key=lambda p: (p[1], OPS.index(p[0])))
            own = [pair for pair in own if pair[0] != "none"]
            for number, (name, source) in enumerate(own):
                is_second = number == 1 and own[0][1] == source
                edge = sum(range(2, node)) + source
                place = f"second_{node}" if is_second else f"edge_{edge}"
                stride = 2 if is_reduction and source < 2 else 1
                self.edges.append((source, node, f"{place}_{name}"))
                self.operations.append(operation(name, channels, stride))
        self.stride = 1 + is_reduction

    def forward(self, before, last):
        nodes = [self.preprocess[0](before), self.preprocess[1](last)]
        for node in range(2, 6):
            total = torch.zeros_like(nodes[0][:, :, :: self.stride, :: self.stride])
            for (source, target, _), module in zip(self.edges, self.operations, strict=True):
                if target == node:
                    total = total + module(nodes[source])
            nodes.append(total)
        return torch.cat(nodes[2:], 1)

    def load(self, params):
        for i, module in enumerate(self.preprocess):
            own = params[f"preprocess_{i}"]
            if isinstance(module, FactorizedReduce):
                module.load(own)
                set_affine(module.norm, own["scale"], own["bias"])
            else:
                set_conv_bn(module[1], module[2], own)
        for (*_, name), module in zip(self.edges, self.operations, strict=True):
            if isinstance(module, FactorizedReduce):
                module.load(params[name])
            convs = [step for step in module.children() if isinstance(step, torch.nn.Conv2d)]
            for i, (depthwise, pointwise) in enumerate(zip(convs[::2], convs[1::2], strict=True)):
                own = f"{name}_{i}" if "sep" in name else name
                set_kernel(depthwise, params[f"{own}_depthwise"])
                set_kernel(pointwise, params[own]["kernel"])


class FactorizedReduce(torch.nn.Module):
    def __init__(self, channels_in, channels_out, *, affine):
        super().__init__()
        self.relu = torch.nn.ReLU()
        half = channels_out // 2
        self.halves = torch.nn.ModuleList(conv(channels_in, half, stride=2) for _ in range(2))
        self.norm = torch.nn.BatchNorm2d(channels_out, affine=affine)

    def forward(self, x):
        x = self.relu(x)
        return self.norm(torch.cat([self.halves[0](x), self.halves[1](x[:, :, 1:, 1:])], 1))

    def load(self, params):
        for half, kernel in zip(self.halves, np.split(params["kernel"], 2, axis=-1), strict=True):
            set_kernel(half, kernel)


# In our order.
OPS = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5")
OPS += ("dil_conv_3x3", "dil_conv_5x5")


def operation(name, channels, stride):
    def norm():
        return torch.nn.BatchNorm2d(channels, affine=False)

    def separable(size, stride, dilation):
        return [
            torch.nn.ReLU(),
            conv(channels, channels, size, stride, dilation, groups=channels),
            conv(channels, channels),
            norm(),
        ]

    if name == "max_pool_3x3":
        return torch.nn.Sequential(torch.nn.MaxPool2d(3, stride, 1), norm())
    if name == "avg_pool_3x3":
        pool = torch.nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        return torch.nn.Sequential(pool, norm())
    if name == "skip_connect":
        if stride == 1:
            return torch.nn.Identity()
        return FactorizedReduce(channels, channels, affine=False)
    size = int(name[-1])
    if name.startswith("sep"):
        return torch.nn.Sequential(*separable(size, stride, 1), *separable(size, 1, 1))
    return torch.nn.Sequential(*separable(size, stride, 2))


def conv(channels_in, channels_out, size=1, stride=1, dilation=1, groups=1):
    return torch.nn.Conv2d(
        channels_in,
        channels_out,
        size,
        stride,
        padding=dilation * (size // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
    )


def assign(parameter, array):
    parameter.data = torch.tensor(np.asarray(array))


def set_kernel(module, kernel):
    assert module.weight.shape == np.asarray(kernel).transpose(3, 2, 0, 1).shape
    assign(module.weight, np.asarray(kernel).transpose(3, 2, 0, 1))


def set_affine(norm, scale, bias):
    assign(norm.weight, scale)
    assign(norm.bias, bias)


def set_conv_bn(convolution, norm, params):
    set_kernel(convolution, params["kernel"])
    set_affine(norm, params["scale"], params["bias"])
