"""DARTS's evaluation network by xautodl, in PyTorch."""

import contextlib
import io

import torch
from xautodl.nas_infer_model.DXYs.CifarNet import NetworkCIFAR
from xautodl.nas_infer_model.DXYs.genotypes import Genotype


def torch_network(text, channels, cells_per_stage, num_classes, *, last_activation):
    """The network of a genotype's text: two reduction cells between three stages of normal ones.

    xautodl takes the pairs of edges of each node. Its `NetworkCIFAR` is DARTS's evaluation network;
    the last batch norm and ReLU are put in.
    """
    call = eval(text, {"Genotype": dict, "range": range})
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
