"""PyTorch's side of the comparison, without JAX."""

import time

import numpy as np
import torch
from xautodl.models.cell_infers import TinyNetwork
from xautodl.models.cell_searchs.genotypes import Structure


def torch_seconds(archs: list[str], images: np.ndarray, *, best: bool) -> list[float]:
    """Seconds of one forward and backward pass of each cell.

    As released: all gradients. At its best: the input gradient only, channels last.
    """
    seconds = []
    for arch in archs:
        network = TinyNetwork(16, 5, Structure.str2structure(arch), 10)
        x = torch.tensor(images.transpose(0, 3, 1, 2))
        if best:
            network = network.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
            network.requires_grad_(False)
        x.requires_grad_(True)
        start = time.perf_counter()
        _, logits = network(x)
        logits.backward(torch.ones_like(logits))
        seconds.append(time.perf_counter() - start)
    return seconds
