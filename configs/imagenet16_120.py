r"""ImageNet16-120 from an .npz file, with trained accuracies if a table is given.

Command:  python -m epe_nas_jax.main \
              --config=configs/imagenet16_120.py --workdir=runs/imagenet16_120 \
              --config.data.path=imagenet16_120.npz --config.benchmark.path=nasbench201.csv.gz
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.data.name = "imagenet16_120"
    config.benchmark.column = "imagenet16_test_200"
    return config
