"""Scores 20 cells on one CPU device and on eight, one by one and at once. Run by test_scorer."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax import NasBench201Network, compile_scorer
from epe_nas_jax.spaces.nasbench201.genotype import decode, has_path

COLLECTIVES = re.compile(
    r"all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute|collective-broadcast"
)


def main():
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", 8)
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(8, 8, 8, 3)), np.arange(8, dtype=np.int32) % 3
    cells = np.asarray(decode(np.arange(7, 15625, 700)))
    cells = cells[has_path(cells)][:20]
    network = NasBench201Network(
        num_classes=3, channels=4, cells_per_stage=1, param_dtype=jnp.float64
    )
    scores = []
    for vectorise in (False, True):
        for num_devices in (1, 8):
            scorer = compile_scorer(
                images,
                labels,
                seed=0,
                network=network,
                cells_per_step=2,
                devices=jax.devices()[:num_devices],
                vectorise=vectorise,
            )
            scores.append(scorer(cells).tolist())
        # The program of eight devices, as compiled for a step of theirs.
        text = scorer.lower().compile().as_text()
        assert "num_partitions=8" in text
        assert not COLLECTIVES.search(text), COLLECTIVES.search(text)
    print(json.dumps(scores))


if __name__ == "__main__":
    main()
