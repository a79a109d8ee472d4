r"""Compares the released code's scoring functions with ours: same weights, images and labels.

Functions of a checkout of VascoLopes/EPE-NAS are executed: `get_batch_jacobian`,
`eval_score_perclass` and `eval_score` of its `search.py`, and nothing else. They score xautodl's
network, with our weights copied in, on one mini-batch of real CIFAR-10 images, all in float64.
Prints the worst relative difference from our `epe` and `jacob_cov`, and the arguments with which
that `search.py` calls its scores.

Command:  python -m experiments.released_score --checkout=EPE-NAS --path=cifar10.npz
"""

import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags
from tqdm import tqdm

from epe_nas_jax import NasBench201Network
from epe_nas_jax.data.datasets import draw_fixed_minibatch, load_dataset
from epe_nas_jax.proxies.cell_proxies import cell_proxies
from epe_nas_jax.pytorch.network import build_network
from epe_nas_jax.pytorch.weights import to_state_dict
from epe_nas_jax.runs import runtime
from epe_nas_jax.scoring.step import shared_weights
from epe_nas_jax.spaces.nasbench201.genotype import has_path, sample

_CHECKOUT = flags.DEFINE_string(
    "checkout",
    None,
    "A checkout of VascoLopes/EPE-NAS; functions of its search.py are executed.",
    required=True,
)
_PATH = flags.DEFINE_string("path", None, "An .npz file of CIFAR-10.", required=True)
_CELLS = flags.DEFINE_integer(
    "cells", 10, "How many uniformly drawn cells; those without a path are left out.", lower_bound=1
)
_BATCH = flags.DEFINE_integer("batch", 64, "Images in the mini-batch.", lower_bound=2)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the cells, the weights and the mini-batch.")

_PROXIES = ("epe", "jacob_cov")


class Released(NamedTuple):
    """The released code's functions.

    Attributes:
      get_batch_jacobian: from a network, images and labels to their input Jacobian and the labels.
      eval_score_perclass: EPE-NAS, from the Jacobian `[N, D]` and a list of labels `[N]`.
      eval_score: the score of all images together, from the Jacobian.
    """

    get_batch_jacobian: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    eval_score_perclass: Callable[..., Any]
    eval_score: Callable[..., Any]


def main(argv: Sequence[str]) -> None:
    """Prints the worst differences."""
    del argv
    script = Path(_CHECKOUT.value) / "search.py"
    if not script.is_file():
        raise app.UsageError(f"{script}: no such file, expected that of the released code")
    program = ast.parse(script.read_text())
    released = load_functions(program)

    jax.config.update("jax_enable_x64", True)
    runtime.prepare()
    cells = np.asarray(sample(jax.random.key(_SEED.value), _CELLS.value))
    cells = cells[has_path(cells)]
    ours, theirs = _scores_of_both(cells, released)
    for name, a, b in zip(_PROXIES, ours.T, theirs.T, strict=True):
        worst = np.abs(a / b - 1).max()
        print(f"{name:<10} {len(cells)} cells, worst relative difference {worst:.1e}")
    for call in score_calls(program):
        print(f"search.py calls {call}")


def load_functions(program: ast.Module) -> Released:
    """Executes the definitions of the functions in `Released`, and nothing else of a program.

    Importing `search.py` would read the command line, the benchmark and the data set.

    Raises:
      UsageError: the program does not define one of them.
    """
    wanted = [
        node
        for node in program.body
        if isinstance(node, ast.FunctionDef) and node.name in Released._fields
    ]
    namespace: dict[str, Any] = {"np": np, "torch": torch}
    code = compile(ast.Module(body=list(wanted), type_ignores=[]), "search.py", "exec")
    exec(code, namespace)  # noqa: S102
    for name in Released._fields:
        if name not in namespace:
            raise app.UsageError(f"search.py: found no function {name}")
    return Released(*[namespace[name] for name in Released._fields])


def score_calls(program: ast.Module) -> list[str]:
    """The calls of the two scores in a program, as text."""
    return [
        ast.unparse(node)
        for node in ast.walk(program)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval_score_perclass", "eval_score")
    ]


def _scores_of_both(cells: np.ndarray, released: Released) -> tuple[np.ndarray, np.ndarray]:
    """Our scores and the released code's of each cell, both `[A, 2]` in the order of `_PROXIES`."""
    dataset = load_dataset("cifar10", _PATH.value)
    key = jax.random.key(_SEED.value)
    images, labels = draw_fixed_minibatch(key, dataset, _BATCH.value, augment=False)
    images = images.astype(jnp.float64)
    network = NasBench201Network(dataset.num_classes, param_dtype=jnp.float64)
    variables = shared_weights(_SEED.value, network, images)

    @jax.jit
    def our_scores(cell: jax.Array) -> jax.Array:
        scores, _ = cell_proxies(variables, cell, images, labels, network=network, proxies=_PROXIES)
        return scores

    ours, theirs = [], []
    for cell in tqdm(cells):
        ours.append(np.asarray(our_scores(jnp.asarray(cell))))
        state_dict = to_state_dict(variables, cell, cells_per_stage=network.cells_per_stage)
        reference = build_network(cell, network.sizes).double()
        reference.load_state_dict({name: torch.tensor(x) for name, x in state_dict.items()})
        theirs.append(_released_scores(released, reference, np.asarray(images), np.asarray(labels)))
    return np.array(ours), np.array(theirs)


def _released_scores(
    released: Released, network: torch.nn.Module, images: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    """The released code's scores of a network, called as its search calls them."""
    x, target = torch.tensor(images.transpose(0, 3, 1, 2)), torch.tensor(labels)
    jacobian, target = released.get_batch_jacobian(network, x, target, None, None)
    rows = jacobian.reshape(jacobian.size(0), -1).numpy()
    # The function takes a list with an array of labels per mini-batch, and reads the first one.
    per_class = released.eval_score_perclass(rows, [target.numpy()])
    return float(per_class), float(np.real(released.eval_score(rows)))


if __name__ == "__main__":
    app.run(main)
