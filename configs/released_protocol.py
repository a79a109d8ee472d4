r"""The released code's protocol on CIFAR-10: nothing is shared between cells.

Every cell has fresh weights and a fresh shuffled, augmented mini-batch of 256, and cells are drawn
with replacement (VascoLopes/EPE-NAS, search.py). experiments/released_protocol.py shows that the
scores have the distribution of PyTorch's.

Command:  epe-nas search --config=released_protocol --workdir=runs/released_protocol \
              --config.data.path=cifar10.npz --config.benchmark.path=nasbench201.csv.gz
"""

import ml_collections

from epe_nas_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    config = cifar10.get_config()
    config.data.batch_size = 256
    config.data.augment = True
    config.data.fresh_minibatch = True
    config.score.init = "independent"
    config.score.num_inits = 1
    config.search.replace = True
    return config
