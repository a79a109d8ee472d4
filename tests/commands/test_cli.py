"""The command line: flags, names of configs, and errors in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epe_nas_jax.spaces.nasbench201.genotype import every_genotype, format_arch

ROOT = Path(__file__).parents[2]
ARCH = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"


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
        (["--flagfile=/missing"], "Unable to open flagfile"),
        (["--config.data.path=x"], "data.path: found 'x', expected none for digits"),
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
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        (
            {"JAX_PLATFORMS": "cuda"},
            "error: JAX_PLATFORMS=cuda: found no such device or no JAX for it",
        ),
        (
            {"JAX_PLATFORMS": "abacus"},
            "error: JAX_PLATFORMS=abacus: found no such device or no JAX for it",
        ),
        ({"JAX_NUM_CPU_DEVICES": "x"}, 'error: Invalid value "x" for JAX flag jax_num_cpu_devices'),
        ({"JAX_DISABLE_JIT": "1"}, "error: JAX_DISABLE_JIT: found True, expected False or none"),
        (
            {"JAX_TRANSFER_GUARD": "disallow"},
            "error: JAX_TRANSFER_GUARD: found disallow, expected allow or none",
        ),
        (
            {"JAX_ENABLE_X64": "maybe"},
            "error: invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'",
        ),
    ],
)
def test_what_jax_cannot_do_here_is_said_in_one_line(tmp_path, environment, line):
    done = command("--config=configs/test.py", f"--workdir={tmp_path}/w", **environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(line)
    assert not (tmp_path / "w").exists()


def test_a_config_that_asks_for_a_gpu_where_there_is_none(tmp_path):
    (tmp_path / "gpu.py").write_text(
        "import jax\nfrom epe_nas_jax.configs import test\n\n\ndef get_config():\n"
        "    jax.config.update('jax_platforms', 'cuda')\n    return test.get_config()\n"
    )
    done = command(f"--config={tmp_path}/gpu.py", f"--workdir={tmp_path}/w")
    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX_PLATFORMS=cuda: found no such device")
    assert len(done.stderr.splitlines()) == 1


def test_a_tilde_is_the_home_directory_in_every_path(tmp_path):
    (tmp_path / "own.py").write_text((ROOT / "configs/test.py").read_text())
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", x_train=images, y_train=np.arange(20) % 2)
    archs = [format_arch(cell) for cell in every_genotype()]
    lines = [f"{arch},{15 + i % 80}" for i, arch in enumerate(archs)]
    (tmp_path / "table.csv").write_text("\n".join(["arch,top1", *lines]))
    home = {"HOME": str(tmp_path), "JAX_DEBUG_NANS": "1"}
    done = command(
        "--config=~/own.py",
        "--workdir=~/runs/w",
        "--config.data.name=npz",
        "--config.data.path=~/images.npz",
        "--config.benchmark.path=~/table.csv",
        "--config.benchmark.column=top1",
        **home,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/w/summary.json").exists()
    assert not Path("~").exists()
    done = command(
        "--scores=own=~/runs/w/scores.csv",
        "--benchmark=~/table.csv",
        "--columns=own=top1",
        "--summary=~/runs/w/summary.json",
        "--num_searches=2",
        "--out=~/tables",
        module="tables",
        **home,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tables/tables.md").exists()
    done = command(
        "--config=~/own.py",
        "--workdir=~/trained",
        "--config.from_run=~/runs/w",
        "--config.data.name=npz",
        "--config.data.path=~/missing.npz",
        module="train",
        **home,
    )
    assert done.stderr == f"error: {tmp_path}/missing.npz: no such file, expected an .npz file\n"


def test_a_pipe_in_the_place_of_a_config_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    done = command(f"--config={tmp_path}/pipe.py", f"--workdir={tmp_path}/w")
    assert done.returncode == 2
    assert (
        done.stderr
        == f"error: {tmp_path}/pipe.py: found a pipe or a device, expected a config file\n"
    )


@pytest.mark.parametrize("module", ["main", "train", "compare", "tables"])
def test_every_command_refuses_a_seed_that_would_be_another_one(tmp_path, module):
    seed = 2**40
    if module == "tables":
        (tmp_path / "scores.csv").write_text("arch,score,top1\n" + f"{ARCH},5,50\n")
        arguments = [f"--{name}={tmp_path}/scores.csv" for name in ("scores", "benchmark")]
        arguments += [f"--seed={seed}", "--columns=own=top1"]
    else:
        arguments = ["--config=configs/test.py", f"--workdir={tmp_path}/w"]
        arguments += [f"--config.seed={seed}", f"--config.arch={ARCH}"]
    done = command(*arguments, module=module)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr == (
        "error: seed: found 1099511627776, expected a whole number in 0..4294967295\n"
    )
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def get_config(:\n", "config: SyntaxError: invalid syntax (own.py, line 1)"),
        ("def get_config():\n    return 1 // 0\n", "config: ZeroDivisionError: "),
        ("def get_config():\n    raise ValueError('a\\nb')\n", "Error whilst parsing config file"),
        ("def get_config():\n    return {}\n", "config: found a dict, expected a ConfigDict"),
    ],
)
def test_a_config_file_whose_code_fails_is_one_line(tmp_path, code, message):
    (tmp_path / "own.py").write_text(code)
    done = command(f"--config={tmp_path}/own.py", f"--workdir={tmp_path}/w")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert len(done.stderr) < 300
    assert not (tmp_path / "w").exists()


def test_an_empty_workdir_is_not_the_current_folder():
    done = command("--config=configs/test.py", "--workdir=")
    assert done.returncode == 2
    assert done.stderr == "error: workdir: found nothing, expected a directory\n"


def test_a_path_that_is_no_utf8_is_reported(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff")
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            rng = np.random.default_rng(i)
            pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    done = command(
        "--config=configs/test.py",
        f"--workdir={tmp_path}/w",
        "--config.data.name=folder",
        f"--config.data.path={folder}",
        "--config.data.batch_size=8",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "w/report.html").exists()


@pytest.mark.parametrize("status", [0, 3])
def test_a_config_that_ends_python_is_no_success(tmp_path, status):
    (tmp_path / "own.py").write_text(f"raise SystemExit({status})")
    done = command(f"--config={tmp_path}/own.py", "--workdir", f"{tmp_path}/help")
    assert done.returncode == (status or 1)
