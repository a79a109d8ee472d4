"""Several processes as one run: what each scores, and how they hear of one another."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from absl.testing import flagsaver
from hypothesis import given
from hypothesis import strategies as st

from epe_nas_jax import InputError, NasBench201Network
from epe_nas_jax.runs import hosts
from epe_nas_jax.scoring.planning import Shard
from epe_nas_jax.scoring.scorer import compile_scorer
from epe_nas_jax.spaces.nasbench201.genotype import every_genotype

ROOT = Path(__file__).parents[2]
# One device a process, so that a step is a cell of each.
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}


@given(
    work=st.lists(st.floats(0.1, 10), min_size=1, max_size=24),
    num_processes=st.integers(1, 4),
    data=st.data(),
)
def test_every_network_of_a_step_is_one_process_s(work, num_processes, data):
    least = -(-len(work) // num_processes)
    num_slots = data.draw(st.integers(least, least + 3))
    work = np.array(work)
    shards = [
        Shard(process, num_processes, 1, num_slots).rows(work) for process in range(num_processes)
    ]
    assert sorted(np.concatenate(shards)) == list(range(len(work)))
    assert all(np.all(np.diff(rows) > 0) for rows in shards)
    # Teams chosen in turns, every second round backwards, differ by less than one member.
    sums = [work[rows].sum() for rows in shards]
    assert max(sums) - min(sums) <= work.max() * (1 + 1e-12)


def test_shards_of_a_step_have_the_very_scores_of_the_whole(minibatch):
    images, labels = minibatch
    network = NasBench201Network(3, channels=4, cells_per_stage=1, param_dtype=images.dtype)
    scorer = compile_scorer(images, labels, seed=0, network=network, cells_per_step=2)
    cells = every_genotype()[np.random.default_rng(0).choice(15625, 11, replace=False)]
    kinds, networks, _ = scorer.distinct(cells)

    def by_kind(shard=None):
        scored = {}
        for step_kinds, rows in scorer.steps(kinds, networks, 0, shard):
            names = [tuple(kind) for kind in step_kinds.tolist()]
            assert not set(names) & set(scored)
            scored.update(zip(names, rows[:, 0].tolist(), strict=True))
        return scored

    # Four processes with three slots each leave the last one or two without a cell at times.
    shards = [by_kind(Shard(process, 4, 1, 3)) for process in range(4)]
    together = {kind: score for shard in shards for kind, score in shard.items()}
    assert sum(map(len, shards)) == len(kinds)
    # NaN is equal to itself here.
    assert str(sorted(together.items())) == str(sorted(by_kind().items()))


def test_a_process_alone_hears_itself_and_fails_as_it_does():
    assert (hosts.index(), hosts.count()) == (0, 1)
    assert hosts.exchange(b"word") == [b"word"]
    with pytest.raises(OSError, match="own"), hosts.one_outcome():
        raise OSError("own")


def as_srun_says(process):
    """What SLURM's srun tells the tasks of a job of two on this machine."""
    return {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
    }


# Both processes run this: what process 1 does, process 0 is told of.
TWO = """
import os, signal
from epe_nas_jax import InputError
from epe_nas_jax.runs import hosts
from epe_nas_jax.runs.stopping import StopRequested

process = int(os.environ["SLURM_PROCID"])
hosts.join(None, None, None)
assert (hosts.index(), hosts.count()) == (process, 2)

for size in (0, 1, 127, 128, 5000):
    told = hosts.exchange(bytes([process + 65]) * (size * process))
    assert told == [b"", b"B" * size], (size, told)

def fails(error):
    raise error

def outcome(mine):
    try:
        with hosts.one_outcome():
            if process == 1:
                mine()
            hosts.exchange(b"")
    except BaseException as error:
        return f"{type(error).__name__} {error}"

told = [
    outcome(lambda: None),
    outcome(lambda: fails(InputError("no data"))),
    outcome(lambda: fails(OSError(28, "No space", "steps-1.jsonl"))),
    outcome(lambda: fails(StopRequested(signal.SIGTERM))),
    outcome(lambda: fails(KeyError("bug"))),
]
print(*told, sep="\\n", flush=True)
told = outcome(lambda: os.kill(os.getpid(), signal.SIGKILL))
print(told, flush=True)
os._exit(0)
"""


def test_what_happens_to_one_process_the_other_is_told():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = {"JAX_COORDINATOR_PORT": str(free.getsockname()[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO],
            cwd=ROOT,
            env=ENVIRONMENT | as_srun_says(process) | port,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    (out, err), (out_1, err_1) = (process.communicate() for process in processes)
    outcomes, outcomes_1 = (
        [line for line in text.splitlines() if not line.startswith("[Gloo]")]
        for text in (out, out_1)
    )
    assert outcomes[:5] == [
        "None",
        "InputError process 1: no data",
        "InputError process 1: [Errno 28] No space: 'steps-1.jsonl'",
        "StopRequested stopped by SIGTERM",
        "RuntimeError process 1: KeyError: 'bug'",
    ], err
    assert outcomes_1 == [
        "None",
        "InputError no data",
        "OSError [Errno 28] No space: 'steps-1.jsonl'",
        "StopRequested stopped by SIGTERM",
        "KeyError 'bug'",
    ], err_1
    assert processes[1].returncode == -signal.SIGKILL
    # Told by the broken connection, or by JAX, which ends the process itself.
    if processes[0].returncode == 0:
        lost = "ProcessLost another process of this run has died or cannot be reached"
        assert [line[: len(lost)] for line in outcomes[5:]] == [lost]
    else:
        assert processes[0].returncode == -signal.SIGABRT
        assert "another task died" in err


@pytest.mark.parametrize("address", ["junk", "host:", ":80", "host:port", "a b:1"])
def test_an_address_without_a_host_or_port_is_refused(address):
    with pytest.raises(
        InputError, match=f"coordinator_address: found '{address}', expected HOST:P"
    ):
        hosts.join(address, 2, 0)


def test_processes_that_nobody_names_are_an_error_in_one_line(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "epe_nas_jax.main", "--config=configs/test.py"),
            *(f"--workdir={tmp_path / 'w'}", "--distributed"),
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: other processes of the run: coordinator_address")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_each_process_of_the_launcher_has_a_gpu_of_its_own(monkeypatch):
    spec = importlib.util.spec_from_file_location("local", ROOT / "launch/local.py")
    local = importlib.util.module_from_spec(spec)
    with flagsaver.flagsaver():
        spec.loader.exec_module(local)
    started = []
    monkeypatch.setattr(
        local.subprocess, "Popen", lambda command, env, **_: started.append((command, env))
    )
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    local.start(["--config=test"], 2, ["1", "MIG-0a"])
    assert [env["CUDA_VISIBLE_DEVICES"] for _, env in started] == ["1", "MIG-0a"]
    assert not any("JAX_PLATFORMS" in env for _, env in started)
    for process, (command, _) in enumerate(started):
        assert {"--num_processes=2", f"--process_id={process}"} <= set(command)


def test_two_processes_with_devices_of_their_own_have_the_scores_of_one():
    """By groups, as on GPUs: devices that JAX simulates, and messages from process to process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, ROOT / "tests/runs/two_processes.py", address, str(process)],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    # The library of messages prints lines of its own before.
    printed = [process.communicate()[0].splitlines()[-1] for process in processes]
    found, same = map(json.loads, printed)
    # Each process ends with all scores, and used two devices that the other does not see.
    assert found == same
    assert found["devices"] == [2, 2, 4]
    assert found["cells"][0] > 0 < found["cells"][1]
    assert sum(found["cells"]) == len(found["alone"]) == 20
    # In float64 another order of sums changes the last digits only.
    assert np.allclose(found["together"], found["alone"], rtol=1e-9, atol=0)


ALONE = (sys.executable, "-m", "epe_nas_jax.main")
TOGETHER = (sys.executable, "launch/local.py", "--num_processes=2", "--")


class Command:
    """A search by evolution of 120 networks; a step is one of each process."""

    def __init__(self, start, workdir, flags=()):
        self._process = subprocess.Popen(
            [
                *start,
                "--config=configs/test.py",
                f"--workdir={workdir}",
                "--config.cells_per_step=1",
                "--config.score.prune_dead=False",
                "--config.search.algorithm=evolution",
                "--config.search.num_samples=120",
                "--config.search.candidates_per_step=5",
                *flags,
            ],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def send_after(self, log, num_lines, number, process):
        """Sends a signal to one of the processes once so many steps are in a log."""
        while self._process.poll() is None:
            if log.exists() and log.read_bytes().count(b"\n") >= num_lines:
                children = psutil.Process(self._process.pid).children()
                [child] = [c for c in children if f"--process_id={process}" in c.cmdline()]
                child.send_signal(number)
                break
        return self

    def finish(self):
        out, err = self._process.communicate()
        return self._process.returncode, out, err


def results(workdir):
    """The scores, and how many networks each process scored."""
    summary = json.loads((workdir / "summary.json").read_text())
    figures = {process["log"]: process["num_networks"] for process in summary["processes"]}
    return (workdir / "scores.csv").read_bytes(), figures


def networks_on_disk(workdir):
    return [
        tuple(genotype)
        for path in workdir.glob("steps-*.jsonl")
        for line in path.read_bytes().splitlines()
        for genotype in json.loads(line)["genotypes"]
    ]


@pytest.fixture(scope="module")
def scores_of_one(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    code, _, err = Command(ALONE, workdir).finish()
    assert code == 0, err
    return results(workdir)[0]


@pytest.mark.slow
def test_two_processes_evolve_the_very_cells_and_scores_of_one(tmp_path, scores_of_one):
    code, out, err = Command(TOGETHER, tmp_path).finish()
    assert code == 0, err
    # One process speaks.
    assert out.count("rank ") == 1
    scores, figures = results(tmp_path)
    # On as many cores XLA sums in the same order: equal to the last digit.
    assert scores == scores_of_one
    assert sum(figures.values()) == 120
    # Five candidates are three steps, in the last of which one process has nothing to do.
    assert figures.keys() == {"steps-0.jsonl", "steps-1.jsonl"}
    assert min(figures.values()) >= 120 * 2 / 5


@pytest.mark.slow
def test_a_run_of_two_that_is_stopped_and_killed_is_finished_by_one(tmp_path, scores_of_one):
    log = tmp_path / "steps-1.jsonl"
    # Told to one, obeyed by both.
    code, _, err = (
        Command(TOGETHER, tmp_path).send_after(log, 3, signal.SIGTERM, process=1).finish()
    )
    assert code == 128 + signal.SIGTERM, err
    assert err.count("stopped by SIGTERM: run the same command again to continue") == 2
    assert not (tmp_path / "scores.csv").exists()
    stopped = networks_on_disk(tmp_path)
    assert len(stopped) == len(set(stopped)) < 120

    num_lines = len(log.read_bytes().splitlines()) + 3
    running = Command(TOGETHER, tmp_path).send_after(log, num_lines, signal.SIGKILL, process=0)
    code, _, err = running.finish()
    assert code in (1, 128 + signal.SIGKILL, 128 + signal.SIGABRT)
    assert "the others end too" in err
    assert not (tmp_path / "scores.csv").exists()
    assert len(stopped) < len(networks_on_disk(tmp_path)) < 120

    code, _, err = Command(ALONE, tmp_path).finish()
    assert code == 0, err
    scores, figures = results(tmp_path)
    assert scores == scores_of_one
    networks = networks_on_disk(tmp_path)
    assert len(networks) == len(set(networks)) == 120 == sum(figures.values())


@pytest.mark.slow
def test_two_processes_score_the_best_cells_again_and_one_goes_on(tmp_path):
    keys = {"data.side": 8, "search.num_samples": 16, "search.population": 5}
    keys |= {"search.refine": 0.5, "refine.batch_size": 16}
    keys |= {"refine.channels": 4, "refine.cells_per_stage": 1}
    flags = [f"--config.{key}={value}" for key, value in keys.items()]
    for start, workdir in ((ALONE, tmp_path / "one"), (TOGETHER, tmp_path / "two")):
        code, _, err = Command(start, workdir, flags).finish()
        assert code == 0, err
    expected, _ = results(tmp_path / "one")
    scores, figures = results(tmp_path / "two")
    assert scores == expected
    # A step of the second stage has a network of each process.
    assert (figures["refine-0.jsonl"], figures["refine-1.jsonl"]) == (4, 4)
    log = tmp_path / "two/refine-1.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    (tmp_path / "two/scores.csv").unlink()
    code, _, err = Command(ALONE, tmp_path / "two", flags).finish()
    assert code == 0, err
    scores, figures = results(tmp_path / "two")
    assert scores == expected
    assert (figures["refine-0.jsonl"], figures["refine-1.jsonl"]) == (5, 3)
