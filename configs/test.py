"""A tiny search for tests: the whole command in seconds.

Command:  epe-nas search --config=test --workdir=runs/test
"""

import ml_collections

from epe_nas_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.cells_per_step = "3"
    config.data.name = "digits"
    config.data.batch_size = 16
    config.network.channels = 4
    config.network.cells_per_stage = 1
    config.search.num_samples = 7
    return config
