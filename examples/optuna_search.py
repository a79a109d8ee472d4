"""Optuna chooses the cells, several at a time, and this package scores them.

Any optimiser with an ask-and-tell interface can be used in this way, see docs/search.md.

Command:  pip install optuna && python examples/optuna_search.py
"""

import jax
import numpy as np
import optuna

from epe_nas_jax import NasBench201Network, compile_scorer, format_arch, load_dataset
from epe_nas_jax.data.datasets import draw_fixed_minibatch
from epe_nas_jax.search.algorithms import ScoreFn, cached
from epe_nas_jax.spaces.nasbench201.genotype import NUM_EDGES, OPERATIONS


def search_with_optuna(
    score_fn: ScoreFn, *, num_steps: int, cells_per_step: int, seed: int
) -> optuna.Study:
    """Maximises a score over the cells of NAS-Bench-201.

    Args:
      score_fn: scores `[A]` of genotypes `[A, 6]`; NaN becomes a failed trial.
      num_steps: how often Optuna is asked for cells.
      cells_per_step: A, the number of cells in a step.
      seed: seed of Optuna's sampler.

    Raises:
      InputError: `score_fn` does not return a number for each cell.
    """
    # No cell is scored twice, and the number of scores is checked.
    score_fn = cached(score_fn)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    )
    operations = optuna.distributions.CategoricalDistribution(OPERATIONS)
    edges = {f"edge_{edge}": operations for edge in range(NUM_EDGES)}
    for _ in range(num_steps):
        trials = [study.ask(edges) for _ in range(cells_per_step)]
        scores = score_fn(np.array([genotype_of(trial.params) for trial in trials], np.int32))
        for trial, score in zip(trials, scores, strict=True):
            if np.isnan(score):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, float(score))
    return study


def genotype_of(parameters: dict[str, str]) -> list[int]:
    """The genotype, 6 numbers, that a trial's parameters describe."""
    return [OPERATIONS.index(parameters[f"edge_{edge}"]) for edge in range(NUM_EDGES)]


def main() -> None:
    """Searches a small network on handwritten digits."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    dataset = load_dataset("digits")
    images, labels = draw_fixed_minibatch(jax.random.key(0), dataset, 64, augment=False)
    network = NasBench201Network(dataset.num_classes, channels=4, cells_per_stage=1)
    scorer = compile_scorer(images, labels, seed=0, network=network)
    study = search_with_optuna(scorer, num_steps=8, cells_per_step=16, seed=0)
    best = study.best_trial
    print(format_arch(genotype_of(best.params)), best.value)


if __name__ == "__main__":
    main()
