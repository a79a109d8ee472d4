r"""The best ranking we know: four signals of one pass and a count, together (docs/ranking.md).

Handwritten digits by default; for your images set data.name and data.path.

Command:  python -m epe_nas_jax.main --config=configs/best.py --workdir=runs/best \
              --config.data.name=cifar10 --config.data.path=cifar-10-binary.tar.gz
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    config = base.get_config()
    config.data.name = "digits"
    config.score.objective = ("jacob_cov", "nwot", "grad_entropy", "grad_decay", "live_params")
    # A column beside them.
    config.score.proxies = ("epe",)
    return config
