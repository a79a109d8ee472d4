"""CIFAR-10 from an .npz file, with trained accuracies if a table is given.

Command:  python -m epe_nas_jax.main --config=configs/cifar10.py --workdir=runs/cifar10 \
              --config.data.path=cifar10.npz --config.benchmark.path=nasbench201.csv.gz
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.data.name = "cifar10"
    config.benchmark.column = "cifar10_test_200"
    return config
