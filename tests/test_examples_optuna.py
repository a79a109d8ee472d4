"""The worked example of a search that is not ours."""

import jax
import numpy as np
import optuna
import pytest
from optuna_search import genotype_of, search_with_optuna

from epe_nas_jax import InputError, NasBench201Network, compile_scorer
from epe_nas_jax.spaces.nasbench201.genotype import has_path

optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_optuna_searches_with_the_batched_scores(minibatch):
    scorer = compile_scorer(
        *minibatch, seed=0, network=NasBench201Network(3, 4, 1, jax.numpy.float64)
    )
    batches = []

    def score(cells):
        batches.append(cells)
        return scorer(cells)

    study = search_with_optuna(score, num_steps=3, cells_per_step=6, seed=0)
    assert len(study.trials) == 18
    assert all(len(cells) <= 6 for cells in batches)
    cells = np.concatenate(batches)
    assert len({cell.tobytes() for cell in cells}) == len(cells)
    scores = scorer(cells)
    best = np.nanargmax(scores)
    assert study.best_value == pytest.approx(scores[best])
    assert genotype_of(study.best_trial.params) == cells[best].tolist()


def test_optuna_gets_no_value_for_a_cell_without_a_score_and_learns():
    def score(cells):
        return np.where(has_path(cells), np.sum(cells == 3, axis=1).astype(float), np.nan)

    study = search_with_optuna(score, num_steps=12, cells_per_step=10, seed=0)
    failed = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.FAIL]
    assert all(not has_path(np.array(genotype_of(trial.params))) for trial in failed)
    # A cell of more than 4 equal chosen operations has a probability of 0.002 by chance.
    assert study.best_value >= 5


def test_a_score_function_with_too_few_values_is_named():
    with pytest.raises(
        InputError, match=r"score function: found values of shape \(4,\), expected \(5,\)"
    ):
        search_with_optuna(
            lambda cells: np.zeros(len(cells) - 1), num_steps=1, cells_per_step=5, seed=0
        )
