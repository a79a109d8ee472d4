"""A short training of a cell on a few thousand CIFAR-10 images: smaller steps, three seeds.

Command:  epe-nas train --config=train_cifar10_subset \
              --workdir=runs/subset --config.data.path=cifar10.npz --config.arch="|...|"
"""

import ml_collections

from epe_nas_jax.configs import train_cifar10


def get_config() -> ml_collections.ConfigDict:
    config = train_cifar10.get_config()
    config.train.num_seeds = 3
    config.train.epochs = 15
    config.train.batch_size = 64
    return config
