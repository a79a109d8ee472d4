r"""How cost grows from one cell to a million, and from one device to a thousand.

Measured: the host's work for a list of cells, without the devices' program. Simulated: the hours
that many devices take, from the step times in the log of a real run. All devices wait for the one
that is slowest in a step; a device that is lost ends the run, which begins again at the last step
on disk.

Command:  python -m benchmarks.growth --log=results/steps_cifar10.jsonl
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags
from tqdm import tqdm

from epe_nas_jax import CellScorer, DartsNetwork, NasBench201Network, ScoringConfig
from epe_nas_jax.reports.text import Table, as_markdown
from epe_nas_jax.scoring.planning import Step, assign_slots
from epe_nas_jax.search import ranking
from epe_nas_jax.spaces.base import CellNetwork
from epe_nas_jax.spaces.nasbench201.genotype import every_genotype, prune_dead
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

_LOG = flags.DEFINE_string("log", None, "Steps of a run in NAS-Bench-201's space.", required=True)
_LOG_DEVICES = flags.DEFINE_integer("log_devices", 2, "Devices of that run.", lower_bound=1)
_SLOTS = flags.DEFINE_integer("slots", 16, "Cells of a device in a step.", lower_bound=1)
_DAYS = flags.DEFINE_float("days", 7.0, "Mean number of days until a device is lost.")
_RESTART = flags.DEFINE_float("restart", 60.0, "Seconds from a loss to scoring again.")
_EXCHANGE = flags.DEFINE_float("exchange", 0.1, "Seconds to exchange scores after a step.")

_CONFIG = ScoringConfig(proxies=("epe", "jacob_cov", "nwot", "grad_entropy", "grad_decay"))
_LISTS = (1, 1000, 1_000_000)
_DEVICES = (1, 8, 64, 1000)


class IdleScorer(CellScorer):
    """A scorer that plans as usual, but whose devices take no time and return noise as scores."""

    def _run(
        self, kinds: np.ndarray, networks: np.ndarray, step: Step
    ) -> tuple[np.ndarray, np.ndarray]:
        self.network.space.identity(np.where(step.is_cell[:, None], kinds[step.slots], 0))
        shape = (len(step.cells), len(self.config.proxies))
        noise = np.random.default_rng(networks[step.cells[0]]).normal(size=shape)
        return noise.astype(self.dtype), np.zeros((len(step.cells), self.network.num_classes))


class Steps(NamedTuple):
    """The times of the steps in a log.

    Attributes:
      seconds_per_work: seconds per planned work, the median over steps.
      slowness: the time of each step, as a multiple of that median.
    """

    seconds_per_work: float
    slowness: np.ndarray


def main(argv: Sequence[str]) -> None:
    """Prints the tables as Markdown."""
    del argv
    steps = read_steps(Path(_LOG.value))
    print(as_markdown(host_table()), "", as_markdown(devices_table(steps)), sep="\n")


def host_table() -> Table:
    """Seconds of the host for lists of cells, measured."""
    networks = {
        "NAS-Bench-201, with replacement": NasBench201Network(10),
        "DARTS": DartsNetwork(10),
    }
    rows = []
    for name, network in networks.items():
        for size in _LISTS:
            host_seconds(network, min(size, 1000))  # Compiles programs that fit any length.
            rows.append([name, f"{size:,}", *host_seconds(network, size)])
    header = ["space", "cells", "networks", "draw", "equal ones, plan", "combine by ranks"]
    return Table("Seconds of the host, its devices taking none", header, rows)


def host_seconds(network: CellNetwork, size: int) -> list[str]:
    """How many networks a list has, and how long its parts take."""
    scorer = IdleScorer(
        network=network,
        config=_CONFIG,
        prune_dead=True,
        vectorise=False,
        packer=None,
        num_processes=1,
        cells_per_step=_SLOTS.value,
        devices=tuple(jax.devices()[:1]),
        dtype=np.dtype(np.float32),
        progress=False,
        inputs=(),
    )
    marks = [time.perf_counter()]
    cells = np.asarray(network.space.sample_with_replacement(jax.random.key(0), size))
    marks.append(time.perf_counter())
    values = scorer.proxies(cells)
    marks.append(time.perf_counter())
    ranking.log_rank_sum(values)
    marks.append(time.perf_counter())
    num_networks = len(scorer.distinct(cells)[1])
    return [f"{num_networks:,}", *(f"{seconds:.2f}" for seconds in np.diff(marks))]


def read_steps(path: Path) -> Steps:
    """The steps of a log except the first, in which the program is loaded."""
    found = []
    for line in path.read_text().splitlines()[1:]:
        step = json.loads(line)
        networks = np.array(step["genotypes"])
        num_slots = -(-len(networks) // _LOG_DEVICES.value)
        load = loads(NASBENCH201.relative_work(networks), _LOG_DEVICES.value, num_slots)
        found.append(step["seconds"] / load.max())
    median = float(np.median(found))
    return Steps(median, np.array(found) / median)


def loads(work: np.ndarray, num_devices: int, num_slots: int) -> np.ndarray:
    """The planned work of each device in a step, one number per device."""
    order = assign_slots(work, num_devices, num_slots)
    return np.append(work, 0)[order].reshape(num_devices, num_slots).sum(axis=1)


def devices_table(steps: Steps) -> Table:
    """Hours of a run on many devices, simulated."""
    networks = np.unique(prune_dead(every_genotype()), axis=0)
    whole_space = NASBENCH201.relative_work(networks)
    rows = []
    for work in (whole_space, np.random.default_rng(0).choice(whole_space, 10**6)):
        for num_devices in _DEVICES:
            busy = work.sum() * steps.seconds_per_work * steps.slowness.mean() / num_devices
            straggling, _ = simulate(work, num_devices, steps, np.inf)
            total, losses = simulate(work, num_devices, steps, _DAYS.value * 86400)
            hours = [f"{seconds / 3600:.2f}" for seconds in (busy, straggling, total)]
            rows.append([f"{len(work):,}", f"{num_devices:,}", *hours, f"{losses:,}"])
            rows[-1].append(f"{busy / total:.0%}")
    title = (
        f"Hours, simulated: {_SLOTS.value} networks a device and step, steps as slow as in the "
        f"log (up to {steps.slowness.max():.2f} times the median), a device lost every "
        f"{_DAYS.value:g} days, {_RESTART.value:g} s to begin again"
    )
    header = ["networks", "devices", "none ever waits", "with stragglers", "and losses"]
    return Table(title, [*header, "how many", "of the devices' time used"], rows)


def simulate(
    work: np.ndarray, num_devices: int, steps: Steps, seconds_to_loss: float
) -> tuple[float, int]:
    """Seconds of a run, and how many devices it lost."""
    rng = np.random.default_rng(1)
    size = num_devices * _SLOTS.value
    clock, losses = 0.0, 0
    for start in tqdm(range(0, len(work), size), desc=f"{num_devices} devices", leave=False):
        load = loads(work[start : start + size], num_devices, _SLOTS.value)
        while True:
            slowness = rng.choice(steps.slowness, num_devices)
            seconds = np.max(load * steps.seconds_per_work * slowness) + _EXCHANGE.value
            lost_after = rng.exponential(seconds_to_loss / num_devices)
            if lost_after > seconds:
                clock += seconds
                break
            clock += lost_after + _RESTART.value
            losses += 1
    return clock, losses


if __name__ == "__main__":
    app.run(main)
