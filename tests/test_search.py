import jax
import numpy as np

from epe_nas_jax import genotype as space
from epe_nas_jax.search import random_search


def test_random_search_chooses_the_best_scored_cell():
    result = random_search(
        jax.random.key(0), lambda g: -np.abs(g.sum(axis=1) - 20.0), num_samples=300
    )
    assert result.genotypes.shape == (300, 6)
    assert len(np.unique(np.asarray(space.encode(result.genotypes)))) == 300
    assert result.scores[result.best] == result.scores.max()


def test_a_cell_without_a_score_is_never_chosen():
    result = random_search(
        jax.random.key(0),
        lambda g: np.where(space.has_path(g), g[:, 0].astype(float), np.nan),
        num_samples=space.NUM_CELLS,
    )
    assert np.isnan(result.scores).sum() == 341
    assert result.scores[result.best] == 4


def test_nothing_is_chosen_when_no_cell_has_a_score():
    result = random_search(jax.random.key(0), lambda g: np.full(len(g), np.nan), num_samples=5)
    assert result.best is None
