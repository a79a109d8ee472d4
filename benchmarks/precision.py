r"""What it does to the ranking when products are rounded as GPUs and TPUs may do.

A CPU computes products in full, so the factors of every convolution are rounded here to the
mantissas of TF32 and bfloat16 before it, forward and backward; sums stay in float32, as on the
device. Prints the Spearman of the scores with those in float32.

Command:  python benchmarks/precision.py --cells=100
"""

from collections.abc import Sequence

import jax
import numpy as np
from absl import app, flags
from jax import lax

from epe_nas_jax import Network, convolution, ranking, runtime
from epe_nas_jax.batching import CellScorer
from epe_nas_jax.data import draw_fixed_minibatch, load_dataset
from epe_nas_jax.genotype import sample

_DATASET = flags.DEFINE_string("dataset", "digits", "Name of the data set.")
_PATH = flags.DEFINE_string("path", "", "Its file.")
_CELLS = flags.DEFINE_integer("cells", 100, "How many uniformly drawn cells.", lower_bound=3)
_BATCH = flags.DEFINE_integer("batch", 256, "Images in the mini-batch.", lower_bound=2)

_MANTISSA_BITS = {"float32": 23, "tensorfloat32": 10, "bfloat16": 7}


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    runtime.prepare()
    dataset = load_dataset(_DATASET.value, _PATH.value)
    images, labels = draw_fixed_minibatch(jax.random.key(0), dataset, _BATCH.value, augment=False)
    cells = np.asarray(sample(jax.random.key(1), _CELLS.value))
    convolve, convolve_back = convolution.convolve, convolution.input_cotangent
    full = np.zeros(0)
    for name, bits in _MANTISSA_BITS.items():

        def rounded(x: jax.Array, bits: int = bits) -> jax.Array:
            return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits)

        def forward(x: jax.Array, kernel: jax.Array, stride: int = 1, rounded=rounded) -> jax.Array:
            return convolve(rounded(x), rounded(kernel), stride)

        def backward(
            kernel: jax.Array, dy: jax.Array, stride: int = 1, rounded=rounded
        ) -> jax.Array:
            return convolve_back(rounded(kernel), rounded(dy), stride)

        forward.fun = convolve.fun
        convolution.convolve, convolution.input_cotangent = forward, backward
        jax.clear_caches()
        scorer = CellScorer(
            images, labels, seed=0, network=Network(dataset.num_classes), progress=True
        )
        scores = scorer(cells)
        full = scores if name == "float32" else full
        spearman = ranking.spearman(full, scores)
        error = np.nanmedian(np.abs(scores / full - 1))
        print(f"{name:<14} Spearman {spearman and spearman.value:.4f}, median error {error:.1e}")


if __name__ == "__main__":
    app.run(main)
