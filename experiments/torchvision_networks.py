r"""Torchvision's classification networks, untrained, as candidates of `epe-nas rank`.

Command:  epe-nas rank --networks=experiments/torchvision_networks.py --config=folder \
              --workdir=DIR --config.data.path=images --config.data.side=128 \
              --config.data.batch_size=32
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch

with warnings.catch_warnings():
    # torchvision warns that it cannot read images, which is not needed here.
    warnings.filterwarnings("ignore", "Failed to load image", UserWarning)
    from torchvision import models


def networks(num_classes: int, side: int) -> dict[str, Callable[[], torch.nn.Module]]:
    """Networks with weights trained on ImageNet alone, each made when its turn comes."""
    return {
        name: functools.partial(_make, name, num_classes, side)
        for name in models.list_models(module=models)
        if "IMAGENET1K_V1" in models.get_model_weights(name).__members__
    }


def _make(name: str, num_classes: int, side: int) -> torch.nn.Module:
    """Makes one of the networks, with weights drawn from the seed 0."""
    torch.manual_seed(0)
    if name == "maxvit_t":
        # Its windows of 7 need images of 224 pixels; these divide any side that 32 divides.
        return models.MaxVit(
            input_size=(side, side),
            stem_channels=64,
            partition_size=side // 32,
            block_channels=[64, 128, 256, 512],
            block_layers=[2, 2, 5, 2],
            head_dim=32,
            stochastic_depth_prob=0.2,
            num_classes=num_classes,
        )
    options: dict[str, Any] = {"image_size": side} if name.startswith("vit") else {}
    if name in ("googlenet", "inception_v3"):
        # A single output, and PyTorch's default weights: drawing these networks' own takes minutes.
        options = {"aux_logits": False, "init_weights": False}
    return models.get_model(name, num_classes=num_classes, **options)
