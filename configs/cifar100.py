"""CIFAR-100 from an .npz file, with trained accuracies if a table is given.

Command:  python -m epe_nas_jax.main --config=configs/cifar100.py --workdir=runs/cifar100 \
              --config.data.path=cifar100.npz --config.benchmark.path=nasbench201.csv.gz
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.data.name = "cifar100"
    config.benchmark.column = "cifar100_test_200"
    return config
