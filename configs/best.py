r"""The best ranking known to us: four signals of one pass and a count (docs/ranking.md).

Handwritten digits by default; for your images set data.name and data.path.

Command:  epe-nas search --config=best --workdir=runs/best \
              --config.data.name=cifar10 --config.data.path=cifar-10-binary.tar.gz
"""

import ml_collections

from epe_nas_jax.configs import base
from epe_nas_jax.scoring.columns import BEST_RANKING


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.data.name = "digits"
    config.score.objective = BEST_RANKING
    # A further column of scores.csv.
    config.score.proxies = ("epe",)
    return config
