"""Scores that PyTorch gave once, tested without PyTorch."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
from golden import make

from epe_nas_jax import parse_arch
from epe_nas_jax.proxies.epe import cell_score


def test_scores_are_those_that_pytorch_gave():
    with make.SCORES.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    expected = np.array([float(row["score"] or "nan") for row in rows])
    assert np.isfinite(expected).sum() >= 55
    (images, labels), variables, network = make.minibatch(), make.weights(), make.network()

    @jax.jit
    def score(genotype):
        return cell_score(variables, genotype, images, labels, network=network)

    scores = [score(jnp.asarray(parse_arch(row["arch"]))) for row in rows]
    # Orders of summation differ: logits by 1e-13, and log|rho| is sharp where rho is near 0.
    np.testing.assert_allclose(scores, expected, rtol=1e-7)
