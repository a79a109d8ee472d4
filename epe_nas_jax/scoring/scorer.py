"""Scores many cells: `score_cells`, and the compiled scorer that it calls.

Cells are planned into steps of fixed size, and the cells of a step are sharded over all devices. A
CPU device runs one cell after another inside the program, and one program (`step`) is enough for
any list of cells. A GPU or TPU runs the cells of its shard at once, each operation of an edge by a
group of fixed size: three programs are enough, and for every step `scoring.packing` chooses the one
that fits best. The first is compiled beforehand, the others when they are needed.
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


# `eq=False`: comparison by attributes would fail, because arrays have no truth value and no hash.
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CellScorer:
    """A compiled scorer of cells on one mini-batch or data set; a score function for any search.

    Made by `compile_scorer`, and never changed.

    Attributes:
      network: the network around the cells, which names their search space.
      config: how cells are scored.
      prune_dead: whether operations on no path from input to output are left out.
      vectorise: whether a device runs the cells of its shard at once, or one after another.
      packer: plans steps by groups of fixed size; None: steps have no groups.
      num_processes: how many equal processes share the steps.
      cells_per_step: the most cells that a device takes in a step, S.
      devices: the devices in use.
      dtype: dtype of the scores.
      progress: whether to show a progress bar on stderr.
      inputs: the key of the weights, images, labels and a black pixel, replicated on the devices.

    Examples:
      >>> scorer = epe_nas_jax.compile_scorer(images, labels, seed=0, network=network)
      >>> cells = np.array([[3, 3, 3, 3, 3, 3], [0, 0, 0, 0, 0, 0]])
      >>> np.isnan(scorer(cells))  # the second cell has no path from input to output
      array([False,  True])
      >>> scorer.proxies(cells).shape
      (2, 1)
      >>> scorer.class_scores(cells[0]).shape
      (3,)
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
        """The most cells that a step has, on all devices."""
        return self.largest_step()[0] * len(self.devices)

    def __call__(self, genotypes: Any) -> np.ndarray:
        """Scores genotypes `[A, E]`, or A texts: `[A]`, NaN where a cell has no score."""
        return self.proxies(genotypes)[:, 0]

    def proxies(self, genotypes: Any) -> np.ndarray:
        """Computes the proxies of genotypes `[A, E]`, or A texts: `[A, P]`, NaN for no score."""
        kinds, networks, back = self.distinct(genotypes)
        return self._of_list(kinds, networks)[0][back]

    def class_scores(self, genotype: np.ndarray) -> np.ndarray:
        """Computes the EPE-NAS score e_c of each class, `[K]`, of a genotype `[E]`."""
        kinds, networks, _ = self.distinct(genotype[None])
        return dataclasses.replace(self, progress=False)._of_list(kinds, networks)[1][0]

    def distinct(self, genotypes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Finds the different cells that have to be scored, so that none is scored twice.

        Args:
          genotypes: the cells, `[A, E]`, or A texts.

        Returns:
          The different genotypes `[B, E]`, sorted, which are live forms if all cells share weights
          and mini-batch, else cells as given; the genotypes `[B, E]` to build for them; and for
          each cell the index of its row in these, `[A]`.

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
        """Scores the cells that `distinct` returned, or part of them, and yields after every step.

        Args:
          kinds: the different genotypes, int `[B, E]`.
          networks: the genotypes to build for them, int `[B, E]`.
          num_done: how many were scored before, for the progress bar.
          shard: this process's part, where several processes share the steps; by default all.

        Yields:
          Those genotypes of `kinds` that this process has scored in the step, in their order, and
          their proxies, one row per genotype.
        """
        for step, proxies, _ in self._steps(kinds, networks, num_done, shard):
            yield kinds[step.cells], proxies

    def lower(self, platform: str | None = None) -> jax.stages.Lowered:
        """Lowers the program of a step, without compiling it, for these devices or a platform."""
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
        """The most cells of a device in a step, and how many may have each operation on an edge."""
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
        """Yields each step of `steps`, its proxies and its class scores."""
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
        # The row of zeros fills the slots without a cell.
        is_cell = step.is_cell[:, None]
        words = space.identity(np.where(is_cell, kinds[step.slots], 0))
        genotypes = np.where(is_cell, networks[step.slots], 0)
        if step.capacities is not None:
            for shard in np.split(genotypes, len(self.devices)):
                assert has_room(shard, step.capacities)
        # NaN is a valid result here: it must not stop a user who has `jax_debug_nans` on.
        with jax.debug_nans(False), one_blas_thread():
            static = self._static(step.capacities)
            found = score_step(words, step.is_cell, genotypes, *self.inputs, **static)
            by_slot = [np.asarray(array) for array in found]
        order = np.argsort(step.slots[step.is_cell])
        proxies, e = (array[step.is_cell][order] for array in by_slot)
        return proxies, e

    def _static(self, capacities: Capacities | None) -> dict[str, Any]:
        """The static arguments of the compiled program."""
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
    """Makes a scorer: checks the arguments, copies images to the devices, compiles the program.

    If the program needs more memory than there is, by the compiler's account, it is compiled again
    for fewer cells at once, or on CPUs for fewer devices.

    Args:
      images: the normalised mini-batch, `[N, H, W, 3]`; with `config.fresh_batch`, a data set. An
        array of any library, or lists; float16 and bfloat16 are computed in float32.
      labels: classes 0..K-1, int `[N]`, an array of any library, or a list.
      seed: seed of the weights (and of fresh mini-batches).
      network: the network around the cell, which names its search space; by default
        NAS-Bench-201's with as many classes as there are labels.
      config: how to score; by default EPE-NAS with shared weights on the given mini-batch.
      cells_per_step: how many cells a device gets at a time, or `"auto"`.
      prune_dead: leave out operations on no path from input to output, and score cells that are
        then equal only once; this changes no score.
      black: a normalised black pixel, `[3]`, for augmentation; by default zeros.
      devices: devices of one kind, by default all that this process has.
      vectorise: run the cells of a device at once (`jax.vmap`) or one after another; by default at
        once on GPUs and TPUs, and one after another on CPUs. With `vectorise=True` and as many CPU
        devices as cores, eigenvalues of large batches can deadlock (jaxlib 0.10, with any number
        of BLAS threads).
      num_together: the most cells that are scored in one call, if known; GPUs and TPUs then make
        their steps no larger.
      num_processes: how many equal processes share the steps (see `CellScorer.steps`).
      progress: show a progress bar on stderr.

    Raises:
      InputError: an argument has the wrong type or is out of range, the images are fewer than
        `config.fresh_batch`, or no class has two images for `epe` to compare.

    Examples:
      >>> scorer = epe_nas_jax.compile_scorer(images, labels, seed=0, network=network)
      >>> scorer(["|nor_conv_1x1~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"]).shape
      (1,)
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
    # A CPU device runs one cell after another: a cell keeps it busy, and memory is used again.
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
    """Compiles a scorer, and again with a smaller plan if its program takes too much memory."""
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
    """Changes a scorer's plan and copies its inputs to the devices in use."""
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

    Examples:
      >>> cells = [[3, 3, 3, 3, 3, 3], [0, 0, 0, 0, 0, 0]]
      >>> scores = epe_nas_jax.score_cells(cells, images, labels, seed=0, network=network)
      >>> np.isnan(scores)  # the second cell has no path from input to output
      array([False,  True])
    """
    # Checked before the compilation, which takes long.
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
