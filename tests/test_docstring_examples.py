"""The examples of docstrings run, and print what they say."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epe_nas_jax

NOT_IMPORTED = {"epe_nas_jax.main", "epe_nas_jax.train", "epe_nas_jax.compare"}


def examples():
    """Every docstring of the package that has an example."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in pkgutil.walk_packages(epe_nas_jax.__path__, "epe_nas_jax."):
        if module.name in NOT_IMPORTED:
            continue
        found = finder.find(importlib.import_module(module.name), module.name)
        yield from (test for test in found if test.examples)


@pytest.fixture(scope="module")
def names():
    """What examples may use without making it: docs/reference/index.md lists it."""
    rng = np.random.default_rng(0)
    return {
        "epe_nas_jax": epe_nas_jax,
        "jax": jax,
        "jnp": jnp,
        "np": np,
        "images": rng.normal(size=(8, 8, 8, 3)).astype(np.float32),
        "labels": np.array([0, 1, 2, 0, 1, 2, 0, 1]),
        "network": epe_nas_jax.NasBench201Network(num_classes=3, channels=4, cells_per_stage=1),
    }


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_a_docstring_example_runs(example, names, trained_run, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "trained").symlink_to(trained_run)
    monkeypatch.chdir(tmp_path)
    # Not what its module imports: a reader has not.
    example.globs = {"__name__": example.name, **names}
    said = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    doctest.DocTestRunner(optionflags=flags, verbose=False).run(example, out=said.append)
    assert not said, "".join(said)
