r"""The whole space on CIFAR-10: all 15,625 cells, which are 9,445 different networks.

Command:  epe-nas search --config=exhaustive --workdir=runs/exhaustive \
              --config.data.path=cifar10.npz --config.benchmark.path=nasbench201.csv.gz
"""

import ml_collections

from epe_nas_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    config = cifar10.get_config()
    config.search.num_samples = 15_625
    return config
