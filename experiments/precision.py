r"""What it does to the ranking when products are rounded as GPUs and TPUs may do.

A CPU computes products in full. Here the factors of every product are rounded before it, forward
and backward, to the mantissas that `score.precision` allows an accelerator to keep; sums stay in
float32, as on the device. Prints the Spearman of the scores with those in float32.

Command:  python -m experiments.precision --cells=100
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np
from absl import app, flags
from jax import lax
from tqdm import tqdm

from epe_nas_jax import NasBench201Network
from epe_nas_jax.data.datasets import draw_fixed_minibatch, load_dataset
from epe_nas_jax.proxies.cell_proxies import cell_proxies
from epe_nas_jax.runs import runtime
from epe_nas_jax.scoring.config import PRECISIONS
from epe_nas_jax.scoring.scorer import shared_weights
from epe_nas_jax.search import ranking
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead, sample

_DATASET = flags.DEFINE_string("dataset", "digits", "Name of the data set.")
_PATH = flags.DEFINE_string("path", "", "Its file.")
_CELLS = flags.DEFINE_integer("cells", 100, "How many uniformly drawn cells.", lower_bound=3)
_BATCH = flags.DEFINE_integer("batch", 256, "Images in the mini-batch.", lower_bound=2)

# What an accelerator keeps of a factor, by the precision with which a product is traced.
_MANTISSA_BITS = {lax.Precision.HIGH: 10, lax.Precision.DEFAULT: 7}
_PRODUCTS = ("conv_general_dilated", "dot_general")


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    runtime.prepare()
    dataset = load_dataset(_DATASET.value, _PATH.value)
    images, labels = draw_fixed_minibatch(jax.random.key(0), dataset, _BATCH.value, augment=False)
    network = NasBench201Network(dataset.num_classes)
    variables = shared_weights(0, network, images)
    cells = prune_dead(np.asarray(sample(jax.random.key(1), _CELLS.value)))

    def score(variables: Any, cell: jax.Array) -> jax.Array:
        scores, _ = cell_proxies(variables, cell, images, labels, network=network, proxies=("epe",))
        return scores[0]

    full = np.zeros(0)
    for precision in PRECISIONS:
        with jax.default_matmul_precision(precision):
            program = jax.jit(rounded(score, variables, cells[0]))
        progress = tqdm(cells, desc=precision, leave=False)
        scores = np.array([program(variables, cell) for cell in progress])
        full = scores if precision == "float32" else full
        spearman = ranking.spearman(full, scores)
        error = np.nanmedian(np.abs(scores / full - 1))
        print(
            f"{precision:<14} Spearman {spearman and spearman.value:.4f}, median error {error:.1e}"
        )


def rounded(function: Callable[..., jax.Array], *arguments: Any) -> Callable[..., jax.Array]:
    """A function with every factor of a product rounded as an accelerator may round it.

    Args:
      function: any function of arrays.
      *arguments: for which it is traced, with the matmul precision of here and now.
    """
    traced = jax.make_jaxpr(function)(*arguments)

    def run(*arguments: Any) -> jax.Array:
        return _run_rounded(traced, *jax.tree.leaves(arguments))[0]

    return run


def _run_rounded(program: jex.ClosedJaxpr, *inputs: jax.Array) -> list[jax.Array]:
    """Runs a program as traced, operation after operation, with the factors of products rounded."""
    jaxpr = program.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*program.consts, *inputs), strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, jex.Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [value(atom) for atom in equation.invars]
        outputs = _run_operation(equation, operands)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _run_operation(equation: jex.JaxprEqn, operands: list[Any]) -> list[Any]:
    primitive, parameters = equation.primitive, equation.params
    assert primitive.name not in ("scan", "while"), "the products in a loop would not be rounded"
    if primitive.name == "cond":
        branches = [functools.partial(_run_rounded, branch) for branch in parameters["branches"]]
        return lax.switch(operands[0], branches, *operands[1:])
    for parameter in parameters.values():
        if isinstance(parameter, jex.ClosedJaxpr):
            return _run_rounded(parameter, *operands)
    if primitive.name in _PRODUCTS:
        operands = [_rounded(x, parameters["precision"][0]) for x in operands]
    outputs = primitive.bind(*operands, **parameters)
    return outputs if primitive.multiple_results else [outputs]


def _rounded(x: jax.Array, precision: lax.Precision) -> jax.Array:
    if precision is lax.Precision.HIGHEST:
        return x
    return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=_MANTISSA_BITS[precision])


if __name__ == "__main__":
    app.run(main)
