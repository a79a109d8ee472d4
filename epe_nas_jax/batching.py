"""Many cells: the batched front door `score_cells` and the compiled program behind it.

Cells are planned into steps of one fixed size, so one program serves any list, and the cells of a
step are dealt to all devices. A GPU or TPU runs its share at once (`jax.vmap`, operations grouped
by `ops.grouped_switch`); a CPU device runs cell after cell inside the program.

A cell's key is folded from the seed and, where cells are to differ, from the cell's code: its score
depends on (seed, mini-batch, cell) and on nothing else.

Shape legend: A cells, D devices, S cells of a device in a step, E edges, N images, M images in
a data set, H height and width.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from epe_nas_jax.errors import InputError
from epe_nas_jax.minibatch import check_minibatch, draw_minibatch
from epe_nas_jax.network import Network
from epe_nas_jax.planning import deal, plan_steps
from epe_nas_jax.score import VARIANTS, cell_score
from epe_nas_jax.space import SpaceNetwork

INITS = ("shared", "independent")

_NO_CELL = -1


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

    @property
    def all_shared(self) -> bool:
        """Whether all cells have the same weights and the same mini-batch."""
        return self.init == "shared" and self.fresh_batch is None


class CellScorer:
    """Cells scored on one data set by one protocol; a score function for any search."""

    def __init__(
        self,
        images: np.ndarray | jax.Array,
        labels: np.ndarray | jax.Array,
        *,
        seed: int,
        network: SpaceNetwork | None = None,
        protocol: Protocol | None = None,
        cells_per_step: int | str = "auto",
        live_form: bool = True,
        black: np.ndarray | None = None,
        devices: Sequence[jax.Device] | None = None,
        progress: bool = False,
    ):
        """Checks the arguments and puts the images on the devices; see `score_cells`."""
        self._protocol = protocol or Protocol()
        num_classes = network.num_classes if network else None
        num_classes = check_minibatch(images, labels, num_classes)
        if self._protocol.fresh_batch and self._protocol.fresh_batch > len(images):
            raise InputError(
                f"fresh_batch: found {self._protocol.fresh_batch}, "
                f"expected at most {len(images)}, the size of the data set"
            )
        self._network: SpaceNetwork = network or Network(num_classes, param_dtype=images.dtype)
        self._space = self._network.space
        batch_shape = (self._protocol.fresh_batch or len(images), *images.shape[1:])
        self.cells_per_step, self.devices = plan_steps(
            cells_per_step, self._network, batch_shape, devices or jax.local_devices()
        )
        self._mesh = Mesh(np.array(self.devices), ("cells",))
        # A CPU device runs cell after cell: one cell fills it, and its memory is used again.
        self._at_once = self.devices[0].platform != "cpu"
        self._live_form = live_form
        self._progress = progress

        black = np.zeros(images.shape[-1]) if black is None else black
        self._shared = jax.device_put(
            (
                jax.random.key(seed),
                jnp.asarray(images),
                jnp.asarray(labels, jnp.int32),
                jnp.asarray(black, images.dtype),
            ),
            NamedSharding(self._mesh, PartitionSpec()),  # type: ignore[no-untyped-call]
        )
        self._dtype = images.dtype

    def compile(self) -> None:
        """Compiles the program by running a step without cells."""
        self._run_step(np.zeros(0, np.int32), np.zeros((0, self._space.NUM_EDGES), np.int32))

    def __call__(self, genotypes: np.ndarray | jax.Array) -> np.ndarray:
        """The scores `[A]` of genotypes `[A, E]`, NaN where a cell has none."""
        codes, networks, back = self._distinct(self._space.check_genotypes(genotypes))
        scores = np.full(len(networks), np.nan, self._dtype)
        size = self.cells_per_step * len(self.devices)
        with tqdm(total=len(networks), unit="cell", disable=not self._progress) as bar:
            for start in range(0, len(networks), size):
                step = slice(start, start + size)
                scores[step] = self._run_step(codes[step], networks[step])
                bar.update(len(networks[step]))
        return scores[back]

    def num_networks(self, genotypes: np.ndarray | jax.Array) -> int:
        """How many networks it takes to score genotypes `[A, E]`."""
        return len(self._distinct(self._space.check_genotypes(genotypes))[1])

    def _distinct(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes of cells, the networks to run for them, and which of these each cell has."""
        networks = self._space.live_form(cells) if self._live_form else cells
        back = np.arange(len(cells))
        if self._protocol.all_shared:
            networks, back = np.unique(networks, axis=0, return_inverse=True)
            cells = networks
        return np.asarray(self._space.encode(jnp.asarray(cells))), networks, back

    def _run_step(self, codes: np.ndarray, networks: np.ndarray) -> np.ndarray:
        order = deal(self._space.relative_work(networks), len(self.devices), self.cells_per_step)
        is_cell = order < len(codes)
        # Appended: an empty cell, which fills the places that are left.
        codes = np.append(codes, _NO_CELL).astype(np.int32)[order]
        networks = np.append(networks, np.zeros((1, self._space.NUM_EDGES), np.int32), axis=0)[
            order
        ]
        dealt = _score_step(
            codes,
            networks,
            *self._shared,
            network=self._network,
            protocol=self._protocol,
            mesh=self._mesh,
            at_once=self._at_once,
        )
        scores = np.empty(int(is_cell.sum()), self._dtype)
        scores[order[is_cell]] = np.asarray(dealt)[is_cell]
        return scores


def score_cells(
    genotypes: np.ndarray | jax.Array,
    images: np.ndarray | jax.Array,
    labels: np.ndarray | jax.Array,
    *,
    seed: int,
    network: SpaceNetwork | None = None,
    protocol: Protocol | None = None,
    cells_per_step: int | str = "auto",
    live_form: bool = True,
    black: np.ndarray | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Scores any number of cells, in any order, on one mini-batch or a fresh one per cell.

    Args:
      genotypes: the cells, int `[A, E]`.
      images: the mini-batch, normalised, `[N, H, H, 3]`; with `protocol.fresh_batch`, a data set.
      labels: classes 0..K-1, int `[N]`.
      seed: seed of the weights (and of fresh mini-batches).
      network: the network around the cell, which names its search space; by default
        NAS-Bench-201's with as many classes as there are labels.
      protocol: how to score; by default shared weights on the given mini-batch.
      cells_per_step: cells handed to a device at a time, or `"auto"`.
      live_form: leave out operations on no path from input to output, and score cells once that
        are equal then; it changes no score.
      black: a normalised black pixel, `[3]`, for augmentation; by default zeros.
      devices: devices of one kind, by default all that this process has.
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
        live_form=live_form,
        black=black,
        devices=devices,
        progress=progress,
    )
    return scorer(genotypes)


@functools.partial(jax.jit, static_argnames=("network", "protocol", "mesh", "at_once"))
def _score_step(
    codes: jax.Array,
    networks: jax.Array,
    *shared: jax.Array,
    network: SpaceNetwork,
    protocol: Protocol,
    mesh: Mesh,
    at_once: bool,
) -> jax.Array:
    """Scores `[D * S]` of the cells of one step, dealt to the devices of the mesh.

    What all devices get whole is said at `_score_share`.
    """
    share = PartitionSpec("cells")  # type: ignore[no-untyped-call]
    whole = PartitionSpec()  # type: ignore[no-untyped-call]
    score_share = functools.partial(
        _score_share, network=network, protocol=protocol, at_once=at_once
    )
    return jax.shard_map(
        score_share,
        mesh=mesh,
        in_specs=(share, share, *[whole] * len(shared)),
        out_specs=share,
        # The rule of `grouped_switch` knows nothing of devices.
        check_vma=False,
    )(codes, networks, *shared)


def _score_share(
    codes: jax.Array,
    networks: jax.Array,
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    black: jax.Array,
    *,
    network: SpaceNetwork,
    protocol: Protocol,
    at_once: bool,
) -> jax.Array:
    """Scores `[S]` of one device's share: codes `[S]` of the cells, networks `[S, E]` to run."""
    init_keys = jax.random.split(key, protocol.num_inits)
    weights_keys, batch_keys = jnp.unstack(jax.vmap(jax.random.split)(init_keys), axis=1)

    def draw_weights(weights_key: jax.Array) -> Any:
        return network.init(weights_key, images[:1], networks[0])

    shared = lax.map(draw_weights, weights_keys) if protocol.init == "shared" else None

    def score(code: jax.Array, genotype: jax.Array) -> jax.Array:
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
        return jax.vmap(score)(codes, networks)

    def score_if_cell(place: tuple[jax.Array, jax.Array]) -> jax.Array:
        no_score = jnp.full((), jnp.nan, images.dtype)
        return lax.cond(place[0] == _NO_CELL, lambda *_: no_score, score, *place)

    return lax.map(score_if_cell, (codes, networks))
