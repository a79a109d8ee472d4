"""The embedded default: scikit-learn's handwritten digits, no download and no table.

Command:  epe-nas search --config=digits --workdir=runs/digits
Expect:   100 cells in about a minute on 2 CPU cores.
"""

import ml_collections

from epe_nas_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.data.name = "digits"
    return config
