"""CIFAR-100, with trained accuracies if a table is given.

The path is cifar-100-binary.tar.gz or cifar-100-python.tar.gz from
https://www.cs.toronto.edu/~kriz/cifar.html, the folder extracted from it, or an .npz file with
x_train and y_train. With --config.data.download=True instead, the first is downloaded and kept.

Command:  epe-nas search --config=cifar100 --workdir=runs/cifar100 \
              --config.data.path=cifar-100-binary.tar.gz --config.benchmark.path=nasbench201.csv.gz
"""

import ml_collections

from epe_nas_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.data.name = "cifar100"
    config.benchmark.column = "cifar100_test_200"
    return config
