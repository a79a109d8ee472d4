import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epe_nas_jax.scoring.packing import has_room, in_vain, pack, packer_of
from epe_nas_jax.spaces.nasbench201.genotype import OPERATIONS, every_genotype, prune_dead, sample
from epe_nas_jax.spaces.nasbench201.operations import GROUP_WORK

GOLDEN = (
    [[32], [32], [32], [32], [32], [32], [32], [21], [2], [2], [2], [1]],
    [7, 123, 178, 142, 219, 244, 159, 23],
)
CONV_3X3 = OPERATIONS.index("nor_conv_3x3")


def uniform(seed, size):
    return np.unique(prune_dead(np.asarray(sample(jax.random.key(seed), size))), axis=0)


TYPICAL = [uniform(seed, 1000) for seed in range(8)]


def packed(cells, cells_per_step, num_together=None, num_devices=1):
    packer = packer_of(TYPICAL, GROUP_WORK, num_together)
    profiles = packer.profiles(cells_per_step, num_devices)
    return pack(cells, profiles, GROUP_WORK, num_devices)


def check(cells, rounds, num_devices=1):
    """Every cell is in one step, and no step has more of anything than it has room for."""
    numbers = [number for done in rounds for step in done.steps for number in step]
    assert sorted(numbers) == list(range(len(cells)))
    assert len({done.profile for done in rounds}) <= 3
    for profile, steps in rounds:
        assert 1 <= len(steps) <= num_devices
        for rows in steps:
            assert 1 <= len(rows) <= profile.num_cells
            for edge, capacities in enumerate(profile.capacities):
                counts = np.bincount(cells[rows, edge], minlength=len(OPERATIONS))
                assert (counts <= capacities).all()
            assert has_room(cells[rows], profile.capacities)


@given(
    seed=st.integers(0, 99),
    num_cells=st.integers(0, 60),
    cells_per_step=st.sampled_from([1, 4, 16, 64]),
    num_devices=st.sampled_from([1, 2, 8]),
    is_known=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_any_list_is_packed(seed, num_cells, cells_per_step, num_devices, is_known):
    rng = np.random.default_rng(seed)
    # Lists of few kinds of operations too.
    cells = rng.choice(rng.integers(0, 5, 3), (num_cells, 6))
    num_together = num_cells if is_known and num_cells else None
    check(cells, packed(cells, cells_per_step, num_together, num_devices), num_devices)


@pytest.mark.parametrize(
    ("cells", "most"),
    [
        (uniform(100, 1000), 0.13),
        (uniform(101, 1000), 0.13),
        (np.unique(prune_dead(every_genotype()), axis=0), 0.1),
    ],
    ids=["uniform", "uniform, another", "the whole space"],
)
@pytest.mark.parametrize("cells_per_step", [64, 128])
def test_little_of_the_slowest_operation_is_computed_in_vain(cells, most, cells_per_step):
    rounds = packed(cells, cells_per_step)
    check(cells, rounds)
    # A tenth, and what 64 or 128 cells of 1,000 cannot divide.
    assert 0 <= in_vain(cells, rounds, CONV_3X3) <= most + cells_per_step / 6400


def test_cells_of_the_slowest_operation_only_fill_their_steps():
    cells = np.full((500, 6), CONV_3X3)
    rounds = packed(cells, 64)
    check(cells, rounds)
    assert in_vain(cells, rounds, CONV_3X3) < 0.3


def test_a_plan_is_the_same_on_any_machine():
    # Processes of one run pack for themselves: golden, and made of integers only.
    rounds = packed(uniform(0, 300), 32)
    sizes = [[len(step) for step in done.steps] for done in rounds]
    first = rounds[0].steps[0][:8].tolist()
    assert (sizes, first) == GOLDEN


def test_a_step_is_no_larger_than_a_list_and_more_devices_have_an_equal_part():
    packer = packer_of(TYPICAL, GROUP_WORK, 100)
    sizes = [packer.profiles(1024, num_devices)[0].num_cells for num_devices in (1, 2, 8)]
    assert sizes == [100, 50, 13]
    unknown = packer_of(TYPICAL, GROUP_WORK, None)
    assert unknown.profiles(1024, 8)[0].num_cells == 1024
    # No program but for the sizes hangs on a list.
    assert len({profile for _ in range(3) for profile in unknown.profiles(64)}) == 3


def test_devices_work_at_the_same_time():
    cells = uniform(0, 1000)
    alone, together = packed(cells, 32), packed(cells, 32, num_devices=8)
    check(cells, together, num_devices=8)
    assert len(together) < len(alone) / 4


def test_a_mix_is_the_mean_share_of_each_operation_on_each_edge():
    one = np.array([[0, 3, 1, 1, 4, 2], [3, 3, 1, 2, 2, 2]])
    other = np.array([[0, 3, 1, 1, 4, 2]])
    packer = packer_of([one, other], GROUP_WORK, None)
    expected = [[0.75, 0, 0, 0.25, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 0]]
    assert packer.mix[:3].tolist() == expected
    assert np.allclose(packer.mix.sum(axis=1), 1)


def test_room_is_counted_for_each_edge_and_operation():
    cells = np.array([[2] * 6, [3] * 6])
    assert has_room(cells, ((2, 2, 1, 1, 2),) * 6)
    assert not has_room(cells, (*((2, 2, 1, 1, 2),) * 5, (2, 2, 1, 0, 2)))
