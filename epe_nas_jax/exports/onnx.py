"""A trained network as ONNX, by way of PyTorch."""

import contextlib
import io
import warnings

from epe_nas_jax.exports.pytorch import import_for_export, network_from, pytorch_files
from epe_nas_jax.training.trained import TrainedNetwork

ONNX_FILE = "network.onnx"


def onnx_files(trained: TrainedNetwork) -> dict[str, bytes]:
    """The network by file name, for any number of images and with the weights in it.

    It takes `images`, uint8 `[N, 3, H, H]`, and returns `probabilities`, float32 `[N, K]`.

    >>> onnxruntime.InferenceSession("network.onnx").run(None, {"images": images})

    Args:
      trained: the network.

    Raises:
      InputError: PyTorch or a package of its exporter is not installed.
    """
    torch, *_ = (import_for_export(name) for name in ("torch", "onnx", "onnxscript"))
    network = network_from(pytorch_files(trained))
    images = torch.zeros((2, 3, trained.side, trained.side), dtype=torch.uint8)
    # The exporter tells its steps, and warns of what it does inside.
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
    # Among them are paths of this machine.
    for node in model.graph.node:
        node.ClearField("metadata_props")
    return {ONNX_FILE: model.SerializeToString()}
