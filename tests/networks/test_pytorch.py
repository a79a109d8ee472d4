"""PyTorch modules, measured in PyTorch: beside ours, beside oracles, and left as they were."""

import copy

import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn import functional

from epe_nas_jax import NasBench201Network, rank_networks
from epe_nas_jax.networks.columns import NETWORK_COLUMNS
from epe_nas_jax.networks.found import NO_JACOBIAN
from epe_nas_jax.networks.function import NO_BLOCKS
from epe_nas_jax.networks.heads import NEW_HEAD
from epe_nas_jax.proxies.table import PROXIES
from epe_nas_jax.pytorch import network as pytorch
from epe_nas_jax.pytorch.weights import from_state_dict
from epe_nas_jax.spaces.nasbench201.cost import Sizes

SIGNALS = [name for name in NETWORK_COLUMNS if name in PROXIES]
SIZES = Sizes(channels=4, cells_per_stage=1, num_classes=3)


def row_of(network, minibatch, num_classes=3):
    return rank_networks({"n": network}, *minibatch, num_classes).iloc[0]


def signals_of(network, minibatch):
    row = row_of(network, minibatch)
    assert row["error"] is None, row["error"]
    return row[SIGNALS].to_numpy(float)


class Logits(nn.Module):
    """The second output of a NAS-Bench-201 network."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images)[1]


@pytest.mark.parametrize("cell", [(3, 1, 4, 2, 2, 3), (3, 1, 3, 1, 1, 3), (4, 1, 1, 3, 1, 2)])
def test_nasbench201_network_has_the_signals_of_ours(minibatch, cell):
    torch.manual_seed(0)
    reference = pytorch.build_network(cell, SIZES).double()
    variables = from_state_dict(reference.state_dict(), cell)
    ours = NasBench201Network(3, 4, 1, jnp.float64)
    expected = signals_of((lambda v, x: ours.apply(v, x, cell), variables), minibatch)
    found = signals_of(Logits(reference), minibatch)
    # Float64 on both sides: sums in another order, through batch norms and eigenvalues.
    np.testing.assert_allclose(found, expected, rtol=1e-7)


class Everything(nn.Module):
    """All that a measurement could leave changed."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.inner = nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 6, 3, padding=1))
        self.group = nn.GroupNorm(2, 6)
        self.classify = nn.Linear(6, 3)

    def forward(self, images):
        x = functional.relu(self.norm(self.conv(images)), inplace=True)
        x = functional.dropout(self.drop(x), 0.5)
        x = x + functional.silu(self.group(self.inner(x)))
        x = functional.avg_pool2d(x, 2)
        x = x + functional.gelu(self.group(self.inner(x)))
        return self.classify(x.mean((2, 3)))


def test_module_and_random_state_are_left_as_they_were(minibatch):
    module = Everything()
    module.norm.eval()
    module.conv.weight.requires_grad_(False)
    module(torch.randn(2, 3, 8, 8)).sum().backward()
    state = copy.deepcopy(module.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    modes = [part.training for part in module.modules()]
    needed = [p.requires_grad for p in module.parameters()]
    hooks = [(len(p._forward_hooks), len(p._forward_pre_hooks)) for p in module.modules()]
    random = torch.get_rng_state()
    signals_of(module, minibatch)
    assert torch.equal(torch.get_rng_state(), random)
    assert [part.training for part in module.modules()] == modes
    assert [p.requires_grad for p in module.parameters()] == needed
    after = [(len(p._forward_hooks), len(p._forward_pre_hooks)) for p in module.modules()]
    assert after == hooks
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    for p, gradient in zip(module.parameters(), gradients, strict=True):
        assert (p.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(p.grad, gradient)


def test_a_module_that_fails_is_left_as_it_was(minibatch):
    module = Everything()
    module.classify = nn.Linear(5, 3)
    module.eval()
    row = row_of(module, minibatch)
    assert row["error"].startswith("network 'n': RuntimeError: ")
    assert not any(part.training for part in module.modules())
    assert not any(part._forward_hooks for part in module.modules())


def test_dropout_is_off_and_named(minibatch):
    module = Everything().double()
    row = row_of(module, minibatch)
    assert row["note"] == "off: Dropout"
    again = row_of(module, minibatch)
    assert row[SIGNALS].equals(again[SIGNALS])


class Residual(nn.Module):
    """Two stages of a residual block each, normalised over channels alone."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.classify = nn.Linear(4, 3)

    def forward(self, images, codes=None, ends=None):
        codes, ends = [] if codes is None else codes, [] if ends is None else ends
        x = self.stem(images)
        for conv in (self.first, self.second):
            codes.append(x > 0)
            x = x + torch.tanh(conv(torch.relu(x)))
            ends.append(x)
            x = functional.avg_pool2d(torch.tanh(x), 2)
        return self.classify(x.mean((2, 3)))


def test_signals_are_the_oracles(minibatch):
    images, labels = minibatch
    module = Residual().double()
    row = row_of(module, minibatch)
    x = torch.tensor(images.transpose(0, 3, 1, 2)).requires_grad_()
    codes, ends = [], []
    logits = module(x, codes, ends)
    jacobian, *gradients = (
        gradient.numpy()
        for gradient in torch.autograd.grad(logits.sum(), [x, *ends], retain_graph=True)
    )
    loss = functional.cross_entropy(logits, torch.tensor(labels).long())
    layers = [p for p in module.parameters() if p.ndim > 1]
    of_weights = [gradient.numpy() for gradient in torch.autograd.grad(loss, layers)]
    weights = [layer.detach().numpy() for layer in layers]
    jacobian = jacobian.reshape(8, -1)
    expected = {
        "epe": oracles.epe_score(jacobian, labels, 3, "released"),
        "jacob_cov": oracles.jacob_cov(jacobian),
        "nwot": oracles.nwot([code.flatten(1).numpy() for code in codes]),
        "grad_entropy": oracles.channel_entropy(gradients[0].transpose(0, 2, 3, 1)),
        "grad_decay": np.log(np.square(gradients[1]).sum() / np.square(jacobian).sum()),
        "grad_norm": oracles.grad_norm(of_weights),
        "snip": oracles.snip(weights, of_weights),
        "params": sum(p.numel() for p in module.parameters()),
    }
    for name, value in expected.items():
        # Float64 on both sides; a logarithm magnifies the rounding of correlations near 0.
        assert np.isclose(row[name], value, rtol=1e-7 if name == "epe" else 1e-9), name
    # Two FLOPs a product: three convolutions, the last at half the side, and the linear layer.
    flops = 2 * (64 * 9 * (12 + 16) + 16 * 9 * 16 + 12)
    assert row["mflops"] == pytest.approx(flops / 1e6)


class Attention(nn.Module):
    """A small vision transformer with PyTorch's own layers."""

    def __init__(self, dropout):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, stride=2)
        self.layers = nn.Sequential(
            *[
                nn.TransformerEncoderLayer(
                    8, 2, 16, dropout, activation="gelu", batch_first=True, norm_first=True
                )
                for _ in range(3)
            ]
        )
        self.norm = nn.LayerNorm(8)
        self.classify = nn.Linear(8, 3)

    def forward(self, images):
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        return self.classify(self.norm(self.layers(tokens)).mean(1))


def test_dropout_of_attention_is_off(minibatch):
    torch.manual_seed(0)
    module = Attention(0.5).double()
    without = Attention(0.0).double()
    without.load_state_dict(module.state_dict())
    found = signals_of(module, minibatch)
    np.testing.assert_array_equal(found, signals_of(without, minibatch))
    assert np.isfinite(found).all()


class Tied(nn.Module):
    """One layer at two places, and one weight of two layers."""

    def __init__(self, is_tied):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = self.first if is_tied else nn.Conv2d(4, 4, 3, padding=1)
        self.classify = nn.Linear(4, 3)
        if is_tied:
            self.third = nn.Conv2d(4, 4, 3, padding=1)
            self.third.weight = self.first.weight

    def forward(self, images):
        x = self.stem(images)
        x = functional.relu(self.second(functional.relu(self.first(x))))
        return self.classify(x.mean((2, 3)))


def test_tied_weights_count_once(minibatch):
    tied, free = Tied(True).double(), Tied(False).double()
    free.load_state_dict({**tied.state_dict()}, strict=False)
    of_tied, of_free = row_of(tied, minibatch), row_of(free, minibatch)
    assert of_tied["params"] == sum(p.numel() for p in tied.parameters())
    for name in ("epe", "jacob_cov", "nwot", "grad_decay"):
        assert of_tied[name] == of_free[name] or np.isnan([of_tied[name], of_free[name]]).all()
    # The gradient of what is shared is that of both places.
    assert of_tied["snip"] != of_free["snip"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_is_computed_in_float32(minibatch, dtype):
    module = Everything().to(dtype)
    row = row_of(module, minibatch)
    assert row["error"] is None
    assert row["note"] == "off: Dropout; float16 computed in float32"
    assert row[SIGNALS].equals(row_of(module.float(), minibatch)[SIGNALS])


class Returning(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.linear = nn.Linear(192, 3)
        self.change = change

    def forward(self, images):
        return self.change(self.linear(images.flatten(1)))


BROKEN = {
    "tuple": (lambda y: (y, y), "logits: found a tuple"),
    "dict": (lambda y: {"out": y}, "logits: found a dict"),
    "batch": (lambda y: y[:4], "logits: found float32 of shape (4, 3)"),
    "complex": (lambda y: y * 1j, "logits: found complex64"),
    "nan": (lambda y: y / 0, "logits: found NaN or infinite"),
    "classes": (lambda y: y[:, :2], "logits: found float32 of shape (8, 2)"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_module_is_a_row_with_its_error(minibatch, change, message):
    assert row_of(Returning(change), minibatch)["error"].startswith(f"network 'n': {message}")


def test_module_without_a_gradient_has_no_signal_of_it(minibatch):
    row = row_of(Returning(lambda y: y.detach()), minibatch)
    assert row["error"] is None
    assert NO_JACOBIAN in row["note"]
    assert np.isnan(row[["epe", "jacob_cov", "grad_norm", "snip"]].to_numpy(float)).all()


def test_what_is_not_found_is_said(minibatch):
    row = row_of(Returning(torch.tanh), minibatch)
    assert row["note"] == f"nwot: found no rectifier; {NO_BLOCKS}"


RECTIFIERS = {
    "module": nn.ReLU(),
    "in_place": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(),
    "hardswish": nn.Hardswish(),
    "silu": nn.SiLU(inplace=True),
    "gelu": nn.GELU(),
    "leaky": nn.LeakyReLU(0.1, inplace=True),
    "prelu": nn.PReLU(),
    "function": functional.relu,
    "method": lambda x: x.relu(),
    "method_in_place": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_between": lambda x: torch.clamp(x, 0, 6),
}


class Rectified(nn.Module):
    def __init__(self, rectify):
        super().__init__()
        self.hidden = nn.Linear(192, 40)
        self.rectify = rectify
        self.classify = nn.Linear(40, 3)

    def forward(self, images):
        return self.classify(self.rectify(self.hidden(images.flatten(1))))


@pytest.mark.parametrize("rectify", RECTIFIERS.values(), ids=RECTIFIERS)
def test_rectifier_is_found_and_read_by_the_sign_of_its_input(minibatch, rectify):
    images, _ = minibatch
    module = Rectified(rectify).double()
    row = row_of(module, minibatch)
    assert row["error"] is None
    x = torch.tensor(images.transpose(0, 3, 1, 2))
    code = (module.hidden(x.flatten(1)) > 0).numpy()
    # The determinant of the same matrix of whole numbers.
    assert np.isclose(row["nwot"], oracles.nwot([code]), rtol=1e-12)


class Checkpointed(nn.Module):
    """A network that computes its inner layers again on the way back."""

    def __init__(self, is_checkpointed):
        super().__init__()
        self.is_checkpointed = is_checkpointed
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.inner = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1))
        self.classify = nn.Linear(6, 3)

    def forward(self, images):
        x = self.stem(images)
        if self.is_checkpointed:
            x = torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=False)
        else:
            x = self.inner(x)
        return self.classify(x.tanh().mean((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_layers_that_are_computed_again_are_computed_with_the_copies(minibatch, dtype):
    torch.manual_seed(0)
    module = Checkpointed(is_checkpointed=True).to(dtype)
    plain = Checkpointed(is_checkpointed=False).to(dtype)
    plain.load_state_dict(module.state_dict())
    before = copy.deepcopy(module.state_dict())
    found, expected = signals_of(module, minibatch), signals_of(plain, minibatch)
    np.testing.assert_allclose(found, expected, rtol=1e-9 if dtype == torch.float64 else 1e-4)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_tables_of_zeros_with_a_side_of_as_many_as_classes_stay(minibatch):
    class Biased(nn.Module):
        def __init__(self, *, zero_head):
            super().__init__()
            torch.manual_seed(0)
            self.table = nn.Parameter(torch.zeros(192, 3))
            self.classify = nn.Linear(192, 3)
            if zero_head:
                nn.init.zeros_(self.classify.weight)

        def forward(self, images):
            return self.classify(images.flatten(1).tanh() + self.table.sum(1)) ** 2

    assert NEW_HEAD not in row_of(Biased(zero_head=False), minibatch)["note"]
    assert NEW_HEAD in row_of(Biased(zero_head=True), minibatch)["note"]
