"""The two sides of a comparison, ready to run: ours compiled, PyTorch's in a process of its own."""

import contextlib
import functools
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.proxies.epe import cell_score
from epe_nas_jax.pytorch import network as torch_network
from epe_nas_jax.pytorch.comparison import RunTorch, ScoreFn
from epe_nas_jax.pytorch.weights import from_state_dict, sizes_of
from epe_nas_jax.scoring.scorer import compile_scorer
from epe_nas_jax.scoring.step import shared_weights
from epe_nas_jax.spaces.base import CellNetwork
from epe_nas_jax.spaces.nasbench201.network import NasBench201Network

# PyTorch's names of JAX's backends.
_TORCH_DEVICES = {"cpu": "cpu", "gpu": "cuda"}
_IGNORE_SIGINT = (signal.SIGINT, signal.SIG_IGN)


class OurSide(NamedTuple):
    """Our side, compiled and run before.

    Attributes:
      variables: the weights of every candidate, for all cells.
      score_fn: scores `[B]` of genotypes `[B, E]` with these weights.
      cells_per_turn: B.
      compile_seconds: the time that compiling took.
    """

    variables: Any
    score_fn: ScoreFn
    cells_per_turn: int
    compile_seconds: float


def check_network(network: CellNetwork) -> NasBench201Network:
    """Checks that PyTorch's side has a network, too, and returns it.

    Raises:
      InputError: it is not NAS-Bench-201's network.
    """
    if not isinstance(network, NasBench201Network):
        raise InputError(
            f"space.name: found {network.space.name!r}, expected 'nasbench201' beside PyTorch"
        )
    return network


def torch_device() -> str:
    """PyTorch's name of the device that JAX runs on.

    Raises:
      InputError: PyTorch does not know it.
    """
    backend = jax.default_backend()
    if backend not in _TORCH_DEVICES:
        raise InputError(f"device: found {backend}, expected one that PyTorch shares, cpu or gpu")
    return _TORCH_DEVICES[backend]


class TorchProcess:
    """PyTorch's side in a process of its own, as its users run it.

    In the same process PyTorch would profit from memory that JAX has already allocated.

    Attributes:
      num_threads: how many threads it uses on a CPU.
    """

    def __init__(self, pool: ProcessPoolExecutor, device: str, checkout: str):
        """Checks that PyTorch's side can run; raises as `pytorch.network.check_pytorch`."""
        self._pool, self._device, self._checkout = pool, device, checkout
        self.num_threads = pool.submit(torch_network.check_pytorch, device, checkout).result()

    def read_weights(self, path: str) -> dict[str, np.ndarray]:
        """Reads a file of weights; raises as `pytorch.network.read_state_dict`."""
        return self._pool.submit(torch_network.read_state_dict, path).result()

    def runner(
        self, network: NasBench201Network, images: np.ndarray, check_stop: Callable[[], None]
    ) -> RunTorch:
        """Makes the function that runs cells' networks on images `[N, H, H, 3]`.

        Args:
          network: the network around the cells.
          images: the mini-batch.
          check_stop: called before each run; raises an exception to stop.
        """
        run_cell = functools.partial(
            torch_network.run_cell,
            images=images,
            sizes=network.sizes,
            device=self._device,
            checkout=self._checkout,
        )

        def run_torch(
            genotype: np.ndarray, state_dict: Mapping[str, np.ndarray], *, at_its_best: bool
        ) -> torch_network.TorchRun:
            check_stop()
            running = self._pool.submit(
                run_cell, genotype, state_dict=state_dict, at_its_best=at_its_best
            )
            return running.result()

        return run_torch


@contextlib.contextmanager
def torch_process(device: str, checkout: str) -> Iterator[TorchProcess]:
    """Starts PyTorch's process.

    Args:
      device: PyTorch's name of the device.
      checkout: as in `pytorch.network.build_network`.

    Raises:
      InputError: as `pytorch.network.check_pytorch`.
    """
    spawn = multiprocessing.get_context("spawn")
    # Ctrl-C reaches both processes, and only this one handles it.
    with ProcessPoolExecutor(1, spawn, signal.signal, _IGNORE_SIGINT) as pool:
        yield TorchProcess(pool, device, checkout)


def variables_of(
    state_dict: dict[str, np.ndarray], cell: np.ndarray, network: NasBench201Network
) -> Any:
    """A checkpoint's weights, with zeros for every other candidate, for a traced genotype.

    Args:
      state_dict: the weights of the cell's network, by PyTorch's names.
      cell: the cell, int `[E]`.
      network: the network around the cell, of the same sizes.

    Raises:
      InputError: the sizes or an array do not fit.
    """
    for name, found in sizes_of(state_dict)._asdict().items():
        expected = getattr(network, name)
        if found != expected:
            raise InputError(f"compare.checkpoint, {name}: found {found}, expected {expected}")
    variables = from_state_dict(state_dict, cell, every_operation=True)
    return jax.tree.map(lambda x: jnp.asarray(x, network.param_dtype), variables)


def compile_for_seed(
    seed: int,
    cells: np.ndarray,
    images: jax.Array,
    labels: jax.Array,
    network: NasBench201Network,
    cells_per_step: int | str,
) -> OurSide:
    """Compiles the program that searches use, with the weights of a seed."""
    # PyTorch uses all cores of a CPU, but only one GPU.
    devices = jax.local_devices()
    devices = devices if devices[0].platform == "cpu" else devices[:1]
    start = time.perf_counter()
    scorer = compile_scorer(
        images,
        labels,
        seed=seed,
        network=network,
        cells_per_step=cells_per_step,
        devices=devices,
    )
    seconds = time.perf_counter() - start
    # Runs all programs once: a GPU has one for each shape of a step.
    scorer(cells if scorer.packer else cells[: len(scorer.devices)])
    variables = shared_weights(seed, network, images)
    return OurSide(variables, scorer, scorer.num_slots, seconds)


def compile_for_weights(
    variables: Any,
    cells: np.ndarray,
    images: jax.Array,
    labels: jax.Array,
    network: NasBench201Network,
) -> OurSide:
    """Compiles a program for given weights, which scores one cell at a time."""

    def score(cell: jax.Array) -> jax.Array:
        return cell_score(variables, cell, images, labels, network=network)

    start = time.perf_counter()
    compiled = jax.jit(score).lower(jnp.asarray(cells[0], jnp.int32)).compile()
    seconds = time.perf_counter() - start

    def score_fn(cells: np.ndarray) -> np.ndarray:
        # The score of a cell without a path is NaN, which is no error here.
        with jax.debug_nans(False):
            return np.array([compiled(jnp.asarray(cell, jnp.int32)) for cell in cells])

    score_fn(cells[:1])
    return OurSide(variables, score_fn, 1, seconds)
