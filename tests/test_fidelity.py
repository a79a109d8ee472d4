"""The page `docs/fidelity.md`: its tests exist, and those that stand nowhere else."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax import NasBench201Network

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "fidelity.md").read_text()


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 20
    for path, name in named:
        body = ast.parse((ROOT / path).read_text()).body
        assert name in {node.name for node in body if isinstance(node, ast.FunctionDef)}, name


def test_every_point_of_the_page_names_a_test():
    points = [block for block in PAGE.split("\n\n") if block.startswith("**")]
    assert len(points) > 15
    for point in points:
        assert re.search(r"`tests/[\w/]+\.py::\w+`", point), point.splitlines()[0]


def test_batch_norm_uses_the_statistics_of_the_mini_batch(minibatch):
    images, _ = minibatch
    network = NasBench201Network(
        num_classes=3, channels=4, cells_per_stage=1, param_dtype=jnp.float64
    )
    genotype = (3, 2, 0, 1, 4, 3)
    variables = jax.jit(lambda key: network.init(key, images, genotype))(jax.random.key(0))
    apply = jax.jit(lambda variables, images: network.apply(variables, images, genotype))
    together = apply(variables, images)
    half = apply(variables, images[:4])
    assert not np.allclose(together[:4], half, rtol=0.01)
    # Nothing is kept between calls.
    assert set(variables) == {"params"}
