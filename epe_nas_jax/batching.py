"""Many cells: the batched front door `score_cells` and the compiled program behind it.

Cells are planned into steps of one fixed size, so one program serves any list, and the cells of a
step are dealt to all devices. A GPU or TPU runs its share at once (`jax.vmap`, operations grouped
by `ops.grouped_switch`); a CPU device runs cell after cell inside the program.

A cell's key is folded from the seed and, where cells are to differ, from the cell's code: its score
depends on (seed, mini-batch, cell) and on nothing else.

Shape legend: A cells, B different ones, b of them in a step, D devices, S cells of a device in a
step, E edges, N images, M images in a data set, P proxies, K classes, H height and width.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from epe_nas_jax.errors import InputError
from epe_nas_jax.minibatch import check_minibatch, draw_minibatch
from epe_nas_jax.network import Network
from epe_nas_jax.planning import Share, deal, fit_memory, plan_steps, usable_memory
from epe_nas_jax.progress import progress_bar
from epe_nas_jax.proxies import cell_proxies, check_proxies
from epe_nas_jax.space import SpaceNetwork

INITS = ("shared", "independent")
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")

_NO_CELL = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How cells are scored; equal protocols and shapes share one compiled program.

    Attributes:
      init: `"shared"`: a layer, edge and operation has the same weights in every cell;
        `"independent"`: every cell has weights of its own, as in the released code.
      proxies: names from `proxies.PROXIES`; the first one is the score.
      precision: what GPUs and TPUs may round the factors of products to, convolutions included;
        CPUs always compute in full, and so do correlations everywhere.
      num_inits: how many times weights are drawn; the scores are averaged.
      fresh_batch: None: the images are the mini-batch of all cells; a number N: they are a data set
        from which every cell draws N, as in the released code.
      augment: crop and flip the fresh mini-batches.
      class_balanced: draw as many images of each class as possible into the fresh mini-batches.
    """

    init: str = "shared"
    proxies: tuple[str, ...] = ("epe",)
    precision: str = "float32"
    num_inits: int = 1
    fresh_batch: int | None = None
    augment: bool = False
    class_balanced: bool = False

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise InputError(f"init: found {self.init!r}, expected one of {INITS}")
        check_proxies(self.proxies)
        if self.precision not in PRECISIONS:
            raise InputError(f"precision: found {self.precision!r}, expected one of {PRECISIONS}")
        if self.num_inits < 1:
            raise InputError(f"num_inits: found {self.num_inits}, expected at least 1")
        if self.fresh_batch is not None and self.fresh_batch < 2:
            raise InputError(f"fresh_batch: found {self.fresh_batch}, expected at least 2 images")
        if self.augment and self.fresh_batch is None:
            raise InputError(
                "augment: needs fresh_batch; augment a mini-batch before scoring on it"
            )
        if self.class_balanced and self.fresh_batch is None:
            raise InputError(
                "class_balanced: needs fresh_batch; balance a mini-batch before scoring on it"
            )

    @property
    def all_shared(self) -> bool:
        """Whether all cells have the same weights and the same mini-batch."""
        return self.init == "shared" and self.fresh_batch is None


class CellScorer:
    """Cells scored on one data set by one protocol; a score function for any search.

    Attributes:
      cells_per_step: cells handed to a device at a time, S.
      devices: the devices in use.
      dtype: of the scores.
      num_proxies: proxies of a cell, P.
    """

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
        devices = list(devices or jax.local_devices())
        # A CPU device runs cell after cell: one cell fills it, and its memory is used again.
        self._at_once = devices[0].platform != "cpu"
        is_planned = cells_per_step == "auto" or not self._at_once
        self._memory = usable_memory(devices[0]) if is_planned else None
        self.cells_per_step, num_devices = plan_steps(
            cells_per_step, self._network, batch_shape, devices
        )
        self._live_form = live_form
        self._progress = progress
        self._is_compiled = False

        black = np.zeros(images.shape[-1]) if black is None else black
        self._shared: tuple[jax.Array, ...] = (
            jax.random.key(seed),
            jnp.asarray(images),
            jnp.asarray(labels, jnp.int32),
            jnp.asarray(black, images.dtype),
        )
        self._place(devices[:num_devices])
        self.dtype = images.dtype
        self.num_proxies = len(self._protocol.proxies)

    def _place(self, devices: list[jax.Device]) -> None:
        self.devices = devices
        self._mesh = Mesh(np.array(devices), ("cells",))
        whole = NamedSharding(self._mesh, PartitionSpec())  # type: ignore[no-untyped-call]
        self._shared = jax.device_put(self._shared, whole)

    def compile(self) -> None:
        """Compiles the program, once.

        The compiler's account of the memory that the program takes has the last word: if there is
        less, it is compiled again for fewer cells at once, or on CPUs for fewer devices.
        """
        while not self._is_compiled:
            self._is_compiled = True
            codes = np.full(self.num_places, _NO_CELL, np.int32)
            networks = np.zeros((self.num_places, self._space.NUM_EDGES), np.int32)
            program = _score_step.lower(codes, networks, *self._shared, **self._static()).compile()
            account = program.memory_analysis()
            if self._memory is None or account is None:
                return
            plan = fit_memory(
                self.cells_per_step, self.devices, account.temp_size_in_bytes, self._memory
            )
            if plan != (self.cells_per_step, len(self.devices)):
                self.cells_per_step, num_devices = plan
                self._place(self.devices[:num_devices])
                self._is_compiled = False

    @property
    def num_places(self) -> int:
        """How many cells a step has at most; known for good when it is compiled."""
        return self.cells_per_step * len(self.devices)

    def __call__(self, genotypes: np.ndarray | jax.Array) -> np.ndarray:
        """The scores `[A]` of genotypes `[A, E]`, NaN where a cell has none."""
        return self.proxies(genotypes)[:, 0]

    def proxies(self, genotypes: np.ndarray | jax.Array) -> np.ndarray:
        """The protocol's proxies `[A, P]` of genotypes `[A, E]`, NaN where a cell has none."""
        codes, networks, back = self.distinct(genotypes)
        rows = [rows for _, rows in self.steps(codes, networks)]
        return np.concatenate([np.zeros((0, self.num_proxies), self.dtype), *rows])[back]

    def class_scores(self, genotype: np.ndarray) -> np.ndarray:
        """Each class's part e_c, `[K]`, of the score of a genotype `[E]`."""
        self.compile()
        codes, networks, _ = self.distinct(genotype[None])
        return self._run(codes, networks)[1][0]

    def distinct(
        self, genotypes: np.ndarray | jax.Array
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What it takes to score cells, each thing once.

        Args:
          genotypes: the cells, `[A, E]`.

        Returns:
          Codes `[B]` of what has proxies of its own, ordered by genotype: networks if all cells
          share weights and mini-batch, else cells; the networks `[B, E]` to run for them; and which
          of these each cell has, `[A]`.
        """
        cells = self._space.check_genotypes(genotypes)
        networks = self._space.live_form(cells) if self._live_form else cells
        kinds = networks if self._protocol.all_shared else cells
        kinds, first, back = np.unique(kinds, axis=0, return_index=True, return_inverse=True)
        return np.asarray(self._space.encode(jnp.asarray(kinds))), networks[first], back

    def steps(
        self,
        codes: np.ndarray,
        networks: np.ndarray,
        num_done: int = 0,
        share: Share | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Scores what `distinct` gave, or part of it, and yields after every step.

        Args:
          codes: int `[B]`.
          networks: int `[B, E]`.
          num_done: how many were scored before, for the progress bar.
          share: this process's part where several share the steps; by default it has all.

        Yields:
          The codes `[b]` of this process's part of the step, and their proxies `[b, P]`.
        """
        self.compile()
        share = share or Share(0, 1, self.num_places)
        size = share.num_processes * share.num_places
        total = num_done + len(codes)
        is_hidden = not self._progress
        with progress_bar(total, num_done, unit="network", disable=is_hidden) as bar:
            for start in range(0, len(codes), size):
                work = self._space.relative_work(networks[start : start + size])
                mine = start + share.of(work)
                yield codes[mine], self._run_step(codes[mine], networks[mine])
                bar.update(len(work))

    def _run_step(self, codes: np.ndarray, networks: np.ndarray) -> np.ndarray:
        """Proxies of the cells of a step, a row a cell."""
        if not len(codes):
            return np.zeros((0, self.num_proxies), self.dtype)
        return self._run(codes, networks)[0]

    def _run(self, codes: np.ndarray, networks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Proxies and class scores of the cells of a step, a row a cell."""
        order = deal(self._space.relative_work(networks), len(self.devices), self.cells_per_step)
        is_cell = order < len(codes)
        # Appended: an empty cell, which fills the places that are left.
        codes = np.append(codes, _NO_CELL).astype(np.int32)[order]
        empty = np.zeros((1, self._space.NUM_EDGES), np.int32)
        networks = np.append(networks, empty, axis=0)[order]
        proxies, e = _score_step(codes, networks, *self._shared, **self._static())

        def in_order(dealt: jax.Array) -> np.ndarray:
            rows = np.empty((int(is_cell.sum()), dealt.shape[1]), dealt.dtype)
            rows[order[is_cell]] = np.asarray(dealt)[is_cell]
            return rows

        return in_order(proxies), in_order(e)

    def _static(self) -> dict[str, Any]:
        """What the compiled program is made for, beside shapes."""
        return {
            "network": self._network,
            "protocol": self._protocol,
            "mesh": self._mesh,
            "at_once": self._at_once,
        }


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
) -> tuple[jax.Array, jax.Array]:
    """Proxies `[D * S, P]` and class scores `[D * S, K]` of a step, dealt to the mesh's devices.

    What all devices get whole is said at `_score_share`.
    """
    share = PartitionSpec("cells")  # type: ignore[no-untyped-call]
    whole = PartitionSpec()  # type: ignore[no-untyped-call]
    score_share = functools.partial(
        _score_share, network=network, protocol=protocol, at_once=at_once
    )
    with jax.default_matmul_precision(protocol.precision):
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
) -> tuple[jax.Array, jax.Array]:
    """Proxies `[S, P]` and class scores `[S, K]` of one device's share.

    Its cells are given by their codes `[S]` and the networks `[S, E]` to run.
    """
    init_keys = jax.random.split(key, protocol.num_inits)
    weights_keys, batch_keys = jnp.unstack(jax.vmap(jax.random.split)(init_keys), axis=1)

    def draw_weights(weights_key: jax.Array) -> Any:
        return network.init(weights_key, images[:1], networks[0])

    shared = lax.map(draw_weights, weights_keys) if protocol.init == "shared" else None

    def score(code: jax.Array, genotype: jax.Array) -> tuple[jax.Array, jax.Array]:
        def score_once(draws: tuple[jax.Array, jax.Array, Any]) -> tuple[jax.Array, jax.Array]:
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
                    balanced_classes=network.num_classes if protocol.class_balanced else None,
                )
            return cell_proxies(
                variables, genotype, *minibatch, network=network, proxies=protocol.proxies
            )

        proxies, e = lax.map(score_once, (weights_keys, batch_keys, shared))
        return jnp.mean(proxies, axis=0), jnp.mean(e, axis=0)

    if at_once:
        return jax.vmap(score)(codes, networks)

    def score_if_cell(place: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        widths = len(protocol.proxies), network.num_classes
        no_score = tuple(jnp.full(width, jnp.nan, images.dtype) for width in widths)
        return lax.cond(place[0] == _NO_CELL, lambda *_: no_score, score, *place)

    return lax.map(score_if_cell, (codes, networks))
