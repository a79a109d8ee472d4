"""A trained network as StableHLO, which needs nothing but JAX to run."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import export

from epe_nas_jax.training.trained import TrainedNetwork

STABLEHLO_FILE = "network.stablehlo"
# Where the exported network can run: JAX can lower for all of them on any machine.
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def stablehlo_files(trained: TrainedNetwork) -> dict[str, bytes]:
    """Exports a trained network as one StableHLO file, with its weights, for any number of images.

    The network takes uint8 `[N, H, H, 3]` and returns probabilities, float32 `[N, K]`.

    Args:
      trained: what is exported.

    Returns:
      Contents by file name.

    Examples:
      >>> from jax import export
      >>> from epe_nas_jax import load_trained
      >>> from epe_nas_jax.exports.stablehlo import stablehlo_files
      >>> files = stablehlo_files(load_trained("runs/trained"))
      >>> exported = export.deserialize(bytearray(files["network.stablehlo"]))
      >>> exported.call(np.zeros((5, 8, 8, 3), np.uint8)).shape
      (5, 10)
    """
    num_images, *_ = export.symbolic_shape("N")
    shape = (num_images, trained.side, trained.side, 3)
    program = export.export(jax.jit(trained.probabilities), platforms=_PLATFORMS)
    with _no_paths():
        exported = program(jax.ShapeDtypeStruct(shape, jnp.uint8))  # type: ignore[no-untyped-call]
    return {STABLEHLO_FILE: bytes(exported.serialize())}


@contextlib.contextmanager
def _no_paths() -> Iterator[None]:
    """Keeps JAX from writing paths of this machine into programs."""
    name = "jax_traceback_in_locations_limit"
    limit = getattr(jax.config, name)
    jax.config.update(name, 0)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        jax.config.update(name, limit)  # type: ignore[no-untyped-call]
