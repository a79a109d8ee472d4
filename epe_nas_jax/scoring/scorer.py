"""Many cells: `score_cells`, and the compiled scorer that it calls.

Cells are planned into steps of fixed size, and the cells of a step are sharded over all devices. A
CPU device runs cell after cell inside the program, and one program (`step`) serves any list. A GPU
or TPU runs the cells of its shard at once, each operation of an edge by a group of fixed size:
three programs serve any list, of which `scoring.packing` fills that which fits best. The first is
compiled beforehand, the others when they are needed.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from epe_nas_jax.arrays import as_array, in_float32
from epe_nas_jax.errors import InputError
from epe_nas_jax.scoring.blas import one_blas_thread
from epe_nas_jax.scoring.config import ScoringConfig
from epe_nas_jax.scoring.packing import Packer, has_room, pack, uniform_packer
from epe_nas_jax.scoring.planning import (
    Shard,
    Step,
    checked_devices,
    fit_memory,
    plan_steps,
    steps_by_groups,
    steps_in_order,
    usable_memory,
)
from epe_nas_jax.scoring.progress import progress_bar
from epe_nas_jax.scoring.step import score_step
from epe_nas_jax.seeds import random_key
from epe_nas_jax.spaces.base import Capacities, CellNetwork, genotypes_of
from epe_nas_jax.spaces.layers.checks import check_minibatch, check_pairs
from epe_nas_jax.spaces.nasbench201.network import NasBench201Network
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201


# Not compared by its attributes: arrays have no truth value and no hash.
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CellScorer:
    """Cells scored on one data set in one way, compiled; a score function for any search.

    Made by `compile_scorer`, and never changed.

    Attributes:
      network: the network around the cells, which names their search space.
      config: how cells are scored.
      prune_dead: whether operations on no path from input to output are left out.
      vectorise: whether a device runs the cells of its shard at once, or one after another.
      packer: makes steps by groups of fixed size; None: steps have none.
      num_processes: how many processes like this share the steps.
      cells_per_step: cells of a device in a step, at most; S.
      devices: the devices in use.
      dtype: of the scores.
      progress: whether to show a progress bar on stderr.
      inputs: the key of the weights, images, labels and a black pixel, replicated on the devices.
    """

    network: CellNetwork
    config: ScoringConfig
    prune_dead: bool
    vectorise: bool
    packer: Packer | None
    num_processes: int
    cells_per_step: int
    devices: tuple[jax.Device, ...]
    dtype: np.dtype[Any]
    progress: bool
    inputs: tuple[jax.Array, ...]

    @property
    def num_slots(self) -> int:
        """How many cells a step has at most."""
        return self.largest_step()[0] * len(self.devices)

    def __call__(self, genotypes: Any) -> np.ndarray:
        """The scores `[A]` of genotypes `[A, E]` or A texts, NaN where a cell has none."""
        return self.proxies(genotypes)[:, 0]

    def proxies(self, genotypes: Any) -> np.ndarray:
        """The proxies `[A, P]` of genotypes `[A, E]` or A texts, NaN where a cell has none."""
        kinds, networks, back = self.distinct(genotypes)
        return self._of_list(kinds, networks)[0][back]

    def class_scores(self, genotype: np.ndarray) -> np.ndarray:
        """Each class's part e_c, `[K]`, of the EPE-NAS score of a genotype `[E]`."""
        kinds, networks, _ = self.distinct(genotype[None])
        return dataclasses.replace(self, progress=False)._of_list(kinds, networks)[1][0]

    def distinct(self, genotypes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Finds which different cells have to be scored, so that none is scored twice.

        Args:
          genotypes: the cells, `[A, E]`, or A texts.

        Returns:
          Genotypes `[B, E]` that have proxies of their own, in order: networks if all cells share
          weights and mini-batch, else cells; the genotypes `[B, E]` to build for them; and which of
          these each cell has, `[A]`.

        Raises:
          InputError: the rows are not genotypes of the space.
        """
        space = self.network.space
        cells = genotypes_of(genotypes, space)
        networks = space.prune_dead(cells) if self.prune_dead else cells
        kinds = networks if self.config.all_shared else cells
        kinds, first, back = np.unique(kinds, axis=0, return_index=True, return_inverse=True)
        return kinds, networks[first], back

    def steps(
        self,
        kinds: np.ndarray,
        networks: np.ndarray,
        num_done: int = 0,
        shard: Shard | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Scores what `distinct` gave, or part of it, and yields after every step.

        Args:
          kinds: int `[B, E]`.
          networks: int `[B, E]`.
          num_done: how many were scored before, for the progress bar.
          shard: this process's part where several share the steps; by default it has all.

        Yields:
          Those genotypes of `kinds` that are this process's part of the step, in their order, and
          their proxies, a row each.
        """
        for step, proxies, _ in self._steps(kinds, networks, num_done, shard):
            yield kinds[step.cells], proxies

    def lower(self, platform: str | None = None) -> jax.stages.Lowered:
        """The program of a step, not compiled, for these devices or for another platform."""
        space, num_slots = self.network.space, self.num_slots
        capacities = self.largest_step()[1]
        genotypes = np.zeros((num_slots, space.num_edges), np.int32)
        words = space.identity(genotypes)
        is_cell = np.zeros(num_slots, bool)
        traced = score_step.trace(
            words, is_cell, genotypes, *self.inputs, **self._static(capacities)
        )
        return traced.lower(lowering_platforms=(platform,) if platform else None)

    def largest_step(self) -> tuple[int, Capacities | None]:
        """How many cells a device has in a step at most, and how many of them may have what."""
        if self.packer is None:
            return self.cells_per_step, None
        together = self.num_processes * len(self.devices)
        return self.packer.profiles(self.cells_per_step, together)[0]

    def _of_list(self, kinds: np.ndarray, networks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Proxies `[B, P]` and class scores `[B, K]` of a list, in its order."""
        proxies = np.empty((len(kinds), len(self.config.proxies)), self.dtype)
        e = np.empty((len(kinds), self.network.num_classes), self.dtype)
        for step, *found in self._steps(kinds, networks):
            proxies[step.cells], e[step.cells] = found
        return proxies, e

    def _steps(
        self,
        kinds: np.ndarray,
        networks: np.ndarray,
        num_done: int = 0,
        shard: Shard | None = None,
    ) -> Iterator[tuple[Step, np.ndarray, np.ndarray]]:
        """As `steps`: each step, its proxies and class scores."""
        num_devices = len(self.devices)
        shard = shard or Shard(0, 1, num_devices, self.cells_per_step)
        if self.packer is None:
            work = self.network.space.relative_work(networks)
            steps = steps_in_order(work, shard, num_devices, self.cells_per_step)
        else:
            profiles = self.packer.profiles(
                shard.cells_per_step, self.num_processes * shard.num_devices
            )
            together = shard.num_processes * shard.num_devices
            rounds = pack(networks, profiles, self.packer.group_work, together)
            steps = steps_by_groups(rounds, shard, num_devices)
        total = num_done + len(kinds)
        is_hidden = not self.progress
        with progress_bar(total, num_done, unit="network", disable=is_hidden) as bar:
            for step in steps:
                yield step, *self._run(kinds, networks, step)
                bar.update(step.num_cells)

    def _run(
        self, kinds: np.ndarray, networks: np.ndarray, step: Step
    ) -> tuple[np.ndarray, np.ndarray]:
        """Proxies and class scores of this process's cells of a step, in their order."""
        if not step.is_cell.any():
            widths = len(self.config.proxies), self.network.num_classes
            return np.zeros((0, widths[0]), self.dtype), np.zeros((0, widths[1]), self.dtype)
        space = self.network.space
        # An empty cell, of zeros, fills the slots that are left.
        is_cell = step.is_cell[:, None]
        words = space.identity(np.where(is_cell, kinds[step.slots], 0))
        genotypes = np.where(is_cell, networks[step.slots], 0)
        if step.capacities is not None:
            for shard in np.split(genotypes, len(self.devices)):
                assert has_room(shard, step.capacities)
        # NaN is a result here: a user who looks for NaN elsewhere would be stopped by it.
        with jax.debug_nans(False), one_blas_thread():
            static = self._static(step.capacities)
            found = score_step(words, step.is_cell, genotypes, *self.inputs, **static)
            by_slot = [np.asarray(array) for array in found]
        order = np.argsort(step.slots[step.is_cell])
        proxies, e = (array[step.is_cell][order] for array in by_slot)
        return proxies, e

    def _static(self, capacities: Capacities | None) -> dict[str, Any]:
        """What the compiled program is made for, beside shapes."""
        return {
            "network": self.network,
            "config": self.config,
            "mesh": Mesh(np.array(self.devices), ("cells",)),
            "vectorise": self.vectorise,
            "capacities": capacities,
        }


def compile_scorer(
    images: Any,
    labels: Any,
    *,
    seed: int,
    network: CellNetwork | None = None,
    config: ScoringConfig | None = None,
    cells_per_step: int | str = "auto",
    prune_dead: bool = True,
    black: np.ndarray | None = None,
    devices: Sequence[jax.Device] | None = None,
    vectorise: bool | None = None,
    num_together: int | None = None,
    num_processes: int = 1,
    progress: bool = False,
) -> CellScorer:
    """Checks the arguments, puts the images on the devices and compiles the program.

    The compiler's account of the memory that the program takes has the last word: if there is less,
    it is compiled again for fewer cells together, or on CPUs for fewer devices.

    Args:
      images: the mini-batch, normalised, `[N, H, W, 3]`; with `config.fresh_batch`, a data set. An
        array of any library, or lists; float16 and bfloat16 are computed in float32.
      labels: classes 0..K-1, int `[N]`, likewise.
      seed: seed of the weights (and of fresh mini-batches).
      network: the network around the cell, which names its search space; by default
        NAS-Bench-201's with as many classes as there are labels.
      config: how to score; by default EPE-NAS with shared weights on the given mini-batch.
      cells_per_step: cells handed to a device at a time, or `"auto"`.
      prune_dead: leave out operations on no path from input to output, and score cells once that
        are equal then; it changes no score.
      black: a normalised black pixel, `[3]`, for augmentation; by default zeros.
      devices: devices of one kind, by default all that this process has.
      vectorise: run the cells of a device at once (`jax.vmap`) or one after another; by default at
        once on GPUs and TPUs, and one after another on CPUs. At once on as many CPU devices as
        there are cores, the eigenvalues of large batches can wait for each other for ever (jaxlib
        0.10, whatever the number of BLAS threads).
      num_together: how many cells are scored at a time at most, if that is known; GPUs and TPUs
        make their steps no larger then.
      num_processes: how many processes like this share the steps, as `CellScorer.steps` lets them.
      progress: show a progress bar on stderr.

    Raises:
      InputError: an argument has the wrong type or is out of range, the images are fewer than
        `config.fresh_batch`, or no two images are of one class where `epe` is to compare them.
    """
    config = config or ScoringConfig()
    images, labels = in_float32(as_array(images, "images")), as_array(labels, "labels")
    num_classes = check_minibatch(images, labels, network.num_classes if network else None)
    if config.fresh_batch and config.fresh_batch > len(images):
        raise InputError(
            f"fresh_batch: found {config.fresh_batch}, "
            f"expected at most {len(images)}, the size of the data set"
        )
    if "epe" in config.proxies and not config.fresh_batch:
        check_pairs(labels)
    network = network or NasBench201Network(num_classes, param_dtype=images.dtype)
    for name, number in (("num_together", num_together), ("num_processes", num_processes)):
        if number is not None and number < 1:
            raise InputError(f"{name}: found {number}, expected at least 1")
    batch_shape = (config.fresh_batch or len(images), *images.shape[1:])
    devices = checked_devices(devices)
    is_cpu = devices[0].platform == "cpu"
    # A CPU device runs cell after cell: one cell fills it, and its memory is used again.
    vectorise = not is_cpu if vectorise is None else vectorise
    memory = usable_memory(devices[0]) if is_cpu or cells_per_step == "auto" else None
    num_cells, num_devices = plan_steps(
        cells_per_step, network, batch_shape, devices, config.precision
    )
    inputs = (
        random_key(seed),
        jnp.asarray(images),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(np.zeros(images.shape[-1]) if black is None else black, images.dtype),
    )
    scorer = CellScorer(
        network=network,
        config=config,
        prune_dead=prune_dead,
        vectorise=vectorise,
        packer=None,
        num_processes=num_processes,
        cells_per_step=num_cells,
        devices=tuple(devices),
        dtype=np.dtype(images.dtype),
        progress=progress,
        inputs=inputs,
    )
    if vectorise and network.group_work is not None:
        packer = uniform_packer(
            network.space,
            lambda cells: scorer.distinct(cells)[1],
            network.group_work,
            num_together,
        )
        scorer = dataclasses.replace(scorer, packer=packer)
    return _compile(_with_plan(scorer, num_cells, num_devices), memory)


def _compile(scorer: CellScorer, memory: int | None) -> CellScorer:
    """Compiles a scorer, again with a smaller plan if its program takes more memory than this."""
    account = scorer.lower().compile().memory_analysis()
    if memory is None or account is None:
        return scorer
    num_cells = scorer.largest_step()[0]
    plan = fit_memory(num_cells, scorer.devices, account.temp_size_in_bytes, memory)
    if plan == (num_cells, len(scorer.devices)):
        return scorer
    cells_per_step = scorer.cells_per_step if plan[0] == num_cells else plan[0]
    return _compile(_with_plan(scorer, cells_per_step, plan[1]), memory)


def _with_plan(scorer: CellScorer, cells_per_step: int, num_devices: int) -> CellScorer:
    """A scorer for another plan, with its inputs on the devices in use."""
    devices = scorer.devices[:num_devices]
    replicated = NamedSharding(
        Mesh(np.array(devices), ("cells",)),
        PartitionSpec(),  # type: ignore[no-untyped-call]
    )
    return dataclasses.replace(
        scorer,
        cells_per_step=cells_per_step,
        devices=devices,
        inputs=jax.device_put(scorer.inputs, replicated),
    )


def score_cells(
    genotypes: Any,
    images: Any,
    labels: Any,
    *,
    seed: int,
    network: CellNetwork | None = None,
    config: ScoringConfig | None = None,
    cells_per_step: int | str = "auto",
    prune_dead: bool = True,
    black: np.ndarray | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Scores any number of cells, in any order, on one mini-batch or a fresh one per cell.

    >>> epe_nas_jax.score_cells([arch], images, labels, seed=0)

    Args:
      genotypes: the cells, int `[A, E]`, or A texts of cells.
      images: as in `compile_scorer`.
      labels: as in `compile_scorer`.
      seed: as in `compile_scorer`.
      network: as in `compile_scorer`.
      config: as in `compile_scorer`.
      cells_per_step: as in `compile_scorer`.
      prune_dead: as in `compile_scorer`.
      black: as in `compile_scorer`.
      devices: as in `compile_scorer`.
      progress: as in `compile_scorer`.

    Returns:
      Scores `[A]` of the images' dtype; NaN where a cell has no path from input to output.

    Raises:
      InputError: as `compile_scorer`, or the rows are not genotypes of the network's space.
    """
    # Before it compiles, which takes long.
    cells = genotypes_of(genotypes, network.space if network else NASBENCH201)
    scorer = compile_scorer(
        images,
        labels,
        seed=seed,
        network=network,
        config=config,
        cells_per_step=cells_per_step,
        prune_dead=prune_dead,
        black=black,
        devices=devices,
        progress=progress,
    )
    return scorer(cells)
