"""The network of NATS-Bench's size space by xautodl, in PyTorch, and its weights by our names."""

import torch
from xautodl.models.cell_searchs.genotypes import Structure
from xautodl.models.shape_infers import DynamicShapeTinyNet

CELL = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+"
    "|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
)
SKIP = 3


def torch_network(widths, cells_per_stage, num_classes):
    """The network with the five layers' channels, those of cells as often as a stage has cells."""
    per_layer = [cells_per_stage if layer % 2 == 0 else 1 for layer in range(5)]
    channels = [width for width, count in zip(widths, per_layer, strict=True) for _ in range(count)]
    torch.manual_seed(0)
    return DynamicShapeTinyNet(channels, Structure.str2structure(CELL), num_classes)


def variables_of(reference):
    """The weights of PyTorch's network by the names of ours."""

    def array(parameter):
        return parameter.detach().numpy()

    def kernel(conv):
        return array(conv.weight).transpose(2, 3, 1, 0)

    def norm(module):
        return {"scale": array(module.weight), "bias": array(module.bias)}

    def conv_bn(conv, module):
        return {"kernel": kernel(conv)} | norm(module)

    params = {
        "stem": {"conv_bn": conv_bn(*reference.stem)},
        "head": {
            **norm(reference.lastact[0]),
            "classifier_kernel": array(reference.classifier.weight).T,
            "classifier_bias": array(reference.classifier.bias),
        },
    }
    cells = blocks = 0
    for cell in reference.cells:
        if hasattr(cell, "downsample"):
            params[f"reduction_{blocks}"] = {
                "conv_a": conv_bn(*cell.conv_a.op[1:]),
                "conv_b": conv_bn(*cell.conv_b.op[1:]),
                "shortcut": kernel(cell.downsample[1]),
            }
            blocks += 1
            continue
        convs = [layer for i, layer in enumerate(cell.layers) if i != SKIP]
        own = {f"conv_{i}": conv_bn(*layer.op[1:]) for i, layer in enumerate(convs)}
        if hasattr(cell.layers[SKIP], "conv"):
            own["skip"] = conv_bn(cell.layers[SKIP].conv, cell.layers[SKIP].bn)
        params[f"cell_{cells}"] = own
        cells += 1
    return {"params": params}
