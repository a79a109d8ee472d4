"""The two sides of a comparison: which can be had, and that ours has the weights it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax import InputError, NasBench201Network
from epe_nas_jax.pytorch import sides
from epe_nas_jax.pytorch.weights import Sizes, to_state_dict
from epe_nas_jax.spaces.table import space_entry

CELLS = np.array([(3, 2, 0, 1, 4, 3), (0, 0, 1, 0, 0, 2), (2, 1, 0, 3, 4, 1)])
NETWORK = NasBench201Network(3, channels=4, cells_per_stage=1, param_dtype=jnp.float64)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(12, 8, 8, 3))), jnp.arange(12) % 3


@pytest.fixture(scope="module")
def of_seed(batch):
    """Our side with the weights of a seed, two cells a step of each of two devices."""
    return sides.compile_for_seed(5, CELLS, *batch, NETWORK, 2)


def test_the_program_of_a_seed_and_that_of_its_weights_have_the_same_scores(batch, of_seed):
    of_weights = sides.compile_for_weights(of_seed.variables, CELLS, *batch, NETWORK)
    assert (of_seed.cells_per_turn, of_weights.cells_per_turn) == (4, 1)
    assert min(of_seed.compile_seconds, of_weights.compile_seconds) > 0
    scores = of_seed.score_fn(CELLS)
    assert np.isnan(scores).tolist() == [False, True, False]
    np.testing.assert_allclose(of_weights.score_fn(CELLS), scores, rtol=1e-7)


def test_a_checkpoints_weights_are_those_of_the_cell_and_zeros_beside_them(of_seed):
    state_dict = to_state_dict(of_seed.variables, CELLS[0], cells_per_stage=1)
    variables = sides.variables_of(state_dict, CELLS[0], NETWORK)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, of_seed.variables)
    back = to_state_dict(variables, CELLS[0], cells_per_stage=1)
    assert all(np.array_equal(back[name], value) for name, value in state_dict.items())
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(variables))
    # The edge that has a 3x3 convolution has no other one.
    assert not variables["params"]["cell_0"]["edge_0_nor_conv_1x1"]["kernel"].any()
    assert variables["params"]["cell_0"]["edge_0_nor_conv_3x3"]["kernel"].any()


def test_a_checkpoint_of_other_sizes_is_refused(of_seed):
    state_dict = to_state_dict(of_seed.variables, CELLS[0], cells_per_stage=1)
    other = NasBench201Network(3, channels=8, cells_per_stage=1)
    with pytest.raises(InputError, match=r"compare\.checkpoint, channels: found 4, expected 8"):
        sides.variables_of(state_dict, CELLS[0], other)


def test_pytorch_has_no_network_of_another_space():
    assert sides.check_network(NETWORK) is NETWORK
    darts = space_entry("darts").make_network(3, 4, 1, jnp.float64)
    with pytest.raises(InputError, match=r"space\.name: found 'darts', expected 'nasbench201'"):
        sides.check_network(darts)


@pytest.mark.parametrize(("backend", "device"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_pytorch_computes_on_the_device_of_jax(monkeypatch, backend, device):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert sides.torch_device() == device


def test_a_device_that_pytorch_does_not_share_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(InputError, match="device: found tpu, expected one that PyTorch shares"):
        sides.torch_device()


def test_pytorchs_process_runs_cells_until_it_is_to_stop(batch, of_seed):
    images = np.asarray(batch[0])
    asked = []

    def check_stop():
        asked.append(len(asked))
        if len(asked) == 2:
            raise KeyboardInterrupt

    state_dict = to_state_dict(of_seed.variables, CELLS[0], cells_per_stage=1)
    with sides.torch_process("cpu", "") as torch:
        assert torch.num_threads >= 1
        run_torch = torch.runner(NETWORK, images, check_stop)
        run = run_torch(CELLS[0], state_dict, at_its_best=False)
        with pytest.raises(KeyboardInterrupt):
            run_torch(CELLS[0], state_dict, at_its_best=False)
    logits = NETWORK.apply(of_seed.variables, batch[0], jnp.asarray(CELLS[0]))
    np.testing.assert_allclose(run.logits, logits, rtol=1e-9, atol=1e-12)
    assert NETWORK.sizes == Sizes(channels=4, cells_per_stage=1, num_classes=3)
    assert asked == [0, 1]


def test_pytorchs_process_says_what_is_missing(tmp_path):
    with (
        pytest.raises(InputError, match="found no folder 'models', expected a checkout"),
        sides.torch_process("cpu", str(tmp_path)),
    ):
        pytest.fail("it was started")
