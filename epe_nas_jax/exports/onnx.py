"""A trained network as ONNX, by way of PyTorch."""

import contextlib
import io
import warnings

from epe_nas_jax.exports.pytorch import import_for_export, network_from, pytorch_files
from epe_nas_jax.training.trained import TrainedNetwork

ONNX_FILE = "network.onnx"


def onnx_files(trained: TrainedNetwork) -> dict[str, bytes]:
    """Exports a trained network as one ONNX file, with its weights, for any number of images.

    The network takes `images`, uint8 `[N, 3, H, H]`, and returns `probabilities`, float32 `[N, K]`:
    `onnxruntime.InferenceSession("network.onnx").run(None, {"images": images})`.

    Args:
      trained: what is exported.

    Returns:
      Contents by file name.

    Raises:
      InputError: PyTorch or a package of its exporter is not installed.

    Examples:
      >>> from epe_nas_jax import load_trained
      >>> from epe_nas_jax.exports.onnx import onnx_files
      >>> list(onnx_files(load_trained("runs/trained")))
      ['network.onnx']
    """
    torch, *_ = (import_for_export(name) for name in ("torch", "onnx", "onnxscript"))
    network = network_from(pytorch_files(trained))
    images = torch.zeros((2, 3, trained.side, trained.side), dtype=torch.uint8)
    # The exporter prints its steps, and warns about its own internals.
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(
            network,
            (images,),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    # The metadata hold paths of this machine.
    for node in model.graph.node:
        node.ClearField("metadata_props")
    return {ONNX_FILE: model.SerializeToString()}
