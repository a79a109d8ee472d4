"""PyTorch's network of a cell; what it computes is compared in `test_torch_parity.py`."""

import functools
import io
import pickle
import sys
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from odd_inputs import damaged
from refusals import refusal

from epe_nas_jax import InputError
from epe_nas_jax.pytorch import network as torch_network
from epe_nas_jax.pytorch.weights import Sizes, from_state_dict, to_state_dict

GENOTYPE = (3, 2, 0, 1, 4, 3)
SIZES = Sizes(channels=4, cells_per_stage=1, num_classes=3)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return torch_network.build_network(GENOTYPE, SIZES)


def numpy_weights(network):
    return {name: value.numpy() for name, value in network.state_dict().items()}


def test_state_dict_goes_there_and_back_exactly(network):
    state_dict = network.state_dict()
    variables = from_state_dict(state_dict, GENOTYPE)
    back = to_state_dict(variables, GENOTYPE, cells_per_stage=1)
    assert set(back) == set(state_dict)
    for name, value in state_dict.items():
        assert torch.equal(torch.tensor(back[name]), value), name
        assert torch.tensor(back[name]).dtype == value.dtype


def test_best_and_released_runs_agree_and_leave_the_network_alone(network, minibatch):
    images = minibatch[0]
    network = network.double()
    released = torch_network.run(network, images)
    weight = network.stem[0].weight
    assert weight.grad is not None
    best = torch_network.run(network, images, at_its_best=True)
    assert weight.requires_grad
    assert np.allclose(best.logits, released.logits, rtol=1e-12)
    assert np.allclose(best.jacobian, released.jacobian, rtol=1e-9, atol=1e-12)
    assert released.jacobian.shape == (8, 8 * 8 * 3)
    assert released.seconds > 0


def test_a_compiled_run_gives_the_same(network, minibatch, monkeypatch):
    # The real compiler takes a minute and a C++ compiler; this one runs what it was given.
    compiled = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compiled)
    network = network.double()
    plain, other = (
        torch_network.run(network, minibatch[0], at_its_best=True, compiled=compiled)
        for compiled in (False, True)
    )
    assert np.allclose(other.logits, plain.logits, rtol=1e-12)
    assert np.allclose(other.jacobian, plain.jacobian, rtol=1e-9, atol=1e-12)


def test_jacobian_is_the_slope_of_the_summed_logits_in_our_order_of_pixels(network, minibatch):
    images = minibatch[0]
    network = network.double()
    jacobian = torch_network.run(network, images).jacobian.reshape(images.shape)
    step = 1e-6
    for pixel in ((0, 0, 0, 0), (3, 1, 6, 2)):
        moved = images.copy(), images.copy()
        moved[0][pixel] += step
        moved[1][pixel] -= step
        high, low = (torch_network.run(network, x).logits.sum() for x in moved)
        assert jacobian[pixel] == pytest.approx((high - low) / (2 * step), rel=1e-5)


def test_run_cell_takes_weights_and_the_dtype_of_the_images(network, minibatch):
    images = minibatch[0]
    weights = numpy_weights(network.double())
    got = torch_network.run_cell(GENOTYPE, images, sizes=SIZES, state_dict=weights)
    assert got.logits.dtype == np.float64
    assert np.array_equal(got.logits, torch_network.run(network, images).logits)


def test_a_device_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_network.check_pytorch("cpu") == torch.get_num_threads()
    with pytest.raises(InputError, match="found no device 'cuda', expected the one JAX runs on"):
        torch_network.check_pytorch("cuda")


@pytest.mark.parametrize("damage", [None, "zero row", "lonely image"])
def test_released_score_is_the_loop_over_classes(damage):
    rng = np.random.default_rng(1)
    jacobian, labels = rng.normal(size=(30, 7)), rng.integers(0, 3, 30)
    if damage == "zero row":
        jacobian[3] = 0
    if damage == "lonely image":
        labels[3] = 9
    expected = oracles.epe_score(jacobian, labels, 10, "released")
    assert np.isnan(expected) == (damage == "zero row")
    assert torch_network.released_score(jacobian, labels) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("torch", r"PyTorch: not installed, expected it here: pip install torch$"),
        ("xautodl.models.cell_infers", r"xautodl: .*pip install --no-deps xautodl==1.0.0$"),
    ],
)
def test_what_is_not_installed_is_named_with_the_command(monkeypatch, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=message):
        torch_network.build_network(GENOTYPE, SIZES)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose network doubles its logits; `order` is what the network returns."""

    def write(order="features, 2 * logits"):
        cells = tmp_path / "models" / "cell_infers"
        searchs = tmp_path / "models" / "cell_searchs"
        for folder in (cells, searchs):
            folder.mkdir(parents=True)
            (folder / "__init__.py").touch()
        (tmp_path / "models" / "__init__.py").touch()
        (cells / "__init__.py").write_text(
            "from xautodl.models.cell_infers import TinyNetwork as Base\n"
            "class TinyNetwork(Base):\n"
            "    def forward(self, x):\n"
            "        features, logits = super().forward(x)\n"
            f"        return {order}\n"
        )
        (searchs / "genotypes.py").write_text(
            "from xautodl.models.cell_searchs.genotypes import Structure\n"
        )
        return str(tmp_path)

    monkeypatch.setattr(sys, "path", list(sys.path))
    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]


def test_the_network_of_a_checkout_is_used(network, minibatch, checkout):
    weights = numpy_weights(network.double())
    doubled = torch_network.run_cell(
        GENOTYPE, minibatch[0], sizes=SIZES, state_dict=weights, checkout=checkout()
    )
    assert np.allclose(doubled.logits, 2 * torch_network.run(network, minibatch[0]).logits)


def test_a_checkout_that_returns_the_logits_first_is_refused(minibatch, checkout):
    path = checkout("logits, features")
    with pytest.raises(InputError, match=r"found shape \(8, 16\), expected logits of shape"):
        torch_network.run_cell(GENOTYPE, minibatch[0], sizes=SIZES, checkout=path)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path, checkout):
    with pytest.raises(InputError, match="found no folder 'models', expected a checkout"):
        torch_network.build_network(GENOTYPE, SIZES, checkout=str(tmp_path))
    path = Path(checkout())
    (path / "models" / "cell_searchs" / "genotypes.py").write_text("import no_such_module\n")
    with pytest.raises(InputError, match=r"cannot import its network \(No module named 'no_such"):
        torch_network.build_network(GENOTYPE, SIZES, checkout=str(path))


def test_weights_are_read_from_a_file(network, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    got = torch_network.read_state_dict(str(path))
    assert set(got) == set(network.state_dict())
    for name, value in network.state_dict().items():
        assert np.array_equal(got[name], value.numpy())
    torch.save({name: value.bfloat16() for name, value in network.state_dict().items()}, path)
    assert torch_network.read_state_dict(str(path))["stem.0.weight"].dtype == np.float32


class RunsCode:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, save):
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    save({"stem.0.weight": RunsCode(trace)}, path)
    with pytest.raises(InputError, match="not a file of weights alone"):
        torch_network.read_state_dict(str(path))
    assert not trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_refused_wherever_it_ends(network, tmp_path, zipped):
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for end in range(0, len(content), len(content) // 60):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match=r"weights\.pt: not a") as error:
            torch_network.read_state_dict(str(path))
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "found list, expected tensors by name"),
        ({"state_dict": {"a": torch.zeros(2)}}, "entry 'state_dict': found dict, expected a"),
        ({0: torch.zeros(2)}, "entry 0: found Tensor"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, message):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match=message):
        torch_network.read_state_dict(str(path))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2, 2).to_sparse(),
        lambda: torch.ones(2, dtype=torch.complex64).conj(),
        lambda: torch.ones(2).to(torch.float8_e4m3fn),
        lambda: torch.ones(2, device="meta"),
    ],
    ids=["sparse", "conjugate", "float8", "meta"],
)
def test_a_tensor_that_numpy_does_not_know_is_refused(tmp_path, make):
    torch.save({"a": make()}, tmp_path / "weights.pt")
    message = refusal(lambda: torch_network.read_state_dict(str(tmp_path / "weights.pt")))
    assert "weights.pt, entry 'a': found a tensor that is no array (" in message


def saved(**options):
    file = io.BytesIO()
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3).bfloat16()}
    torch.save(tensors, file, **options)
    return file.getvalue()


@given(damaged([saved(), saved(_use_new_zipfile_serialization=False)]))
@settings(deadline=None, max_examples=50)
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(content)
    refusal(lambda: torch_network.read_state_dict(str(path)))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file, expected PyTorch weights"):
        torch_network.read_state_dict(str(tmp_path / "weights.pt"))
