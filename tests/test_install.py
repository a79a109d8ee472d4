"""What a user gets who installs the wheel and has no checkout."""

import csv
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TINY = (
    "--config.data.batch_size=16",
    "--config.network.channels=4",
    "--config.network.cells_per_stage=1",
    "--config.search.num_samples=5",
    "--config.cells_per_step=3",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what it is made of, without a network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("epe_nas_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    target = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", target, source], check=True, capture_output=True)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh virtual environment with the wheel; its dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", wheel], check=True, capture_output=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    # A path alone: the editable install of the checkout does not come with it.
    dependencies = site_packages / "dependencies.pth"
    dependencies.write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(environment, *arguments, cwd):
    variables = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
    return subprocess.run(
        [environment / "bin" / arguments[0], *arguments[1:]],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
    )


def test_the_wheel_holds_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if "dist-info" not in name}
    files = [path for path in (ROOT / "epe_nas_jax").rglob("*") if path.is_file()]
    expected = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    expected |= {f"epe_nas_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert packed == expected


@pytest.mark.slow
def test_the_installed_command_searches_from_an_empty_directory(environment, tmp_path):
    done = run(
        environment, "epe-nas", "search", "--config=digits", "--workdir=w", *TINY, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "5 cells" in done.stdout
    files = {path.name for path in (tmp_path / "w").iterdir()}
    assert {"config.json", "scores.csv", "summary.json", "report.html"} <= files
    with (tmp_path / "w" / "scores.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5


def test_what_is_imported_is_what_was_installed(environment, tmp_path):
    code = "import epe_nas_jax, epe_nas_jax.configs as c; print(epe_nas_jax.__file__, c.__file__)"
    done = run(environment, "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for path in done.stdout.split():
        assert Path(path).is_relative_to(environment)
