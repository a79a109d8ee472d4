"""Every format, loaded in a fresh process by the line that network.json gives, and as predict."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from jax import export
from refusals import refusal
from trained_runs import ARCH, SIDE, noise
from xautodl.models.cell_infers import TinyNetwork
from xautodl.models.cell_searchs.genotypes import Structure

import epe_nas_jax
from epe_nas_jax import NasBench201Network, TrainedNetwork, load_trained
from epe_nas_jax.exports.pytorch import network_from, pytorch_files
from epe_nas_jax.exports.stablehlo import stablehlo_files
from epe_nas_jax.exports.table import FORMATS, export_files

# Of float32, over the layers; probabilities are at most 1.
TOLERANCE = 1e-5
# With more and fewer images than the program was traced with.
NUM_IMAGES = (1, 70)
# What a user writes around the line of network.json, and with what is imported.
PROCESS = """
import sys, numpy as np
{imports}
for n in (1, 70):
    images = np.load("images.npz")[f"images_{{n}}"]
    if {channels_first}:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    {convert}
    probabilities = {call}
    np.save(f"{name}_{{n}}.npy", np.asarray({result}))
assert "epe_nas_jax" not in sys.modules
"""
USE = {
    "stablehlo": {"imports": "import jax.export"},
    "pytorch": {
        "imports": "import torch; sys.path.insert(0, '.'); import network",
        "convert": "images = torch.tensor(images)",
        "result": "probabilities.detach()",
    },
    "onnx": {"imports": "import onnxruntime", "result": "probabilities[0]"},
}
PLAIN = {"convert": "", "result": "probabilities"}


@pytest.fixture(scope="module")
def trained(trained_run):
    return load_trained(trained_run)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """A folder with the exported files, and images."""
    folder = tmp_path_factory.mktemp("exported")
    for name, content in export_files(trained).items():
        (folder / name).write_bytes(content)
    np.savez(folder / "images.npz", **{f"images_{n}": noise(n) for n in NUM_IMAGES})
    return folder


@pytest.fixture(scope="module")
def info(exported):
    return json.loads((exported / "network.json").read_text())


def test_the_files_are_those_that_network_json_lists(exported, info, trained):
    files = {path.name for path in exported.iterdir()} - {"images.npz"}
    assert files == {
        "network.json",
        "network.onnx",
        "network.py",
        "network.stablehlo",
        "weights.pt",
    }
    listed = [file for entry in info["formats"].values() for file in entry["files"]]
    assert {*listed, "network.json"} == files
    assert info["class_names"] == list(trained.class_names)
    assert (info["arch"], info["seed"], info["side"]) == (ARCH, 0, SIDE)
    assert info["versions"]["torch"] == torch.__version__
    assert info["formats"]["stablehlo"]["takes"].startswith("uint8 [N, 8, 8, 3]")
    assert info["formats"]["onnx"]["takes"].startswith("uint8 [N, 3, 8, 8]")


@pytest.mark.parametrize("name", FORMATS)
def test_a_fresh_process_without_this_package_predicts_the_same(exported, info, trained, name):
    entry = info["formats"][name]
    channels_first = "[N, 3," in entry["takes"]
    use = {**PLAIN, **USE[name], "channels_first": channels_first}
    code = PROCESS.format(name=name, call=entry["call"], **use)
    # -I: neither the checkout nor anything of this process's environment.
    subprocess.run([sys.executable, "-I", "-W", "error", "-c", code], cwd=exported, check=True)
    for n in NUM_IMAGES:
        found = np.load(exported / f"{name}_{n}.npy")
        assert found.dtype == np.float32
        expected = trained.predict(noise(n))
        # They tell images apart, so that equal is not constant.
        assert n == 1 or np.ptp(expected, axis=0).max() > 0.1
        assert np.abs(found - expected).max() < TOLERANCE


def test_no_path_of_this_machine_is_in_any_file(exported):
    package = str(Path(epe_nas_jax.__file__).parent)
    for path in exported.glob("[nw]*.*"):
        content = path.read_bytes()
        for place in (package, sysconfig.get_path("purelib"), "site-packages", "exports/"):
            assert place.encode() not in content, (path, place)


def test_nas_bench_201s_own_network_takes_the_weights(exported, trained):
    """xautodl's network on images that NumPy normalises: nothing of it is of this package."""
    state_dict = torch.load(exported / "weights.pt", weights_only=True)
    mean, std = (state_dict.pop(name).numpy().reshape(1, 3, 1, 1) for name in ("mean", "std"))
    network = TinyNetwork(4, 1, Structure.str2structure(ARCH), 10)
    network.load_state_dict(state_dict)
    images = noise(20)
    assert mean.ravel() == pytest.approx(trained.mean)
    x = (images.transpose(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        _, logits = network.eval()(torch.tensor(x, dtype=torch.float32))
    powers = np.exp(logits.numpy())
    probabilities = powers / powers.sum(1, keepdims=True)
    assert np.abs(probabilities - trained.predict(images)).max() < TOLERANCE


def random_network(arch, *, side, channels=3, cells_per_stage=2):
    """A network with weights and averages of chance, as if trained."""
    network = NasBench201Network(4, channels, cells_per_stage)
    genotype = tuple(network.space.parse(arch).tolist())
    images = np.zeros((1, side, side, 3), np.float32)
    shapes = jax.eval_shape(
        lambda: network.init(jax.random.key(0), images, genotype, use_running_average=True)
    )
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda x: rng.uniform(0.1, 0.5, x.shape).astype(np.float32), shapes)
    return TrainedNetwork(
        network=network,
        genotype=genotype,
        arch=arch,
        seed=0,
        variables=variables,
        # Names of folders can be anything.
        class_names=('a"\n', "{b}", "\udcff", "'''"),
        side=side,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
    )


@pytest.mark.parametrize(
    ("arch", "side"),
    [
        # No weights in the cell, and images as small as can be.
        ("|skip_connect~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|avg_pool_3x3~2|", 4),
        # A convolution of zeros, whose batch norm makes something of them.
        ("|none~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|none~0|nor_conv_3x3~1|nor_conv_1x1~2|", 8),
    ],
)
def test_code_is_written_for_any_cell(arch, side):
    trained = random_network(arch, side=side)
    images = noise(3, side)
    expected = trained.predict(images)
    files = pytorch_files(trained)
    assert not max(len(line) for line in files["network.py"].decode("ascii").splitlines()) > 100
    with torch.no_grad():
        found = network_from(files)(torch.tensor(images.transpose(0, 3, 1, 2)))
    assert np.abs(found.numpy() - expected).max() < TOLERANCE
    names = {}
    exec(files["network.py"], names)
    assert tuple(names["CLASS_NAMES"]) == trained.class_names
    program = export.deserialize(bytearray(stablehlo_files(trained)["network.stablehlo"]))
    assert np.abs(np.asarray(program.call(images)) - expected).max() < TOLERANCE


@pytest.mark.parametrize("missing", ["torch", "onnx", "onnxscript"])
def test_without_a_package_the_line_says_what_to_install(trained, monkeypatch, missing):
    # Python takes that for a module that is not there.
    monkeypatch.setitem(sys.modules, missing, None)
    message = refusal(lambda: export_files(trained))
    expected = "expected it for export: pip install 'epe_nas_jax[export]'"
    assert message == f"{missing}: not installed, {expected}"
