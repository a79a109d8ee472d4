"""Every block of the README, and of the page that follows it: run, at a smaller size.

`make search` and `make test` themselves are what continuous integration runs; here they are checked
for what they start. `tests/test_install.py` installs what `pip install .` does.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import epe_nas

import epe_nas_jax

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
START = (ROOT / "docs" / "getting-started.md").read_text()
# What makes a block small; everything else is as on the page.
SMALLER = (
    "--config.network.channels=4",
    "--config.network.cells_per_stage=1",
    "--config.data.batch_size=16",
    "--config.search.num_samples=20",
)
# What `pip` needs to install from this checkout, without a network, into a folder.
OFFLINE = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")


def blocks(page, language=""):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


def test_the_readme_is_short():
    assert len(README.encode()) <= 8_000


def test_every_block_is_known():
    """A block of another kind would not be run by this file."""
    assert len(re.findall("^```", README, re.MULTILINE)) == 2 * 6
    pip, make, search, printed = blocks(README)
    assert pip.startswith("pip install")
    assert make.startswith("make search")
    assert search.startswith("epe-nas search")
    assert printed.startswith("rank ")
    assert len(blocks(README, "python")) == len(blocks(README, "bibtex")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, START], ids=["readme", "getting-started"])
def test_the_python_of_the_page_ranks_cells(page, capsys):
    (code, *_) = blocks(page, "python")
    assert 10 <= len([line for line in code.splitlines() if line]) <= 12
    names = {}
    # 20 cells of the README's 100; everything else is as on the page.
    exec(code.replace("key(0), 100)", "key(0), 20)"), names)
    table = names["table"]
    assert len(table) == len(names["cells"])
    assert set(epe_nas_jax.BEST_RANKING) < set(table)
    best = table["arch"][table["rank"].argmin()]
    assert best in capsys.readouterr().out


def test_the_python_of_networks_scores_them():
    code = blocks(START, "python")[1]
    rng = np.random.default_rng(0)
    names = {
        "apply_fn": lambda weights, images: images.reshape(len(images), -1) @ weights,
        "variables": rng.normal(size=(48, 3)),
        "images": rng.normal(size=(6, 4, 4, 3)),
        "labels": np.array([0, 1, 2, 0, 1, 2]),
        "num_classes": 3,
    }
    exec(code.replace("score_networks(", "scores = score_networks("), names)
    assert np.isfinite(names["scores"]["mine"])


@pytest.mark.parametrize("page", [README, START], ids=["readme", "getting-started"])
def test_the_command_of_the_page_prints_what_the_page_shows(page, tmp_path):
    (command,) = [block for block in blocks(page) if block.startswith("epe-nas search")]
    (printed,) = [block for block in blocks(page) if block.startswith("rank ")]
    done = epe_nas(*shlex.split(command)[1:], *SMALLER, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert shape_of(done.stdout) == shape_of(printed)
    (run,) = re.findall(r"--workdir=(\S+)", command)
    for name in ("scores.csv", "summary.json", "config.json", "report.html"):
        assert (tmp_path / run / name).exists()


def shape_of(printed):
    """The first words of the lines of a result, without numbers."""
    return [line.split()[0] for line in printed.strip().splitlines() if line]


def test_make_knows_every_target_of_the_readme():
    targets = re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)
    assert {"search", "test", "docs"} <= set(targets)
    for target in set(targets):
        command = ["make", "--dry-run", "--always-make", target]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (
        "epe_nas_jax.main --config=configs/digits.py"
        in subprocess.run(
            ["make", "--dry-run", "search"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    )


def is_a_clone():
    """Whether git may read this directory's history."""
    if not shutil.which("git"):
        return False
    command = ["git", "-C", ROOT, "rev-parse", "--verify", "HEAD"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not is_a_clone(), reason="this is no clone of one's own")
def test_pip_installs_from_the_address_of_a_clone(tmp_path):
    (command,) = [line for line in blocks(README)[0].splitlines() if "git+" in line]
    command = command.replace("URL-of-your-clone", f"file://localhost{ROOT}")
    pip = [sys.executable, "-m", *shlex.split(command, comments=True), *OFFLINE]
    done = subprocess.run([*pip, "--target", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "epe_nas_jax" / "configs" / "fast.py").exists()


def test_the_python_of_more_digits_computes_in_float64():
    page = (ROOT / "docs" / "reproducibility.md").read_text()
    (code,) = blocks(page, "python")
    names = {}
    # One cell of the page's 20.
    exec(code.replace("20)", "1)"), names)
    assert names["scores"].dtype == np.float64
    assert names["scores"].shape == (1,)
