"""Trains a cell on CIFAR-10 as NAS-Bench-201 did; `--config.train.epochs=12` is the quick form.

Command:  epe-nas train --config=train_cifar10 --workdir=runs/train \
              --config.data.path=cifar10.npz --config.benchmark.path=nasbench201.csv.gz \
              --config.from_run=runs/cifar10
"""

import ml_collections

from epe_nas_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    return cifar10.get_config()
