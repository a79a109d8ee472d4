"""How long the network of one cell takes on this machine."""

import functools

import jax
import numpy as np

from epe_nas_jax.networks.found import median_seconds
from epe_nas_jax.seeds import generator
from epe_nas_jax.spaces.base import CellNetwork
from epe_nas_jax.spaces.table import space_entry

# The first runs of a program take many times as long as those that follow.
_WARM_UP, _LEAST_RUNS, _MOST_RUNS = 3, 10, 50


def latency_ms(
    network: CellNetwork, genotype: np.ndarray, image_shape: tuple[int, ...], batch_size: int
) -> float:
    """Measures how long a forward pass of a cell's network takes on the first device.

    The network is compiled for this cell alone. A network that keeps running averages of batch norm
    normalises by them, as when it is used after training; any other network by the mini-batch's
    statistics, as when it is scored. The time is the median of 10 runs after 3 that do not count,
    or of up to 50 while the quartiles lie more than 5 % of the median apart. Nothing else should
    run meanwhile.

    Args:
      network: the network.
      genotype: the cell as it is built, int `[E]`.
      image_shape: of one image, `(H, W, C)`.
      batch_size: N.

    Returns:
      Milliseconds for all N images.

    Examples:
      >>> from epe_nas_jax import NasBench201Network, parse_arch
      >>> from epe_nas_jax.networks.latency import latency_ms
      >>> cell = parse_arch("|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
      >>> latency_ms(NasBench201Network(3, channels=4, cells_per_stage=1), cell, (8, 8, 3), 1) > 0
      True
    """
    cell = tuple(int(entry) for entry in genotype)
    is_trainable = space_entry(network.space.name).is_trainable
    mode = {"use_running_average": True} if is_trainable else {}
    rng = generator(0)
    images = rng.normal(size=(batch_size, *image_shape)).astype(network.param_dtype)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), images, cell, **mode))
    # The time does not depend on the weights. The network's own would need compiling.
    weights = jax.tree.map(functools.partial(_drawn, rng), shapes)
    arguments = jax.device_put((weights, images), jax.local_devices()[0])
    forward = jax.jit(lambda weights, images: network.apply(weights, images, cell, **mode))
    compiled = forward.lower(*arguments).compile()
    run = functools.partial(compiled, *arguments)
    return 1e3 * median_seconds(run, warm_up=_WARM_UP, least=_LEAST_RUNS, most=_MOST_RUNS)


def _drawn(rng: np.random.Generator, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Positive weights by which a layer averages: no value becomes NaN, or so small to be slow."""
    fan_in = np.prod(leaf.shape[:-1])
    return np.asarray(rng.uniform(0.5, 1.5, leaf.shape) / fan_in, leaf.dtype)
