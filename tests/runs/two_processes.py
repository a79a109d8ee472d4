"""Scores 20 cells by groups in two processes of two devices each, and alone. Run by test_hosts."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax import NasBench201Network, compile_scorer
from epe_nas_jax.runs import hosts
from epe_nas_jax.scoring.planning import Shard
from epe_nas_jax.spaces.nasbench201.genotype import decode, has_path


def main(address, process):
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", 2)
    hosts.join(address, 2, process)
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(8, 8, 8, 3)), np.arange(8, dtype=np.int32) % 3
    cells = np.asarray(decode(np.arange(7, 15625, 700)))
    cells = cells[has_path(cells)][:20]
    network = NasBench201Network(
        num_classes=3, channels=4, cells_per_stage=1, param_dtype=jnp.float64
    )
    scorer = compile_scorer(
        images, labels, seed=0, network=network, cells_per_step=6, vectorise=True, num_processes=2
    )
    kinds, networks, back = scorer.distinct(cells)
    shard = Shard(hosts.index(), hosts.count(), len(scorer.devices), scorer.cells_per_step)
    own = {}
    for genotypes, proxies in scorer.steps(kinds, networks, shard=shard):
        own |= {str(kind.tolist()): proxy for kind, [proxy] in zip(genotypes, proxies, strict=True)}
    with hosts.one_outcome():
        parts = [json.loads(part) for part in hosts.exchange(json.dumps(own).encode())]
    scores = {name: score for part in parts for name, score in part.items()}
    result = {
        "devices": [len(scorer.devices), jax.local_device_count(), jax.device_count()],
        "cells": [len(part) for part in parts],
        "together": [scores[str(kind.tolist())] for kind in kinds[back]],
        "alone": scorer(cells).tolist(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
