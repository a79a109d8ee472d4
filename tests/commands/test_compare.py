"""The compare command: its files, and what it says when something cannot be used."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from pages import Elements, table_below
from tiny_config import tiny_config

from epe_nas_jax import InputError, format_arch
from epe_nas_jax.commands import compare
from epe_nas_jax.commands.compare import compare_and_report
from epe_nas_jax.pytorch import network as torch_network
from epe_nas_jax.pytorch.comparison import CellComparison
from epe_nas_jax.pytorch.weights import Sizes
from epe_nas_jax.runs.stopping import StopRequested
from epe_nas_jax.spaces.nasbench201.genotype import sample

ROOT = Path(__file__).parents[2]
GENOTYPE = (3, 2, 0, 1, 4, 3)
ARCH = format_arch(GENOTYPE)
SIZES = Sizes(channels=4, cells_per_stage=1, num_classes=10)


def compare_config(**overrides):
    return tiny_config(**{"compare.num_cells": 6, **overrides})


@pytest.fixture
def weights():
    """A freshly initialised network's state dict that fits the test config."""
    torch.manual_seed(0)
    return torch_network.build_network(GENOTYPE, SIZES).state_dict()


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "epe_nas_jax.compare", "--config=configs/test.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished comparison in float64."""
    workdir = tmp_path_factory.mktemp("finished") / "work"
    config = compare_config()
    return workdir, config, compare_and_report(config, workdir)


def test_work_directory_holds_both_sides_of_every_cell(finished):
    workdir, config, _ = finished
    assert {path.name for path in workdir.iterdir()} == {
        ".lock-0",
        "config.json",
        "compare.json",
        "compare.png",
        "report.html",
    }
    content = json.loads((workdir / "compare.json").read_text())
    assert [list(cell) for cell in content["cells"]] == [list(CellComparison._fields)] * 6
    assert content["summary"]["num_cells"] == 6
    assert content["summary"]["dtype"] == "float64"
    assert content["summary"]["pytorch_network"] == "xautodl"
    assert content["summary"]["pytorch_threads"] >= 1
    assert (workdir / "compare.png").read_bytes().startswith(b"\x89PNG")
    provenance = json.loads((workdir / "config.json").read_text())
    assert provenance["config"] == json.loads(config.to_json())
    assert {"torch", "xautodl", "jax"} <= set(provenance["versions"])


def test_both_sides_agree_in_float64(finished):
    summary = json.loads((finished[0] / "compare.json").read_text())["summary"]
    assert summary["logits_error"]["worst"] < 1e-10
    assert summary["jacobian_error"]["worst"] < 1e-9
    assert summary["score_error"]["worst"] < 1e-7
    assert 0 < summary["score_error"]["median"] <= summary["score_error"]["worst"]
    assert summary["spearman"] == pytest.approx(1)
    assert summary["same_best"]
    assert summary["num_scored_on_one_side_only"] == 0


def test_printed_table_has_a_line_a_cell_and_says_what_was_timed(finished):
    workdir, _, text = finished
    cells = json.loads((workdir / "compare.json").read_text())["cells"]
    lines = text.splitlines()
    for cell, line in zip(cells, lines[2:8], strict=True):
        assert line.endswith(cell["arch"])
    for words in ("s compiling", "all gradients", "input gradient only", "threads", "Spearman"):
        assert words in text


def test_the_page_shows_every_cell_and_the_command_that_repeats_it(finished):
    workdir, _, _ = finished
    page = (workdir / "report.html").read_text()
    cells = json.loads((workdir / "compare.json").read_text())["cells"]
    shown = Elements(page).text
    assert all(cell["arch"] in shown for cell in cells)
    assert len(table_below(page, "All cells")) == 7
    assert "epe-nas compare --config=base --workdir=again" in shown
    assert "--config.compare.num_cells=6" in shown


def test_the_command_compares_in_float32(tmp_path):
    done = command(f"--workdir={tmp_path}/w", "--config.compare.num_cells=3", JAX_ENABLE_X64="0")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "w/compare.json").read_text())["summary"]
    assert summary["dtype"] == "float32"
    assert 1e-10 < summary["score_error"]["worst"] < 5e-3
    assert "float32 on 16 images" in done.stdout


def test_a_signal_stops_before_the_next_cell_and_ends_pytorchs_process(tmp_path, monkeypatch):
    def signal_and_run(cells, *_, run_torch, **__):
        os.kill(os.getpid(), signal.SIGINT)
        run_torch(cells[0], {}, at_its_best=False)

    monkeypatch.setattr(compare, "compare_cells", signal_and_run)
    with pytest.raises(StopRequested, match="SIGINT"):
        compare_and_report(compare_config(), tmp_path / "work")
    assert multiprocessing.active_children() == []
    # It has begun, and is not finished: the command may be given again.
    names = {path.name for path in (tmp_path / "work").iterdir()}
    assert names == {".lock-0", "config.json"}


def test_a_checkpoint_of_your_own_is_scored_on_both_sides(weights, tmp_path):
    # Another network than that of the seed: the same seed's scores would differ.
    torch.save(weights, tmp_path / "weights.pt")
    overrides = {"compare.arch": ARCH, "compare.checkpoint": str(tmp_path / "weights.pt")}
    compare_and_report(compare_config(**overrides), tmp_path / "own")
    compare_and_report(compare_config(**{"compare.arch": ARCH}), tmp_path / "seed")
    (own,), (of_seed,) = (
        json.loads((tmp_path / name / "compare.json").read_text())["cells"]
        for name in ("own", "seed")
    )
    for cell in (own, of_seed):
        assert cell["arch"] == ARCH
        assert cell["score_error"] < 1e-7
    assert own["score"] != pytest.approx(of_seed["score"], rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"compare.num_cells": 0}, "number of samples: found 0"),
        ({"compare.arch": "|none~0|"}, "expected the form"),
        ({"compare.checkpoint": "w.pt"}, "compare.arch: found nothing, expected the cell of"),
        ({"compare.pytorch_path": "no/checkout"}, "no/checkout: found no folder 'models'"),
        ({"compare.arch": ARCH, "compare.checkpoint": "no.pt"}, "no.pt: no such file"),
        ({"data.fresh_minibatch": True}, "data.fresh_minibatch: found True, expected False"),
        ({"score.init": "independent"}, "score.init: found 'independent', expected 'shared'"),
        ({"score.num_inits": 2}, "score.num_inits: found 2, expected 1"),
        (
            {"score.objective": ("epe_two_branch",)},
            r"score.objective: found \('epe_two_branch',\), expected \('epe',\) beside PyTorch",
        ),
        ({"score.objective": ("epe", "nwot")}, r"score.objective: found \(.epe., .nwot.\)"),
        ({"space.name": "darts"}, "space.name: found 'darts', expected 'nasbench201' beside"),
        (
            {"space.name": "nasnet"},
            "space.name: found 'nasnet', expected one of nasbench201, darts",
        ),
        ({"data.batch_size": 1}, "data.batch_size: found 1"),
        ({"network.channels": 0}, "network.channels: found 0"),
    ],
)
def test_bad_config_is_refused_and_leaves_nothing(tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        compare_and_report(compare_config(**overrides), tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("arch", "sizes", "message"),
    [
        (ARCH, SIZES._replace(channels=8), "channels: found 8, expected 4"),
        (ARCH, SIZES._replace(cells_per_stage=2), "cells_per_stage: found 2, expected 1"),
        (ARCH, SIZES._replace(num_classes=100), "num_classes: found 100, expected 10"),
        (format_arch((2,) * 6), SIZES, "entry 'cells.0.layers.0.op.1.weight': found shape"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path, arch, sizes, message):
    path = tmp_path / "weights.pt"
    torch.save(torch_network.build_network(GENOTYPE, sizes).state_dict(), path)
    config = compare_config(**{"compare.arch": arch, "compare.checkpoint": str(path)})
    with pytest.raises(InputError, match=message):
        compare_and_report(config, tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", ["compare.json", "compare.png", "report.html", "summary.json"])
def test_files_of_another_run_are_refused(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=f"holds {name} of another run"):
        compare_and_report(compare_config(), tmp_path)
    assert (tmp_path / name).read_text() == ""


def test_another_config_is_refused(finished):
    workdir, _, _ = finished
    before = {path: path.read_bytes() for path in workdir.iterdir()}
    with pytest.raises(InputError, match=r"config.compare.num_cells: found 6, expected 7"):
        compare_and_report(compare_config(**{"compare.num_cells": 7}), workdir)
    assert {path: path.read_bytes() for path in workdir.iterdir()} == before


def fails_in_one_line(done, workdir, message):
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("package", "message"),
    [("torch", "pip install torch"), ("xautodl", "pip install --no-deps xautodl==1.0.0")],
)
def test_the_command_tells_how_to_install_what_is_missing(tmp_path, package, message):
    (tmp_path / f"{package}.py").write_text("raise ModuleNotFoundError('not here')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = command(f"--workdir={tmp_path}/w", PYTHONPATH=path)
    fails_in_one_line(done, tmp_path / "w", message)


def truncated(weights, path):
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:5000])


class RunsCode:
    """A pickle that would write a file when it is loaded."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def running_code(weights, path):
    path.write_bytes(pickle.dumps({**weights, "stem.0.weight": RunsCode()}))


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (truncated, "weights.pt: not a readable file of PyTorch weights"),
        (running_code, "weights.pt: not a file of weights alone"),
    ],
)
def test_the_command_refuses_bad_checkpoints(weights, tmp_path, save, message):
    save(weights, tmp_path / "weights.pt")
    done = command(
        f"--workdir={tmp_path}/w",
        f"--config.compare.arch={ARCH}",
        f"--config.compare.checkpoint={tmp_path}/weights.pt",
    )
    fails_in_one_line(done, tmp_path / "w", message)
    assert not (ROOT / "ran").exists()


def test_unknown_keys_are_refused(tmp_path):
    done = command(f"--workdir={tmp_path}/w", "--config.compare.cells=3")
    fails_in_one_line(done, tmp_path / "w", "'cells'")


def test_cells_follow_from_the_seed(finished):
    cells_key, _ = jax.random.split(jax.random.key(finished[1].seed))
    cells = json.loads((finished[0] / "compare.json").read_text())["cells"]
    expected = [format_arch(cell) for cell in np.asarray(sample(cells_key, 6))]
    assert [cell["arch"] for cell in cells] == expected
