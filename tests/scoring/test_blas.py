"""Linear algebra has one thread a call while cells are scored, and only then."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from epe_nas_jax import NasBench201Network, compile_scorer
from epe_nas_jax.scoring import scorer as module
from epe_nas_jax.scoring.blas import one_blas_thread


def blas_threads():
    return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads():
    with one_blas_thread(), threadpool_limits(2, user_api="blas"):
        yield


def test_one_thread_within_and_the_number_before_it_afterwards():
    before = blas_threads()
    assert before == {2}
    with one_blas_thread():
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_cells_are_scored_with_one_thread(monkeypatch):
    seen = []
    step = module.score_step

    def recorded(*arguments, **static):
        seen.append(blas_threads())
        return step(*arguments, **static)

    images = np.random.default_rng(0).normal(size=(4, 4, 4, 3)).astype(np.float32)
    network = NasBench201Network(2, channels=2, cells_per_stage=1)
    scorer = compile_scorer(images, np.arange(4) % 2, seed=0, network=network)
    monkeypatch.setattr(module, "score_step", recorded)
    assert np.isfinite(scorer(np.full((1, 6), 3, np.int32))).all()
    assert seen == [{1}]
    assert blas_threads() == {2}
