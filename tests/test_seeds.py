import ast
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epe_nas_jax
from epe_nas_jax import InputError
from epe_nas_jax.seeds import check_seed, generator, random_key

PACKAGE = Path(epe_nas_jax.__file__).parent


@pytest.mark.parametrize("x64", [False, True])
def test_seeds_of_different_value_have_different_keys(x64):
    seeds = [0, 1, 2**31 - 1, 2**31, 2**32 - 1]
    with jax.enable_x64(x64):
        keys = {jax.random.key_data(random_key(seed)).tobytes() for seed in seeds}
    assert len(keys) == len(seeds)
    assert len({generator(seed).integers(2**62) for seed in seeds}) == len(seeds)


@settings(deadline=None)
@given(st.integers(), st.integers())
def test_two_integers_have_two_keys_or_are_refused(a, b):
    found = []
    for seed in (a, b):
        try:
            found.append(jax.random.key_data(random_key(seed)).tobytes())
        except InputError:
            assert not 0 <= seed < 2**32
    assert len(set(found)) == len(found) or a == b


@pytest.mark.parametrize("kind", [int, np.int8, np.uint64, np.array, jax.numpy.int32])
def test_any_type_of_integer_is_a_seed(kind):
    assert check_seed(kind(5)) == 5


@pytest.mark.parametrize("seed", [2**32, 2**40, -1, 1.5, 1.0, True, "1", None, np.array([1, 2])])
def test_what_is_no_seed_is_refused_by_name(seed):
    with pytest.raises(InputError, match=r"^train seed: found .*, expected a whole number in 0"):
        check_seed(seed, "train seed")


def test_no_other_module_makes_random_numbers_of_a_seed():
    for path in PACKAGE.rglob("*.py"):
        if path.name == "seeds.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ("random.key", "random.PRNGKey", "default_rng", "RandomState")
            ):
                assert isinstance(node.args[0], ast.Constant), f"{path}: {ast.unparse(node)}"
