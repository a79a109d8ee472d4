r"""How the ranking changes when products are rounded as GPUs and TPUs may do.

On a GPU or TPU, the device rounds. A CPU never rounds, so that the factors of every product are
rounded before it, forward and backward, to the mantissas that `score.precision` allows an
accelerator to keep; sums stay in float32, as on the device. With `bfloat16` an accelerator also
keeps the outputs of layers in it: with `--held` a CPU does that, and rounds no other factors.
Prints the Spearman of the scores with those in float32, and the median relative change of a score.

Command:  python -m experiments.precision --cells=100
Command:  python -m experiments.precision --cells=100 --held
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax
from tqdm import tqdm

from epe_nas_jax import NasBench201Network, ScoringConfig, compile_scorer, input_jacobian
from epe_nas_jax.arrays import PRECISIONS
from epe_nas_jax.data.datasets import draw_fixed_minibatch, load_dataset
from epe_nas_jax.proxies.cell_proxies import cell_proxies
from epe_nas_jax.proxies.epe import epe_score
from epe_nas_jax.proxies.jacobian_proxies import jacob_cov_score
from epe_nas_jax.runs import runtime
from epe_nas_jax.scoring.step import shared_weights
from epe_nas_jax.search import ranking
from epe_nas_jax.spaces.nasbench201.genotype import prune_dead, sample

_DATASET = flags.DEFINE_string("dataset", "digits", "Name of the data set.")
_PATH = flags.DEFINE_string("path", "", "Path of the data set.")
_CELLS = flags.DEFINE_integer("cells", 100, "How many uniformly drawn cells.", lower_bound=3)
_BATCH = flags.DEFINE_integer("batch", 256, "Images in the mini-batch.", lower_bound=2)

_HELD = flags.DEFINE_bool("held", False, "On a CPU: round the outputs of layers.")

_PROXIES = ("epe", "jacob_cov")
# Bits of a factor's mantissa that an accelerator keeps, by the precision of a traced product.
_MANTISSA_BITS = {lax.Precision.HIGH: 10, lax.Precision.DEFAULT: 7}
_PRODUCTS = ("conv_general_dilated", "dot_general")


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    runtime.prepare()
    dataset = load_dataset(_DATASET.value, _PATH.value)
    minibatch = draw_fixed_minibatch(jax.random.key(0), dataset, _BATCH.value, augment=False)
    network = NasBench201Network(dataset.num_classes)
    cells = prune_dead(np.asarray(sample(jax.random.key(1), _CELLS.value)))
    names: Sequence[str] = PRECISIONS
    score = scores_at_once
    if jax.default_backend() == "cpu":
        score = scores_with_products_rounded
        if _HELD.value:
            names, score = ("float32", "bfloat16"), scores_with_layers_rounded
    found = {name: score(cells, minibatch, network, name) for name in names}
    full = found["float32"]
    for name, scores in found.items():
        for number, proxy in enumerate(_PROXIES):
            pair = full[:, number], scores[:, number]
            spearman = ranking.spearman(*pair)
            error = np.nanmedian(np.abs(pair[1] / pair[0] - 1))
            rho = "none" if spearman is None else f"{spearman.value:.5f}"
            print(f"{name:<14}{proxy:<13} Spearman {rho}, median error {error:.1e}")


def scores_at_once(
    cells: np.ndarray, minibatch: tuple[Any, Any], network: NasBench201Network, precision: str
) -> np.ndarray:
    """Scores `[A, P]` of cells `[A, E]` as an accelerator computes them, by groups."""
    scorer = compile_scorer(
        *minibatch,
        seed=0,
        network=network,
        config=ScoringConfig(precision=precision, proxies=_PROXIES),
        progress=True,
    )
    return scorer.proxies(cells)


def scores_with_products_rounded(
    cells: np.ndarray, minibatch: tuple[Any, Any], network: NasBench201Network, precision: str
) -> np.ndarray:
    """Scores `[A, P]` of cells `[A, E]`, with the factors of products rounded beforehand."""
    images, labels = minibatch
    variables = shared_weights(0, network, images)

    def score(variables: Any, cell: jax.Array) -> jax.Array:
        return cell_proxies(variables, cell, images, labels, network=network, proxies=_PROXIES)[0]

    with jax.default_matmul_precision(precision):
        program = jax.jit(rounded(score, variables, cells[0]))
    return np.array([program(variables, cell) for cell in tqdm(cells, desc=precision, leave=False)])


def scores_with_layers_rounded(
    cells: np.ndarray, minibatch: tuple[Any, Any], network: NasBench201Network, precision: str
) -> np.ndarray:
    """Scores `[A, P]` of cells `[A, E]`, with the outputs of layers kept in a precision."""
    images, labels = minibatch
    variables = shared_weights(0, network, images)
    half = functools.partial(network.apply, activation_dtype="bfloat16")
    apply = half if precision == "bfloat16" else network.apply

    @jax.jit
    def score(variables: Any, cell: jax.Array) -> jax.Array:
        def apply_fn(variables: Any, images: jax.Array) -> Any:
            return apply(variables, images, cell)

        jacobian = input_jacobian(apply_fn, variables, images)
        return jnp.stack(
            [epe_score(jacobian, labels, network.num_classes), jacob_cov_score(jacobian)]
        )

    return np.array([score(variables, cell) for cell in tqdm(cells, desc=precision, leave=False)])


def rounded(function: Callable[..., jax.Array], *arguments: Any) -> Callable[..., jax.Array]:
    """A function with every factor of a product rounded as an accelerator may round it.

    Args:
      function: any function of arrays.
      *arguments: arguments for which it is traced, with the current matmul precision.
    """
    traced = jax.make_jaxpr(function)(*arguments)

    def run(*arguments: Any) -> jax.Array:
        return _run_rounded(traced, *jax.tree.leaves(arguments))[0]

    return run


def _run_rounded(program: jex.ClosedJaxpr, *inputs: jax.Array) -> list[jax.Array]:
    """Runs a traced program operation by operation, with the factors of products rounded."""
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
