import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epe_nas_jax.scoring.packing import in_vain, mix_of, pack, profiles_of
from epe_nas_jax.spaces.nasbench201.genotype import OPERATIONS, every_genotype, prune_dead, sample
from epe_nas_jax.spaces.nasbench201.operations import GROUP_WORK

CONV_3X3 = OPERATIONS.index("nor_conv_3x3")


def packed(cells, cells_per_step, meant=None):
    mix = mix_of(cells if meant is None else meant, GROUP_WORK)
    return pack(cells, profiles_of(mix, cells_per_step), GROUP_WORK)


def uniform(seed, size):
    return np.unique(prune_dead(np.asarray(sample(jax.random.key(seed), size))), axis=0)


def check(cells, steps):
    """Every cell is in one step, and no step has more of anything than it has room for."""
    assert sorted(np.concatenate([rows for _, rows in steps])) == list(range(len(cells)))
    assert len({profile for profile, _ in steps}) <= 3
    for profile, rows in steps:
        assert 1 <= len(rows) <= profile.num_cells
        for edge, capacities in enumerate(profile.capacities):
            counts = np.bincount(cells[rows, edge], minlength=len(OPERATIONS))
            assert (counts <= capacities).all()


@given(st.integers(0, 99), st.integers(1, 60), st.sampled_from([1, 4, 16, 64]), st.booleans())
@settings(deadline=None, max_examples=40)
def test_any_list_is_packed(seed, num_cells, cells_per_step, is_known):
    rng = np.random.default_rng(seed)
    # Lists of few kinds of operations too.
    cells = rng.choice(rng.integers(0, 5, 3), (num_cells, 6))
    steps = packed(cells, cells_per_step, meant=None if is_known else every_genotype())
    check(cells, steps)


@pytest.mark.parametrize(
    ("cells", "most"),
    [
        (np.full((1000, 6), CONV_3X3), 0.01),
        (uniform(0, 1000), 0.1),
        (uniform(1, 1000), 0.1),
        (uniform(2, 300), 0.1),
        (np.unique(prune_dead(every_genotype()), axis=0), 0.1),
    ],
    ids=["3x3 only", "uniform", "uniform, another", "uniform, short", "the whole space"],
)
@pytest.mark.parametrize("cells_per_step", [64, 128])
def test_little_of_the_slowest_operation_is_computed_in_vain(cells, most, cells_per_step):
    steps = packed(cells, cells_per_step)
    check(cells, steps)
    # The figure that the project promises for such lists.
    assert 0 <= in_vain(cells, steps, CONV_3X3) <= most


def test_equal_lists_are_packed_alike():
    cells = uniform(0, 300)
    one, other = packed(cells, 32), packed(cells.copy(), 32)
    assert [p for p, _ in one] == [p for p, _ in other]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(one, other, strict=True))


def test_a_list_that_fits_is_one_step_and_more_devices_have_an_equal_part():
    cells = uniform(0, 100)
    assert len(packed(cells, 1024)) == 1
    mix = mix_of(cells, GROUP_WORK)
    sizes = [profiles_of(mix, 1024, num_devices)[0].num_cells for num_devices in (1, 2, 8)]
    assert sizes == [-(-len(cells) // num_devices) for num_devices in (1, 2, 8)]


def test_a_mix_is_the_share_of_each_operation_on_each_edge():
    mix = mix_of(np.array([[0, 3, 1, 1, 4, 2], [3, 3, 1, 2, 2, 2]]), GROUP_WORK)
    assert mix.num_cells == 2
    assert mix.shares[:3].tolist() == [[0.5, 0, 0, 0.5, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 0]]
    assert np.allclose(mix.shares.sum(axis=1), 1)
