"""Makes `scores.csv`: scores of 60 cells by PyTorch in float64, for machines without PyTorch.

The weights, batch norm's too, are drawn by NumPy, so that no change of an initialiser moves them;
input Jacobians are PyTorch's (xautodl's network), scores NumPy's. Made with PyTorch 2.13.0, xautodl
1.0.0 and NumPy 2.4.6.

Command:  python tests/golden/make.py
"""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax import NasBench201Network, format_arch
from epe_nas_jax.data.datasets import load_dataset
from epe_nas_jax.pytorch import network as pytorch
from epe_nas_jax.pytorch.weights import to_state_dict
from epe_nas_jax.spaces.nasbench201.cost import Sizes
from epe_nas_jax.spaces.nasbench201.genotype import NUM_EDGES

SCORES = Path(__file__).parent / "scores.csv"
SEED = 0
NUM_IMAGES = 16
NUM_GROUPS = 12
SIZES = Sizes(channels=16, cells_per_stage=5, num_classes=10)


def minibatch():
    """The first digits, float64, and their labels: nothing is drawn."""
    digits = load_dataset("digits")
    images = (digits.images[:NUM_IMAGES] / 255 - digits.mean) / digits.std
    return images, digits.labels[:NUM_IMAGES]


def network():
    return NasBench201Network(**SIZES._asdict(), param_dtype=jnp.float64)


def cells():
    """Groups of 5 cells in which every edge has every operation once."""
    first = np.random.default_rng(SEED).integers(0, 5, (NUM_GROUPS, NUM_EDGES))
    return ((first[:, None, :] + np.arange(5)[None, :, None]) % 5).reshape(-1, NUM_EDGES)


def weights():
    """Weights of every candidate, within 1/sqrt(fan_in); batch norm's around the initial ones."""
    images, _ = minibatch()
    genotype = jnp.zeros(NUM_EDGES, jnp.int32)
    shapes = jax.eval_shape(network().init, jax.random.key(0), images, genotype)
    rng = np.random.default_rng(SEED)

    def draw(path, leaf):
        bound = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.5
        return (path[-1].key == "scale") + rng.uniform(-bound, bound, leaf.shape)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def main():
    jax.config.update("jax_enable_x64", True)
    images, labels = minibatch()
    variables = weights()
    with SCORES.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("arch", "score"))
        for cell in cells():
            state_dict = to_state_dict(variables, cell, cells_per_stage=SIZES.cells_per_stage)
            run = pytorch.run_cell(cell, images, sizes=SIZES, state_dict=state_dict)
            score = pytorch.released_score(run.jacobian, labels)
            writer.writerow((format_arch(cell), "" if np.isnan(score) else f"{score:.12g}"))


if __name__ == "__main__":
    main()
