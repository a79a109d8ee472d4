"""Many cells: the batched front door `score_cells` and the compiled program behind it.

Cells are planned into steps of one fixed size, so one program serves any list. Within a step a
GPU or TPU runs all cells at once (`jax.vmap`, operations grouped by `ops.grouped_switch`); a CPU
runs them one after another inside the program, where one cell already fills the cores and its
working memory is reused.

A cell's key is folded from the seed and, where cells are to differ, from the cell's code: its score
depends on (seed, mini-batch, cell) and on nothing else.

Shape legend: A cells, S cells in a step, N images, M images in a data set, H height and width.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from tqdm import tqdm

from epe_nas_jax.errors import InputError
from epe_nas_jax.genotype import NUM_EDGES, check_genotypes, encode
from epe_nas_jax.minibatch import draw_minibatch
from epe_nas_jax.network import Network, check_images
from epe_nas_jax.score import VARIANTS, cell_score

INITS = ("shared", "independent")

_CPU_CELLS_PER_STEP = 8
_MAX_CELLS_PER_STEP = 64
_DEVICE_MEMORY_SHARE = 0.6
_YNN_FUSIONS = "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How cells are scored; equal protocols and shapes share one compiled program.

    Attributes:
      init: `"shared"`: a layer, edge and operation has the same weights in every cell;
        `"independent"`: every cell has weights of its own, as in the released code.
      variant: the formula, as in `score.epe_score`.
      num_inits: how many times weights are drawn; the scores are averaged.
      fresh_batch: None: the images are the mini-batch of all cells; a number N: they are a data set
        from which every cell draws N, as in the released code.
      augment: crop and flip the fresh mini-batches.
    """

    init: str = "shared"
    variant: str = "released"
    num_inits: int = 1
    fresh_batch: int | None = None
    augment: bool = False

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise InputError(f"init: found {self.init!r}, expected one of {INITS}")
        if self.variant not in VARIANTS:
            raise InputError(f"score variant: found {self.variant!r}, expected one of {VARIANTS}")
        if self.num_inits < 1:
            raise InputError(f"num_inits: found {self.num_inits}, expected at least 1")
        if self.fresh_batch is not None and self.fresh_batch < 2:
            raise InputError(f"fresh_batch: found {self.fresh_batch}, expected at least 2 images")
        if self.augment and self.fresh_batch is None:
            raise InputError(
                "augment: needs fresh_batch; augment a mini-batch before scoring on it"
            )


class CellScorer:
    """Cells scored on one data set by one protocol; a score function for any search."""

    def __init__(
        self,
        images: np.ndarray | jax.Array,
        labels: np.ndarray | jax.Array,
        *,
        seed: int,
        network: Network | None = None,
        protocol: Protocol | None = None,
        cells_per_step: int | str = "auto",
        black: np.ndarray | None = None,
        progress: bool = False,
    ):
        """Checks the arguments and puts the images on the device; see `score_cells`."""
        self._protocol = protocol or Protocol()
        num_classes = network.num_classes if network else None
        num_classes = check_minibatch(images, labels, num_classes)
        if self._protocol.fresh_batch and self._protocol.fresh_batch > len(images):
            raise InputError(
                f"fresh_batch: found {self._protocol.fresh_batch}, "
                f"expected at most {len(images)}, the size of the data set"
            )
        self._network = network or Network(num_classes, param_dtype=images.dtype)
        self._images = jnp.asarray(images)
        self._labels = jnp.asarray(labels, jnp.int32)
        channels = self._images.shape[-1]
        fill = np.zeros(channels) if black is None else np.asarray(black)
        self._black = jnp.asarray(fill, self._images.dtype)
        self._key = jax.random.key(seed)
        self._progress = progress
        batch_size = self._protocol.fresh_batch or len(images)
        self.cells_per_step = plan_cells_per_step(
            cells_per_step, self._network, (batch_size, *self._images.shape[1:])
        )

    def compile(self) -> None:
        """Compiles the program by running a step without cells."""
        self._run_step(np.zeros((0, NUM_EDGES), np.int32))

    def __call__(self, genotypes: np.ndarray | jax.Array) -> np.ndarray:
        """The scores `[A]` of genotypes `[A, E]`, NaN where a cell has none."""
        cells = check_genotypes(genotypes)
        scores = np.full(len(cells), np.nan, self._images.dtype)
        with tqdm(total=len(cells), unit="cell", disable=not self._progress) as bar:
            for start in range(0, len(cells), self.cells_per_step):
                step = cells[start : start + self.cells_per_step]
                scores[start : start + len(step)] = self._run_step(step)
                bar.update(len(step))
        return scores

    def _run_step(self, cells: np.ndarray) -> np.ndarray:
        padding = ((0, self.cells_per_step - len(cells)), (0, 0))
        platform = jax.default_backend()
        scores = _compiled_step(platform)(
            self._key,
            jnp.asarray(np.pad(cells, padding)),
            jnp.asarray(len(cells)),
            self._images,
            self._labels,
            self._black,
            network=self._network,
            protocol=self._protocol,
            at_once=platform != "cpu",
        )
        return np.asarray(scores)[: len(cells)]


def score_cells(
    genotypes: np.ndarray | jax.Array,
    images: np.ndarray | jax.Array,
    labels: np.ndarray | jax.Array,
    *,
    seed: int,
    network: Network | None = None,
    protocol: Protocol | None = None,
    cells_per_step: int | str = "auto",
    black: np.ndarray | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Scores any number of cells, in any order, on one mini-batch or a fresh one per cell.

    Args:
      genotypes: the cells, int `[A, E]`.
      images: the mini-batch, normalised, `[N, H, H, 3]`; with `protocol.fresh_batch`, a data set.
      labels: classes 0..K-1, int `[N]`.
      seed: seed of the weights (and of fresh mini-batches).
      network: the network around the cell; by default NAS-Bench-201's with as many classes as
        there are labels.
      protocol: how to score; by default shared weights on the given mini-batch.
      cells_per_step: cells handed to the device at a time, or `"auto"`.
      black: a normalised black pixel, `[3]`, for augmentation; by default zeros.
      progress: show a progress bar on stderr.

    Returns:
      Scores `[A]` of the images' dtype; NaN where a cell has no path from input to output.

    Raises:
      InputError: an argument is not as said above.
    """
    scorer = CellScorer(
        images,
        labels,
        seed=seed,
        network=network,
        protocol=protocol,
        cells_per_step=cells_per_step,
        black=black,
        progress=progress,
    )
    return scorer(genotypes)


def check_minibatch(
    images: np.ndarray | jax.Array, labels: np.ndarray | jax.Array, num_classes: int | None
) -> int:
    """Checks images and labels at the door and returns the number of classes.

    Raises:
      InputError: wrong rank, dtype or number, NaN or infinite pixels, labels out of range.
    """
    check_images(images)
    if len(images) < 2:
        raise InputError(f"images: found {len(images)}, expected at least 2 to correlate")
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(
            f"labels: found {labels.dtype} of shape {labels.shape}, expected integers [images]"
        )
    if len(labels) != len(images):
        raise InputError(f"labels: found {len(labels)}, expected {len(images)}, one an image")
    if not np.isfinite(np.asarray(images)).all():
        raise InputError("images: found NaN or infinite pixels, expected finite values")
    low, high = int(labels.min()), int(labels.max())
    if num_classes is None:
        num_classes = high + 1
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise InputError(f"labels: found {wrong}, expected 0..{num_classes - 1}")
    return num_classes


def plan_cells_per_step(wanted: int | str, network: Network, batch_shape: tuple[int, ...]) -> int:
    """Cells in a step: as wanted, or what fits the device's memory by an estimate.

    Args:
      wanted: a number, or `"auto"`.
      network: the network to run.
      batch_shape: `(N, H, H, 3)`.

    Raises:
      InputError: neither a positive integer nor `"auto"`.
    """
    if isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 1:
        return wanted
    if wanted != "auto":
        raise InputError(f"cells_per_step: found {wanted!r}, expected a positive integer or 'auto'")
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return _CPU_CELLS_PER_STEP
    limit = (device.memory_stats() or {}).get("bytes_limit", 8 * 2**30)
    # A cell keeps its 6 edges and 3 nodes; stages of half the pixels and twice the channels halve.
    kept = 9 * network.cells_per_stage * (1 + 1 / 2 + 1 / 4)
    activation = math.prod(batch_shape[:3]) * network.channels
    bytes_per_cell = kept * activation * jnp.dtype(network.param_dtype).itemsize
    return max(1, min(_MAX_CELLS_PER_STEP, int(_DEVICE_MEMORY_SHARE * limit / bytes_per_cell)))


@functools.cache
def _compiled_step(platform: str) -> Any:
    """`_score_step`, to be compiled for a platform with what is fastest there."""
    # XLA's newer library for CPUs runs convolutions on one core only; the older one uses all.
    options = {"xla_cpu_experimental_ynn_fusion_type": _YNN_FUSIONS} if platform == "cpu" else {}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:
        # Another release of XLA may not know the option.
        options = {}
    static = ("network", "protocol", "at_once")
    return jax.jit(_score_step, static_argnames=static, compiler_options=options)


def _score_step(
    key: jax.Array,
    genotypes: jax.Array,
    num_cells: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    black: jax.Array,
    *,
    network: Network,
    protocol: Protocol,
    at_once: bool,
) -> jax.Array:
    """Scores `[S]` of one step of genotypes `[S, E]`, of which the first num_cells are real."""
    init_keys = jax.random.split(key, protocol.num_inits)
    weights_keys, batch_keys = jnp.unstack(jax.vmap(jax.random.split)(init_keys), axis=1)

    def draw_weights(weights_key: jax.Array) -> Any:
        return network.init(weights_key, images[:1], genotypes[0])

    shared = lax.map(draw_weights, weights_keys) if protocol.init == "shared" else None

    def score(genotype: jax.Array) -> jax.Array:
        code = encode(genotype)

        def score_once(draws: tuple[jax.Array, jax.Array, Any]) -> jax.Array:
            weights_key, batch_key, variables = draws
            if variables is None:
                variables = draw_weights(jax.random.fold_in(weights_key, code))
            minibatch = images, labels
            if protocol.fresh_batch:
                minibatch = draw_minibatch(
                    jax.random.fold_in(batch_key, code),
                    images,
                    labels,
                    protocol.fresh_batch,
                    augment=protocol.augment,
                    black=black,
                )
            return cell_score(
                variables, genotype, *minibatch, network=network, variant=protocol.variant
            )

        return jnp.mean(lax.map(score_once, (weights_keys, batch_keys, shared)))

    if at_once:
        return jax.vmap(score)(genotypes)

    def score_if_real(step: tuple[jax.Array, jax.Array]) -> jax.Array:
        number, genotype = step
        no_score = jnp.full((), jnp.nan, images.dtype)
        return lax.cond(number < num_cells, score, lambda _: no_score, genotype)

    return lax.map(score_if_real, (jnp.arange(len(genotypes)), genotypes))
