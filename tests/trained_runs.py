"""A training that tests share: one epoch of a tiny network on half of the digits."""

import numpy as np
from tiny_config import tiny_config

from epe_nas_jax import load_dataset
from epe_nas_jax.commands.train import train_and_report
from epe_nas_jax.training.loop import halves

# Every operation, and a node that no edge leads to.
ARCH = "|nor_conv_1x1~0|+|none~0|none~1|+|avg_pool_3x3~0|nor_conv_3x3~1|skip_connect~2|"
SIDE = 8


def train_digits(workdir):
    """Trains two seeds; the accuracies are those of the other half."""
    config = tiny_config(
        **{
            "arch": ARCH,
            "data.side": SIDE,
            "train.batch_size": 64,
            "train.epochs": 1,
            "train.num_seeds": 2,
            "train.validation": True,
        }
    )
    train_and_report(config, workdir)
    return workdir


def held_out():
    """The half of the digits, as they lie on disk, that was not trained on."""
    return halves(load_dataset("digits", side=SIDE)).held_out


def noise(num_images, side=SIDE):
    """Images that use every value of a pixel."""
    shape = (num_images, side, side, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
