"""DARTS networks: counts, parity with a PyTorch network, and scores in batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from costs import built_parameters
from darts_torch import relu_codes, torch_network

from epe_nas_jax import (
    DartsNetwork,
    InputError,
    ScoringConfig,
    input_jacobian,
    jacobian_score,
    parse_genotype,
    score_cells,
)
from epe_nas_jax.spaces.darts import published
from epe_nas_jax.spaces.darts.edges import CELL_EDGES
from epe_nas_jax.spaces.layers.relu_agreement import COLLECTION

NETWORK = DartsNetwork(num_classes=3, channels=4, num_cells=5, param_dtype=jnp.float64)
SMALL = NETWORK.clone(num_cells=3)
# Together they have every operation on an edge of stride 1, and of stride 2.
TEXTS = {name: getattr(published, name) for name in ("DARTS_V1", "DARTS_V2", "P_DARTS", "PC_DARTS")}
# Liu et al. publish 3.3 for DARTS_V1 too; the genotype they released has 3.17, in PyTorch as well.
PUBLISHED_MILLIONS = {
    "DARTS_V2": 3.3,
    "PC_DARTS": 3.6,
    "P_DARTS": 3.4,
    "GDAS": 3.4,
}
# As they were when every edge had a switch of its own, and convolutions were the compiler's.
SCORES_BEFORE = [42.567105346402954, 38.97132483461282, 35.13276167373644, 42.18520354747089]
SAME = {"rtol": 1e-9, "equal_nan": True}


def variables_of(reference, text):
    """The weights of PyTorch's network by the names of ours."""
    modules = dict(reference.named_modules())

    def array(parameter):
        return parameter.detach().numpy()

    def kernel(conv):
        return array(conv.weight).transpose(2, 3, 1, 0)

    def conv_bn(kernel, norm):
        return {"kernel": kernel, "scale": array(norm.weight), "bias": array(norm.bias)}

    def reduce(module):
        halves = [kernel(conv) for conv in module.convs]
        return conv_bn(np.concatenate(halves, axis=-1), module.bn)

    params = {
        "stem": conv_bn(kernel(modules["stem.conv"]), modules["stem.bn"]),
        "classifier_kernel": array(reference.classifier.weight).T,
        "classifier_bias": array(reference.classifier.bias),
    }
    if isinstance(reference.global_pooling, torch.nn.Sequential):
        norm = reference.global_pooling[0]
        params |= {"last_scale": array(norm.weight), "last_bias": array(norm.bias)}
    call = eval(text, {"Genotype": dict, "range": range})
    reductions = {len(reference.cells) // 3, 2 * len(reference.cells) // 3}
    for number, cell in enumerate(reference.cells):
        own = {}
        for i, preprocess in enumerate((cell.preprocess0, cell.preprocess1)):
            is_reduce = hasattr(preprocess, "convs")
            own[f"preprocess_{i}"] = (
                reduce(preprocess)
                if is_reduce
                else conv_bn(kernel(preprocess.op[1]), preprocess.op[2])
            )
        pairs = call["reduce" if number in reductions else "normal"]
        for i, (op, source) in enumerate(pairs):
            name = f"edge_{CELL_EDGES.index((source, 2 + i // 2))}_{op}"
            module = cell._ops[i]
            if hasattr(module, "convs"):
                own[name] = reduce(module)
            elif "conv" in op:
                steps = list(module.op)
                for part in range(len(steps) // 4):
                    _, depthwise, pointwise, norm = steps[4 * part : 4 * part + 4]
                    full = f"{name}_{part}" if op.startswith("sep") else name
                    own[full] = conv_bn(kernel(pointwise), norm)
                    own[f"{full}_depthwise"] = kernel(depthwise)
        params[f"cell_{number}"] = own
    return {"params": params}


def shapes_of(variables):
    return jax.tree.map(lambda leaf: leaf.shape, variables)


def relative_error(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", ["DARTS_V1", "DARTS_V2", "PC_DARTS", "P_DARTS", "GDAS"])
def test_parameter_count_is_pytorchs_and_the_published_one(name):
    text = getattr(published, name)
    network = DartsNetwork(10, last_activation=False)
    count = built_parameters(network, parse_genotype(text))
    reference = torch_network(text, 36, 6, 10, last_activation=False)
    assert count == sum(parameter.numel() for parameter in reference.parameters())
    if name in PUBLISHED_MILLIONS:
        # Published with two digits: as near as rounding tells.
        assert abs(count / 1e6 - PUBLISHED_MILLIONS[name]) <= 0.05


def run_both(name, *, last_activation):
    """Logits, input Jacobian and agreement of ReLUs, PyTorch's and ours; float64, same weights."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 8, 8, 3))
    reference = torch_network(TEXTS[name], 4, 1, 3, last_activation=last_activation).double()
    # Scales and biases of batch norm other than 1 and 0, so that they are seen too.
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.ndim == 1:
                parameter += torch.tensor(0.3 * rng.normal(size=parameter.shape))
    x = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    _, logits = reference.train()(x)
    logits.sum().backward()
    jacobian = x.grad.numpy().transpose(0, 2, 3, 1).reshape(8, -1)
    codes = relu_codes(reference, x)
    agreement = sum((code[:, None] == code[None]).sum(2) for code in codes)

    genotype = parse_genotype(TEXTS[name])
    network = NETWORK.clone(last_activation=last_activation)
    variables = variables_of(reference, TEXTS[name])
    full = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, genotype), images)
    assert shapes_of(variables) == shapes_of(full)

    @jax.jit
    def run(variables, images):
        def apply_fn(variables, images):
            return network.apply(variables, images, genotype)

        _, sown = network.apply(variables, images, genotype, mutable=[COLLECTION])
        jacobian = input_jacobian(apply_fn, variables, images)
        agreement = jax.tree.reduce(jnp.add, sown[COLLECTION])
        return apply_fn(variables, images), jacobian, agreement

    return (logits.detach().numpy(), jacobian, agreement), run(variables, images)


@pytest.mark.parametrize("name", TEXTS)
def test_float64_logits_jacobian_and_relus_are_pytorchs(name):
    expected, got = run_both(name, last_activation=True)
    for of_pytorch, own in zip(expected[:2], got[:2], strict=True):
        assert relative_error(own, of_pytorch) < 1e-9
    assert np.array_equal(got[2], expected[2])


def test_without_last_activation_a_network_has_pytorchs_logits_but_no_jacobian():
    (logits, jacobian, _), (got_logits, got_jacobian, _) = run_both(
        "DARTS_V2", last_activation=False
    )
    assert relative_error(got_logits, logits) < 1e-9
    # Roundings of zero, in PyTorch as well: sums of batch norms depend on no image.
    assert max(np.abs(jacobian).max(), np.abs(got_jacobian).max()) < 1e-13


@pytest.fixture(scope="module")
def cells():
    return np.stack([parse_genotype(text) for text in TEXTS.values()])


@pytest.mark.slow
def test_batch_scores_are_those_of_each_static_cell(minibatch, cells):
    images, labels = minibatch
    scores = score_cells(cells, *minibatch, seed=3, network=SMALL, cells_per_step=2)
    assert np.allclose(scores, SCORES_BEFORE, **SAME)
    key = jax.random.split(jax.random.split(jax.random.key(3), 1)[0])[0]
    for cell, score in zip(cells, scores, strict=True):
        static = tuple(cell.tolist())
        own = jax.jit(jacobian_score, static_argnames=("genotype", "network"))(
            key, static, images, labels, network=SMALL
        )
        assert np.isclose(score, own, rtol=1e-9)
    order = [2, 0, 3, 1]
    again = score_cells(cells[order], *minibatch, seed=3, network=SMALL, cells_per_step=2)
    assert np.allclose(again, scores[order], **SAME)


@pytest.mark.slow
def test_cells_with_weights_of_their_own_do_not_depend_on_their_order(minibatch, cells):
    arguments = {"seed": 0, "network": SMALL, "config": ScoringConfig(init="independent")}
    cells = np.concatenate([cells[:2], np.zeros((1, 28), int)])
    scores = score_cells(cells, *minibatch, cells_per_step=2, **arguments)
    assert np.isnan(scores[2])
    assert np.isfinite(scores[:2]).all()
    assert np.allclose(
        score_cells(cells[::-1], *minibatch, cells_per_step=2, **arguments), scores[::-1], **SAME
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [({"channels": 5}, "channels: found 5"), ({"num_cells": 2}, "number of cells: found 2")],
)
def test_network_that_cannot_be_built_is_refused(minibatch, cells, change, message):
    with pytest.raises(InputError, match=message):
        DartsNetwork(3, **change).init(jax.random.key(0), minibatch[0], cells[0])
