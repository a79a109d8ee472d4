"""A trained network as StableHLO, which JAX alone runs again."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import export

from epe_nas_jax.training.trained import TrainedNetwork

STABLEHLO_FILE = "network.stablehlo"
# Where it can run: JAX lowers for all of them anywhere.
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def stablehlo_files(trained: TrainedNetwork) -> dict[str, bytes]:
    """The network by file name, for any number of images and with the weights in it.

    It takes uint8 `[N, H, H, 3]` and returns probabilities, float32 `[N, K]`.

    >>> jax.export.deserialize(Path("network.stablehlo").read_bytes()).call(images)

    Args:
      trained: what is exported.
    """
    num_images, *_ = export.symbolic_shape("N")
    shape = (num_images, trained.side, trained.side, 3)
    program = export.export(jax.jit(trained.probabilities), platforms=_PLATFORMS)
    with _no_paths():
        exported = program(jax.ShapeDtypeStruct(shape, jnp.uint8))  # type: ignore[no-untyped-call]
    return {STABLEHLO_FILE: bytes(exported.serialize())}


@contextlib.contextmanager
def _no_paths() -> Iterator[None]:
    """Has JAX write no paths of this machine's files into programs."""
    name = "jax_traceback_in_locations_limit"
    limit = getattr(jax.config, name)
    jax.config.update(name, 0)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        jax.config.update(name, limit)  # type: ignore[no-untyped-call]
