"""The table of formats in which a trained network is exported: to add one is an entry here."""

import json
from collections.abc import Callable
from importlib import metadata
from typing import NamedTuple

from epe_nas_jax._version import __version__
from epe_nas_jax.exports.onnx import ONNX_FILE, onnx_files
from epe_nas_jax.exports.pytorch import CODE_FILE, WEIGHTS_FILE, pytorch_files
from epe_nas_jax.exports.stablehlo import STABLEHLO_FILE, stablehlo_files
from epe_nas_jax.training.trained import TrainedNetwork

# The file that says what each exported file is.
INFO_FILE = "network.json"

_CHANNELS_LAST = "uint8 [N, {side}, {side}, 3]"
_CHANNELS_FIRST = "uint8 [N, 3, {side}, {side}]"


class Format(NamedTuple):
    """A format of exported networks, which take raw pixels 0..255 and return probabilities.

    Attributes:
      files: from a trained network to contents by file name; raises `InputError` where a package
        is missing.
      takes: dtype and shape of the images, of which there may be any number.
      call: a line of Python that loads the network and calls it on `images`.
      packages: names of the packages that make the files.

    Examples:
      >>> from epe_nas_jax.exports.table import FORMATS
      >>> list(FORMATS)
      ['stablehlo', 'pytorch', 'onnx']
      >>> FORMATS["pytorch"].call
      'network.load_network("weights.pt")(images)'
    """

    files: Callable[[TrainedNetwork], dict[str, bytes]]
    takes: str
    call: str
    packages: tuple[str, ...]


# All formats by name.
FORMATS = {
    "stablehlo": Format(
        stablehlo_files,
        _CHANNELS_LAST,
        f'jax.export.deserialize(open("{STABLEHLO_FILE}", "rb").read()).call(images)',
        ("jax", "jaxlib"),
    ),
    "pytorch": Format(
        pytorch_files,
        _CHANNELS_FIRST,
        f'{CODE_FILE.removesuffix(".py")}.load_network("{WEIGHTS_FILE}")(images)',
        ("torch",),
    ),
    "onnx": Format(
        onnx_files,
        _CHANNELS_FIRST,
        f'onnxruntime.InferenceSession("{ONNX_FILE}").run(None, {{"images": images}})',
        ("torch", "onnx", "onnxscript"),
    ),
}


def export_files(trained: TrainedNetwork) -> dict[str, bytes]:
    """Exports a trained network in every format, with `network.json`, which describes the files.

    Args:
      trained: what is exported.

    Returns:
      Contents by file name.

    Raises:
      InputError: PyTorch, or a package with which it writes ONNX, is not installed.

    Examples:
      >>> from epe_nas_jax import load_trained
      >>> from epe_nas_jax.exports.table import export_files
      >>> list(export_files(load_trained("runs/trained")))
      ['network.stablehlo', 'network.py', 'weights.pt', 'network.onnx', 'network.json']
    """
    files: dict[str, bytes] = {}
    formats = {}
    for name, entry in FORMATS.items():
        made = entry.files(trained)
        files |= made
        formats[name] = {
            "files": list(made),
            "takes": f"{entry.takes.format(side=trained.side)}: raw pixels 0..255, RGB",
            "returns": f"float32 [N, {len(trained.class_names)}]: probabilities of class_names",
            "call": entry.call,
        }
    packages = dict.fromkeys(package for entry in FORMATS.values() for package in entry.packages)
    info = {
        "arch": trained.arch,
        "seed": trained.seed,
        "side": trained.side,
        "class_names": trained.class_names,
        "formats": formats,
        "versions": {
            "epe_nas_jax": __version__,
            **{package: metadata.version(package) for package in packages},
        },
    }
    return {**files, INFO_FILE: (json.dumps(info, indent=2) + "\n").encode()}
