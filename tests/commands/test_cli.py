"""The command line: flags, names of configs, and errors in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def command(*arguments, module="main", **environment):
    return subprocess.run(
        [sys.executable, "-m", f"epe_nas_jax.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_command_searches(tmp_path):
    done = command("--config=configs/test.py", f"--workdir={tmp_path}/w", "--config.seed=3")
    assert done.returncode == 0, done.stderr
    assert "7 cells" in done.stdout
    assert all("networks" in line for line in done.stderr.splitlines())
    assert "7 of 7 networks" in done.stderr.splitlines()[-1]
    assert "\r" not in done.stderr
    assert (tmp_path / "w/summary.json").exists()
    devices = json.loads((tmp_path / "w/config.json").read_text())["devices"]
    assert len(devices) == len(os.sched_getaffinity(0))


def test_compiled_programs_are_kept_in_the_users_cache(tmp_path):
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_COMPILATION_CACHE_DIR": ""}
    kept = []
    for name in ("first", "second"):
        done = command("--config=configs/test.py", f"--workdir={tmp_path}/{name}", **environment)
        assert done.returncode == 0, done.stderr
        kept.append({path.name for path in (tmp_path / "cache/epe_nas_jax").iterdir()})
    assert any("score_step" in name for name in kept[0])
    assert kept[1] == kept[0]
    first, second = ((tmp_path / name / "scores.csv").read_bytes() for name in ("first", "second"))
    assert first == second


def test_a_download_without_a_network_says_what_to_get(tmp_path):
    # A proxy that nobody runs: nothing leaves this machine.
    proxy = "http://127.0.0.1:9"
    environment = {
        **dict.fromkeys(("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), proxy),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    arguments = ["--config.data.name=cifar10", "--config.data.download=True"]
    done = command("--config=configs/test.py", f"--workdir={tmp_path}/w", *arguments, **environment)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz")
    assert f"put it into {tmp_path}/cache/epe_nas_jax/data" in done.stderr
    assert not (tmp_path / "w").exists()
    data_cache = tmp_path / "cache/epe_nas_jax/data"
    assert not [path for path in data_cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config.data.name=cifar10", "--config.data.path=setup.cfg"],
            "setup.cfg: not a readable",
        ),
        (["--config.data.name=folder", "--config.data.path=configs"], "configs: found 0 class"),
        (["--config.benchmark.path=setup.cfg"], "setup.cfg: "),
        (["--config.score.sede=3"], "'sede'"),
        (["--config.score.variant=two_branch"], "'variant'"),
        (["--config.space.name=nasnet"], "'nasnet'"),
        (["--config.seed=three"], "--config.seed=three"),
        (["--config.data.batch_size=1.5"], "--config.data.batch_size=1.5"),
        (["--nonsense=1"], "nonsense"),
        (["extra"], "'extra'"),
        (
            ["--config.data.name=folder", "--config.data.path=\x1b]0;owned\x07"],
            r"\x1b]0;owned\x07: ",
        ),
        (["--config.data.name=mnist"], "'mnist'"),
        (["--config=configs/missing.py"], "configs/missing.py"),
    ],
)
def test_user_errors_are_one_line_and_exit_2(tmp_path, arguments, message):
    done = command("--config=configs/test.py", f"--workdir={tmp_path}/w", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "arguments", [["--config=best"], ["--config", "best"], ["--config=configs/best.py"]]
)
def test_a_config_is_a_file_or_the_name_of_an_installed_one(tmp_path, arguments):
    # PyTorch's side has another score than the one of this config.
    done = command(*arguments, f"--workdir={tmp_path}/w", module="compare")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: score.objective: found "
        "('jacob_cov', 'nwot', 'grad_entropy', 'grad_decay', 'live_params'), "
        "expected ('epe',) beside PyTorch\n"
    )


def test_an_unknown_name_of_a_config_is_refused_with_the_known_ones(tmp_path):
    done = command("--config=bets", f"--workdir={tmp_path}/w")
    assert done.returncode == 2
    assert done.stdout == ""
    names = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")
    assert done.stderr == (
        f"error: config 'bets': found no such file, nor an installed one of {', '.join(names)}\n"
    )
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("main", ["config", "workdir", "[no]distributed", "num_processes", "process_id"]),
        ("train", ["config", "workdir"]),
        ("tables", ["scores", "benchmark", "out", "seed"]),
    ],
)
def test_help_lists_the_flags_of_a_command(module, flags):
    done = command("--help", module=module)
    listed = {line.split(":")[0].strip() for line in done.stdout.splitlines()}
    assert {f"--{flag}" for flag in flags} <= listed
    assert ("--num_processes" in listed) == (module == "main")
    assert done.stderr == ""
