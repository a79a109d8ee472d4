"""NAS-Bench-201's own PyTorch network (xautodl), and its weights as our variables."""

import numpy as np
import torch
from xautodl.models.cell_infers import TinyNetwork
from xautodl.models.cell_searchs.genotypes import Structure

from epe_nas_jax import format_arch
from epe_nas_jax.genotype import NUM_EDGES, OPERATIONS


def build(genotype, *, channels, cells_per_stage, num_classes, dtype, seed):
    """The network of a cell in training mode, freshly initialised."""
    torch.manual_seed(seed)
    arch = Structure.str2structure(format_arch(genotype))
    network = TinyNetwork(channels, cells_per_stage, arch, num_classes)
    return network.to(dtype).train()


def logits_and_jacobian(network, images):
    """Logits `[N, K]` and input Jacobian `[N, H, H, 3]` of NHWC images, as the released code."""
    dtype = next(network.parameters()).dtype
    x = torch.tensor(images.transpose(0, 3, 1, 2), dtype=dtype, requires_grad=True)
    _, logits = network(x)
    logits.backward(torch.ones_like(logits))
    return logits.detach().numpy(), x.grad.numpy().transpose(0, 2, 3, 1)


def variables_of(network, genotype, *, cells_per_stage, every_operation):
    """Our variables with the weights of a PyTorch network.

    With `every_operation` the candidates that the cell does not use are there too, with noise in
    them that must not matter.
    """
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    rng = np.random.default_rng(0)

    def kernel(name):
        return state[name].transpose(2, 3, 1, 0)

    def conv_bn(prefix, conv="1", norm="2"):
        return {
            "kernel": kernel(f"{prefix}.{conv}.weight"),
            "scale": state[f"{prefix}.{norm}.weight"],
            "bias": state[f"{prefix}.{norm}.bias"],
        }

    def cell(layer):
        params = {}
        for edge in range(NUM_EDGES):
            for name, size in (("nor_conv_1x1", 1), ("nor_conv_3x3", 3)):
                if OPERATIONS[genotype[edge]] == name:
                    weights = conv_bn(f"cells.{layer}.layers.{edge}.op")
                elif every_operation:
                    c = state[f"cells.{layer}.width"]
                    weights = {
                        "kernel": rng.normal(size=(size, size, c, c)),
                        "scale": rng.normal(size=c),
                        "bias": rng.normal(size=c),
                    }
                else:
                    continue
                dtype = state["stem.0.weight"].dtype
                weights = {k: np.asarray(v, dtype) for k, v in weights.items()}
                params[f"edge_{edge}_{name}"] = weights
        return params

    width = state["stem.0.weight"].shape[0]
    params = {"stem": {"conv_bn": conv_bn("stem", "0", "1")}}
    layer = 0
    for stage in range(3):
        if stage > 0:
            params[f"reduction_{stage - 1}"] = {
                "conv_a": conv_bn(f"cells.{layer}.conv_a.op"),
                "conv_b": conv_bn(f"cells.{layer}.conv_b.op"),
                "shortcut": kernel(f"cells.{layer}.downsample.1.weight"),
            }
            layer += 1
        for _ in range(cells_per_stage):
            state[f"cells.{layer}.width"] = width * 2**stage
            params[f"cell_{layer - stage}"] = cell(layer)
            layer += 1
    params["head"] = {
        "scale": state["lastact.0.weight"],
        "bias": state["lastact.0.bias"],
        "classifier_kernel": state["classifier.weight"].T,
        "classifier_bias": state["classifier.bias"],
    }
    return {"params": params}
