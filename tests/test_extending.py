"""The worked examples of docs/extending.md: each diff is applied to a copy and used."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DIFFS = re.findall(
    r"^## (?P<what>.+?)$.*?^```diff\n(?P<diff>.*?)^```$",
    (ROOT / "docs" / "extending.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


def extended(what, folder):
    """A copy of the checkout with the example's diff applied."""
    for name in ("epe_nas_jax", "configs", "docs", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    subprocess.run(
        ["git", "apply", "-"], cwd=folder, input=dict(DIFFS)[what], text=True, check=True
    )
    return folder


def run(folder, *arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_kind_has_its_example():
    assert set(dict(DIFFS)) == {"A proxy", "A space", "A data set", "A column", "A command"}


@pytest.mark.slow
def test_a_proxy(tmp_path):
    folder = extended("A proxy", tmp_path)
    # They run over the table, and so over the new entry and its oracle.
    tests = ("tests/proxies/test_table.py", "tests/proxies/test_proxies_torch.py")
    out = run(folder, "-m", "pytest", "-q", "--no-header", "-rA", *tests)
    assert "[jacob_size]" in out
    assert "passed" in out


@pytest.mark.slow
def test_a_space(tmp_path):
    folder = extended("A space", tmp_path)
    out = run(folder, "-m", "pytest", "-q", "tests/spaces/test_table.py", "-k", "chain")
    assert re.search(r"[1-9]\d* passed", out), out
    keys = ("data.batch_size=16", "network.channels=4", "network.cells_per_stage=1")
    keys += ("search.num_samples=6", "search.algorithm=evolution", "space.name=chain")
    tiny = [f"--config.{key}" for key in keys]
    config = ("--config=digits", "--workdir=w", *tiny)
    assert "6 cells" in run(folder, "-m", "epe_nas_jax.main", *config)
    scores = (folder / "w" / "scores.csv").read_text()
    assert re.search(r"^(skip|conv)-(skip|conv)-(skip|conv),\d", scores, re.MULTILINE)


def test_a_data_set(tmp_path):
    folder = extended("A data set", tmp_path)
    code = (
        "import numpy as np; from epe_nas_jax import load_dataset;"
        "np.savez('d.npz', x_train=np.zeros((4, 8, 8, 3), np.uint8), y_train=np.arange(4));"
        "print(load_dataset('svhn', 'd.npz').num_classes)"
    )
    assert run(folder, "-c", code).split() == ["10"]


def test_a_column(tmp_path):
    folder = extended("A column", tmp_path)
    code = (
        "import numpy as np; from epe_nas_jax import NasBench201Network;"
        "from epe_nas_jax.scoring.columns import COLUMNS, RunCells;"
        "cells = RunCells(np.array([[3, 3, 3, 3, 3, 3]]), NasBench201Network(10), 32);"
        "print(*COLUMNS['megabytes'].values(cells))"
    )
    # The table's 1,531,546 parameters at four bytes each.
    assert float(run(folder, "-c", code)) == pytest.approx(6.126184)


def test_a_command(tmp_path):
    folder = extended("A command", tmp_path)
    code = "from epe_nas_jax.commands.table import main; main()"
    spaces = ["nasbench201", "darts", "nasbench301", "nasbench101", "transnas_micro", "nats_sss"]
    assert run(folder, "-c", code, "spaces").split() == spaces
