r"""Compares scores of the same Jacobians, correlated in float32 and in float64.

Networks run in float32 with one draw of weights, as always; only the correlation matrix and what
follows from it differ.

Command:  python -m experiments.correlation --path=cifar10.npz --benchmark=nasbench201.csv.gz
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from scipy import stats

from epe_nas_jax import NasBench201Network, epe_score, format_arch, input_jacobian
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.data.datasets import draw_fixed_minibatch, load_dataset
from epe_nas_jax.proxies.jacobian_proxies import jacob_cov_score
from epe_nas_jax.runs import runtime
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead, sample
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

_PATH = flags.DEFINE_string("path", None, "CIFAR-10.", required=True)
_BENCHMARK = flags.DEFINE_string("benchmark", None, "Trained accuracies.", required=True)
_CELLS = flags.DEFINE_integer("cells", 200, "How many uniformly drawn cells.", lower_bound=3)
_BATCH = flags.DEFINE_integer("batch", 256, "Images in the mini-batch.", lower_bound=2)

_PROXIES = ("epe", "jacob_cov")


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    runtime.prepare()
    dataset = load_dataset("cifar10", _PATH.value)
    images, labels = draw_fixed_minibatch(jax.random.key(0), dataset, _BATCH.value, augment=False)
    network = NasBench201Network(dataset.num_classes)
    cells = np.asarray(sample(jax.random.key(0), _CELLS.value))

    @jax.jit
    def jacobian_of(cell: jax.Array) -> jax.Array:
        variables = network.init(jax.random.key(0), images[:1], cell)

        def apply_fn(variables: Any, images: jax.Array) -> jax.Array:
            return network.apply(variables, images, cell)  # type: ignore[return-value]

        return input_jacobian(apply_fn, variables, images)

    def scores(jacobian: np.ndarray) -> list[float]:
        return [
            float(epe_score(jnp.asarray(jacobian), labels, dataset.num_classes)),
            float(jacob_cov_score(jnp.asarray(jacobian))),
        ]

    single, double = [], []
    for cell in prune_dead(cells):
        jacobian = np.asarray(jacobian_of(jnp.asarray(cell)))
        single.append(scores(jacobian))
        with jax.enable_x64(True):
            double.append(scores(jacobian.astype(np.float64)))
    by_arch = read_accuracies(_BENCHMARK.value, "cifar10_test_200", space=NASBENCH201)
    accuracies = np.array([by_arch[format_arch(cell)] for cell in cells])
    for name, a, b in zip(_PROXIES, np.transpose(single), np.transpose(double), strict=True):
        known = np.isfinite(a)
        change = np.abs(a / b - 1)[known]
        in_single, in_double, of_both = (
            stats.spearmanr(x[known], y[known]).statistic
            for x, y in ((a, accuracies), (b, accuracies), (a, b))
        )
        print(
            f"{name:<10} {known.sum()} cells; Spearman with accuracy {in_single:.4f} in float32, "
            f"{in_double:.4f} in float64, of both {of_both:.6f}; a score differs by "
            f"{np.median(change):.1e} (median), {change.max():.1e} (worst)"
        )


if __name__ == "__main__":
    app.run(main)
