"""A data set of your own: a folder with one folder of images for each class.

Put the images of every class into a folder of its own, `images/cat/1.png`, `images/dog/1.jpg`, in
any format that Pillow reads. They must be square, of one size and a side divisible by 4; if they
are not, data.side resizes them. For images in an .npz file, set `--config.data.name=npz`.

Command:  epe-nas search --config=folder --workdir=runs/folder \
              --config.data.path=images --config.data.side=32
"""

import ml_collections

from epe_nas_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.data.name = "folder"
    # Classes often differ in size, and one with a single image has no correlation to measure.
    config.data.class_balanced = True
    return config
