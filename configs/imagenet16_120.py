r"""ImageNet16-120, with trained accuracies if a table is given.

The path is Imagenet16_train.zip, the downsampled ImageNet that image-net.org offers behind a login,
the folder extracted from it (train_data_batch_1 to _10), or an .npz file with x_train and y_train.
The first 120 classes are taken.

Command:  epe-nas search --config=imagenet16_120 --workdir=runs/imagenet16_120 \
              --config.data.path=Imagenet16_train.zip --config.benchmark.path=nasbench201.csv.gz
"""

import ml_collections

from epe_nas_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.data.name = "imagenet16_120"
    config.benchmark.column = "imagenet16_test_200"
    return config
