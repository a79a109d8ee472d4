import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epe_nas_jax import InputError, NasBench201Network
from epe_nas_jax.scoring.planning import Shard, assign_slots, fit_memory, plan_steps
from epe_nas_jax.spaces.nasbench201.genotype import (
    NUM_CELLS,
    decode,
    prune_dead,
    relative_work,
    sample,
)

SHAPE = (256, 32, 32, 3)


class Accelerator:
    platform = "gpu"

    def __init__(self, bytes_limit):
        self._bytes_limit = bytes_limit

    def memory_stats(self):
        return {"bytes_limit": self._bytes_limit}


def test_a_given_number_of_cells_is_kept_and_anything_else_refused():
    assert plan_steps(3, NasBench201Network(10), SHAPE, jax.devices())[0] == 3
    assert plan_steps(np.int64(3), NasBench201Network(10), SHAPE, jax.devices())[0] == 3
    for bad in (0, -1, 2.5, "many", True, None, np.int64(0), np.float32(3), 10**12):
        with pytest.raises(InputError, match="cells_per_step"):
            plan_steps(bad, NasBench201Network(10), SHAPE, jax.devices())


@pytest.mark.parametrize("gigabytes", [8, 24, 80, 141])
def test_an_accelerator_gets_as_many_cells_as_its_memory_holds(gigabytes):
    cells, num_devices = plan_steps(
        "auto", NasBench201Network(10), SHAPE, [Accelerator(gigabytes * 10**9)]
    )
    # 0.535 GB a cell, by `benchmarks.gpu_program` for an H100.
    assert num_devices == 1
    assert gigabytes / 4 <= cells <= gigabytes / 0.52
    wider = plan_steps(
        "auto", NasBench201Network(10, channels=64), SHAPE, [Accelerator(gigabytes * 10**9)]
    )
    assert wider[0] <= max(1, cells // 4 + 1)


def test_no_more_cores_are_used_than_memory_holds():
    double = NasBench201Network(10, param_dtype=jnp.float64)
    assert plan_steps("auto", double, (10**6, 32, 32, 3), jax.devices())[1] == 1
    assert plan_steps(5, double, (10**6, 32, 32, 3), jax.devices()) == (5, 1)
    assert plan_steps("auto", double, (16, 32, 32, 3), jax.devices())[1] == 2


def test_a_step_of_small_cells_has_more_of_them():
    network, cpus = NasBench201Network(10), jax.devices()
    shapes = [(256, 32, 32, 3), (256, 16, 16, 3), (128, 16, 16, 3), (32, 8, 8, 3), (2, 4, 4, 3)]
    cells = [plan_steps("auto", network, shape, cpus)[0] for shape in shapes]
    # 16 GiB by 1.32 GB, 0.33 GB and 0.17 GB a cell, and less.
    assert cells == [16, 52, 104, 256, 256]


def test_memory_is_fitted_by_fewer_devices_of_a_cpu_and_fewer_cells_of_others():
    cpus, gpus = jax.devices(), [Accelerator(1)] * 2
    assert fit_memory(16, cpus, needed=10, usable=20) == (16, 2)
    assert fit_memory(16, cpus, needed=11, usable=20) == (16, 1)
    assert fit_memory(16, cpus, needed=11, usable=5) == (16, 1)
    assert fit_memory(64, gpus, needed=100, usable=100) == (64, 2)
    assert fit_memory(64, gpus, needed=128, usable=100) == (50, 2)
    assert fit_memory(64, gpus, needed=101, usable=100) == (63, 2)
    assert fit_memory(1, gpus, needed=128, usable=100) == (1, 2)


@settings(deadline=None)
@given(
    num_cells=st.integers(0, 24), num_devices=st.sampled_from([1, 2, 3, 4]), seed=st.integers(0, 99)
)
def test_every_network_has_one_slot_and_none_is_invented(num_cells, num_devices, seed):
    work = np.random.default_rng(seed).integers(6, 54, num_cells)
    order = assign_slots(work, num_devices, cells_per_step=24)
    assert order.shape == (24 * num_devices,)
    assert np.array_equal(np.sort(order[order < num_cells]), np.arange(num_cells))
    assert np.sum(order == num_cells) == order.size - num_cells


def test_devices_get_about_the_same_work():
    networks = np.asarray(sample(jax.random.key(0), 128))
    order = assign_slots(relative_work(networks), 8, cells_per_step=16)
    shares = networks[order.reshape(8, 16)]
    work = np.array([1, 1, 3, 9, 2])[shares].sum(axis=(1, 2))
    # In the order drawn the spread is 28 %, assigned in turn without turning back 10 %.
    assert np.ptp(work) < 0.03 * work.mean()


def test_no_device_is_5_percent_busier_than_the_mean_in_steps_as_a_run_takes_them():
    # A run scores different live forms in ascending order, 16 a CPU device and step.
    every_cell = np.asarray(decode(np.arange(NUM_CELLS)))
    networks = np.unique(prune_dead(every_cell), axis=0)
    for start in range(0, len(networks) - 128, 128):
        step = networks[start : start + 128]
        shares = step[assign_slots(relative_work(step), 8, cells_per_step=16).reshape(8, 16)]
        work = np.array([1, 1, 3, 9, 2])[shares].sum(axis=(1, 2))
        assert work.max() < 1.05 * work.mean()


@given(st.integers(1, 24), st.integers(1, 4), st.integers(0, 2**31 - 1))
@settings(deadline=None)
def test_processes_share_the_cells_of_a_step_out(num_cells, num_processes, seed):
    work = np.random.default_rng(seed).integers(6, 54, num_cells)
    num_slots = -(-num_cells // num_processes)
    rows = [
        Shard(process, num_processes, 1, num_slots).rows(work) for process in range(num_processes)
    ]
    assert all(len(own) <= num_slots and (np.diff(own) > 0).all() for own in rows)
    assert sorted(np.concatenate(rows)) == list(range(num_cells))
