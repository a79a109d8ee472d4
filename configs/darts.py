"""A search over DARTS cells, with the small network that DARTS searches with.

Handwritten digits by default; for your images set data.name and data.path. The paper trains the
cells that it finds with 36 channels and 6 cells in a stage.

Command:  epe-nas search --config=darts --workdir=runs/darts
Expect:   4 minutes of compiling, once, then 10 s a cell on 2 CPU cores.
"""

import ml_collections

from epe_nas_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.data.name = "digits"
    config.space.name = "darts"
    config.network.channels = 16
    # 8 cells in all, with the two reduction cells between the stages.
    config.network.cells_per_stage = 2
    config.search.num_samples = 20
    return config
