"""PyTorch's weights as ours and back; the state dicts are built here, without PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax import InputError, NasBench201Network
from epe_nas_jax.pytorch.weights import Sizes, from_state_dict, sizes_of, to_state_dict

GENOTYPE = (3, 2, 0, 1, 4, 3)
WITHOUT_WEIGHTS = (1, 4, 0, 1, 1, 4)
NETWORK = NasBench201Network(num_classes=3, channels=4, cells_per_stage=2)
IMAGES = np.zeros((2, 8, 8, 3), np.float32)


@pytest.fixture(scope="module")
def variables():
    """Weights of every candidate, no two alike."""
    init = jax.jit(NETWORK.init)
    shapes = init(jax.random.key(0), IMAGES, jnp.zeros(6, jnp.int32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.fixture
def state_dict(variables):
    return to_state_dict(variables, GENOTYPE, cells_per_stage=2)


def static_variables(genotype):
    return jax.eval_shape(lambda: NETWORK.init(jax.random.key(0), IMAGES, genotype))


def flatten(tree):
    return {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize("genotype", [GENOTYPE, WITHOUT_WEIGHTS, (2,) * 6, (3,) * 6])
def test_there_and_back_is_exact(variables, genotype):
    state_dict = to_state_dict(variables, genotype, cells_per_stage=2)
    back = flatten(from_state_dict(state_dict, genotype))
    all_weights = flatten(variables)
    assert set(back) == set(flatten(static_variables(genotype)))
    for path, leaf in back.items():
        assert leaf.dtype == np.float32
        assert np.array_equal(leaf, all_weights[path]), path
    again = to_state_dict(from_state_dict(state_dict, genotype), genotype, cells_per_stage=2)
    assert list(again) == list(state_dict)
    for name, value in again.items():
        assert value.dtype == state_dict[name].dtype
        assert np.array_equal(value, state_dict[name]), name


def test_every_operation_adds_zeros_that_a_traced_genotype_can_use(state_dict, variables):
    full = from_state_dict(state_dict, GENOTYPE, every_operation=True)
    own = flatten(from_state_dict(state_dict, GENOTYPE))
    assert jax.tree.map(np.shape, full) == jax.tree.map(np.shape, dict(variables))
    for path, leaf in flatten(full).items():
        assert np.array_equal(leaf, own.get(path, np.zeros_like(leaf))), path


def test_kernels_are_transposed_not_reshaped(state_dict, variables):
    stem = variables["params"]["stem"]["conv_bn"]["kernel"]
    assert state_dict["stem.0.weight"][1, 2, 0, 1] == stem[0, 1, 2, 1]
    classifier = variables["params"]["head"]["classifier_kernel"]
    assert state_dict["classifier.weight"][2, 5] == classifier[5, 2]


def test_batch_norm_statistics_are_dropped_and_come_back_new(state_dict):
    assert not state_dict["stem.1.running_mean"].any()
    assert (state_dict["cells.0.layers.0.op.2.running_var"] == 1).all()
    assert state_dict["lastact.0.num_batches_tracked"] == np.int64(0)
    expected = flatten(from_state_dict(state_dict, GENOTYPE))
    state_dict["stem.1.running_mean"] = np.full(4, 7.0)
    del state_dict["lastact.0.running_var"]
    got = flatten(from_state_dict(state_dict, GENOTYPE))
    assert all(np.array_equal(got[path], expected[path]) for path in expected)


def test_weights_are_copies(state_dict):
    got = from_state_dict(state_dict, GENOTYPE)
    state_dict["stem.0.weight"][:] = 0
    assert got["params"]["stem"]["conv_bn"]["kernel"].any()


def test_sizes_are_read_off_even_where_a_cell_has_no_weights(variables):
    state_dict = to_state_dict(variables, WITHOUT_WEIGHTS, cells_per_stage=2)
    assert sizes_of(state_dict) == Sizes(channels=4, cells_per_stage=2, num_classes=3)


def without(name):
    return lambda weights: weights.pop(name)


def with_value(name, value):
    return lambda weights: weights.update({name: value})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("stem.0.weight"), "'stem.0.weight': found none"),
        (with_value("stem.0.weight", np.zeros(4)), r"found shape \(4,\), expected rank 4"),
        (without("classifier.bias"), r"'classifier.bias': found none, expected shape \(3,\)"),
        (
            without("cells.1.layers.0.op.1.weight"),
            r"'cells.1.layers.0.op.1.weight': found none, expected shape \(4, 4, 3, 3\) for the "
            r"cell \|nor_conv_3x3~0\|",
        ),
        (with_value("cells.9.x", np.zeros(2)), r"'cells.9.x': found one of shape \(2,\)"),
        (
            with_value("cells.0.layers.1.op.1.weight", np.zeros((4, 4, 3, 3))),
            r"'cells.0.layers.1.op.1.weight': found shape \(4, 4, 3, 3\), "
            r"expected \(4, 4, 1, 1\)",
        ),
        (with_value("stem.1.bias", np.zeros(4, int)), "found dtype int64, expected floating"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused(state_dict, damage, message):
    damage(state_dict)
    with pytest.raises(InputError, match=message):
        from_state_dict(state_dict, GENOTYPE)


def test_a_state_dict_of_another_cell_or_network_is_refused(state_dict):
    with pytest.raises(InputError, match=r"entry 'cells\.0\.layers\.0\.op\.1\.weight': found"):
        from_state_dict(state_dict, (0, *GENOTYPE[1:]))
    with pytest.raises(InputError, match=r"'cells\.\*\.conv_a\.op\.1\.weight': found none"):
        from_state_dict(
            {"stem.0.weight": np.zeros((4, 3, 3, 3)), "classifier.weight": np.zeros((3, 4))},
            GENOTYPE,
        )


@pytest.mark.parametrize("cells_per_stage", [1, 3])
def test_the_wrong_number_of_cells_is_refused(variables, cells_per_stage):
    with pytest.raises(InputError, match=r"variables, array 'cell_\d"):
        to_state_dict(variables, GENOTYPE, cells_per_stage=cells_per_stage)


def test_variables_that_do_not_fit_are_refused(variables):
    with pytest.raises(InputError, match="array 'stem/conv_bn/kernel': found none"):
        to_state_dict({}, GENOTYPE)
    params = dict(variables["params"], head=dict(variables["params"]["head"], bias=np.zeros(3)))
    with pytest.raises(InputError, match=r"'head/bias': found shape \(3,\), expected \(16,\)"):
        to_state_dict({"params": params}, GENOTYPE, cells_per_stage=2)
    params = dict(variables["params"], tail=np.zeros(3))
    with pytest.raises(InputError, match="array 'tail': found one of shape"):
        to_state_dict({"params": params}, GENOTYPE, cells_per_stage=2)
