"""The train command: its files, killed and resumed, and what it refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
import pytest
from refusals import refusal
from tiny_config import tiny_config

from epe_nas_jax import InputError, load_dataset, load_trained
from epe_nas_jax.commands.train import train_and_report
from epe_nas_jax.configs import train_cifar10, train_cifar10_subset
from epe_nas_jax.runs.stopping import StopRequested
from epe_nas_jax.spaces.darts.published import DARTS_V2
from epe_nas_jax.spaces.nasbench201.genotype import has_path, parse_arch
from epe_nas_jax.training import loop
from epe_nas_jax.training.loop import halves
from epe_nas_jax.training.step import train_step

ROOT = Path(__file__).parents[2]
ARCH = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"
NO_PATH = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|none~1|none~2|"
# On one device, where a resumed training is the same to the bit; the bar is shown to a pipe, too.
ONE_DEVICE = (
    "import os, runpy, sys;"
    "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
    "from epe_nas_jax.training import loop;"
    "bar = loop.tqdm;"
    "loop.tqdm = lambda **how: bar(**{**how, 'disable': False});"
    "runpy.run_module('epe_nas_jax.train', run_name='__main__', alter_sys=True)"
)


def write_images(path, *, with_test):
    """Two classes, bright and dark, with noise: `[40, 8, 8, 3]`, and 10 to test."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, size in (("train", 40), ("test", 10)):
        labels = np.arange(size) % 2
        noise = rng.integers(0, 120, (size, 8, 8, 3))
        arrays[f"x_{name}"] = (noise + 120 * labels[:, None, None, None]).astype(np.uint8)
        arrays[f"y_{name}"] = labels
    if not with_test:
        arrays = {name: value for name, value in arrays.items() if "train" in name}
    np.savez(path, **arrays)
    return str(path)


def overrides_of(path, **more):
    return {
        "arch": ARCH,
        "data.name": "npz",
        "data.path": path,
        "train.epochs": 3,
        "train.batch_size": 8,
        **more,
    }


def train_config(path, **more):
    return tiny_config(**overrides_of(path, **more))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished training of two seeds, with a table that knows the cell."""
    folder = tmp_path_factory.mktemp("trained")
    table = folder / "table.csv"
    table.write_text(f"arch,top1\n{ARCH},93.5\n")
    path = write_images(folder / "images.npz", with_test=True)
    config = train_config(
        path,
        **{"train.num_seeds": 2, "benchmark.path": str(table), "benchmark.column": "top1"},
    )
    return folder / "work", config, train_and_report(config, folder / "work")


def test_the_files_of_a_training(finished):
    workdir, config, text = finished
    assert {path.name for path in workdir.iterdir() if path.name[0] != "."} == {
        "checkpoints",
        "config.json",
        "confusion.csv",
        "metrics.csv",
        "report.html",
        "summary.json",
    }
    metrics = pd.read_csv(workdir / "metrics.csv")
    assert metrics[["seed", "epoch"]].to_numpy().tolist() == [
        [seed, epoch] for seed in (0, 1) for epoch in (1, 2, 3)
    ]
    expected = [0.1 * (1 + np.cos(np.pi * epoch / 3)) / 2 for epoch in range(3)]
    assert np.allclose(metrics["learning_rate"], expected * 2, rtol=1e-6)
    summary = json.loads((workdir / "summary.json").read_text())
    last = metrics[metrics["epoch"] == 3]
    assert summary["arch"] == ARCH
    assert np.allclose(summary["accuracy"], last["test_accuracy"], rtol=1e-6)
    assert summary["mean_accuracy"] == pytest.approx(last["test_accuracy"].mean())
    assert summary["std_accuracy"] == pytest.approx(last["test_accuracy"].std())
    assert summary["num_held_out_images"] == 10
    assert summary["table_accuracy"] == 93.5
    # Bright and dark are told apart.
    assert metrics.groupby("seed")["train_loss"].last().max() < 0.3
    assert summary["kept_epochs"] == [3, 3]
    provenance = json.loads((workdir / "config.json").read_text())
    assert provenance["config"] == json.loads(config.to_json())
    for word in (ARCH, "93.50", f"{summary['mean_accuracy']:.2f} % on 10 test images"):
        assert word in text


def test_what_is_taken_for_what_is_what_the_first_network_says(finished):
    workdir, config, _ = finished
    trained = load_trained(workdir)
    test = load_dataset("npz", config.data.path, split="test")
    taken_for = trained.predict(test.images).argmax(axis=1)
    table = pd.read_csv(workdir / "confusion.csv", index_col="class")
    assert list(table.columns) == ["0", "1"]
    expected = [[np.sum((test.labels == i) & (taken_for == j)) for j in (0, 1)] for i in (0, 1)]
    assert table.to_numpy().tolist() == expected
    summary = json.loads((workdir / "summary.json").read_text())
    right = [100 * np.mean(taken_for[test.labels == label] == label) for label in (0, 1)]
    assert summary["class_accuracy"] == pytest.approx(right)
    assert "By class (test images, seed 0)" in (workdir / "report.html").read_text()


def test_with_patience_the_network_in_use_is_that_of_the_best_epoch(tmp_path):
    path = write_images(tmp_path / "images.npz", with_test=False)
    more = {"train.validation": True, "train.patience": 1, "train.epochs": 12}
    train_and_report(
        train_config(path, **more, **{"train.balance_classes": True}), tmp_path / "work"
    )
    summary = json.loads((tmp_path / "work/summary.json").read_text())
    metrics = pd.read_csv(tmp_path / "work/metrics.csv")
    accuracies = metrics["validation_accuracy"].tolist()
    best = int(np.argmax(accuracies))
    assert len(accuracies) == best + 2 < 12
    assert summary["kept_epochs"] == [best + 1]
    assert summary["accuracy"] == pytest.approx([accuracies[best]])
    half = halves(load_dataset("npz", path)).held_out
    found = load_trained(tmp_path / "work").predict(half.images).argmax(axis=1)
    assert 100 * np.mean(found == half.labels) == pytest.approx(accuracies[best])


def test_the_report_has_the_curve_and_the_accuracy_beside_the_tables(finished):
    workdir, _, _ = finished
    report = (workdir / "report.html").read_text()
    mean = json.loads((workdir / "summary.json").read_text())["mean_accuracy"]
    for word in (
        f"<dd>{mean:.2f} %</dd>",
        "<dd>93.50 %</dd>",
        "epoch",
        "epe-nas train --config=base",
    ):
        assert word in report
    assert "--config.search" not in report


def test_a_finished_training_is_reported_again_and_not_repeated(finished):
    workdir, config, text = finished
    before = (workdir / "metrics.csv").read_bytes()
    assert train_and_report(config, workdir) == text
    assert (workdir / "metrics.csv").read_bytes() == before


def test_another_cell_recipe_or_data_set_is_refused_and_nothing_changes(finished, tmp_path):
    workdir, config, _ = finished
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    other_arch = ARCH.replace("avg_pool_3x3", "none")
    for key, value in (("arch", other_arch), ("train.learning_rate", 0.05)):
        other = config.copy_and_resolve_references()
        other.update_from_flattened_dict({key: value})
        with pytest.raises(InputError, match=rf"holds another run, config\.{key}: found"):
            train_and_report(other, workdir)
    images = Path(config.data.path)
    kept = images.read_bytes()
    arrays = dict(np.load(images))
    np.savez(images, **{**arrays, "x_train": arrays["x_train"][::-1]})
    with pytest.raises(InputError, match="minibatch_sha256: found"):
        train_and_report(config, workdir)
    images.write_bytes(kept)
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before

    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="holds checkpoints of another run"):
        train_and_report(config, tmp_path)


def test_without_a_test_split_there_is_no_test_accuracy(tmp_path):
    path = write_images(tmp_path / "images.npz", with_test=False)
    text = train_and_report(train_config(path, **{"train.epochs": 1}), tmp_path / "work")
    assert "no test accuracy: the data set has no test split" in text
    summary = json.loads((tmp_path / "work/summary.json").read_text())
    assert summary["held_out"] is None
    assert "accuracy" not in summary
    assert not any("test" in name for name in pd.read_csv(tmp_path / "work/metrics.csv"))
    assert "no test accuracy" in (tmp_path / "work/report.html").read_text()


def test_validation_is_on_the_half_that_is_not_trained_on(tmp_path):
    path = write_images(tmp_path / "images.npz", with_test=True)
    config = train_config(path, **{"train.validation": True, "train.epochs": 1})
    assert "on 20 validation images" in train_and_report(config, tmp_path / "work")
    summary = json.loads((tmp_path / "work/summary.json").read_text())
    assert summary["num_train_images"] == 20


def start(workdir, path):
    """The command in a process of its own, which tells every step on stderr."""
    arguments = [f"--config.{key}={value}" for key, value in overrides_of(path).items()]
    return subprocess.Popen(
        [
            *(sys.executable, "-c", ONE_DEVICE, "--config=configs/test.py"),
            *(f"--workdir={workdir}", *arguments),
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TQDM_MININTERVAL": "0"},
    )


def run_to_the_end(workdir, path):
    """The steps that the command told."""
    with start(workdir, path) as process:
        stderr = process.communicate()[1].decode()
    assert process.returncode == 0, stderr
    return [int(step) for step in re.findall(r" (\d+)/15 ", stderr)]


def final_state(workdir):
    with ocp.CheckpointManager((workdir / "checkpoints/seed_0").absolute()) as manager:
        assert manager.latest_step() == 3
        return jax.tree.leaves(manager.restore(3, args=ocp.args.StandardRestore()))


def test_a_killed_training_goes_on_to_the_same_state(tmp_path):
    path = write_images(tmp_path / "images.npz", with_test=True)
    assert set(run_to_the_end(tmp_path / "whole", path)) == set(range(16))
    # Of 15 steps in 3 epochs: one after the first checkpoint.
    step = int(np.random.default_rng().integers(6, 15))
    print(f"killed at step {step}")
    with start(tmp_path / "killed", path) as process:
        told = b""
        while f" {step}/15 ".encode() not in told:
            byte = process.stderr.read(1)
            assert byte, told.decode()
            told += byte
        process.kill()
    assert not (tmp_path / "killed/summary.json").exists()
    resumed = set(run_to_the_end(tmp_path / "killed", path))
    assert 1 not in resumed
    assert 15 in resumed

    states = [final_state(tmp_path / name) for name in ("whole", "killed")]
    assert len(states[0]) > 50
    for a, b in zip(*states, strict=True):
        assert np.array_equal(a, b)
    tables = [pd.read_csv(tmp_path / name / "metrics.csv") for name in ("whole", "killed")]
    pd.testing.assert_frame_equal(*(table.drop(columns="train_seconds") for table in tables))


@pytest.mark.parametrize("link", ["checkpoints", "checkpoints/seed_0", "checkpoints/seed_0/1"])
def test_checkpoints_do_not_lead_out_of_the_work_directory(finished, tmp_path, link):
    _, config, _ = finished
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "1").write_text("precious")
    place = tmp_path / "work" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    # In the directory of a training that has begun.
    shutil.copy(finished[0] / "config.json", tmp_path / "work")
    with pytest.raises(InputError, match=f"{link}: found a link"):
        train_and_report(config, tmp_path / "work")
    assert [path.name for path in outside.iterdir()] == ["1"]


def test_a_signal_stops_a_training_before_its_next_step(finished, tmp_path, monkeypatch):
    steps = []

    def step_and_signal(*arguments, training):
        steps.append(len(steps))
        # The second of the second epoch.
        if len(steps) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*arguments, training=training)

    _, config, _ = finished
    monkeypatch.setattr(loop, "train_step", step_and_signal)
    with pytest.raises(StopRequested, match="SIGTERM"):
        train_and_report(config, tmp_path / "work")
    assert len(steps) == 7
    assert pd.read_csv(tmp_path / "work/metrics.csv")["epoch"].tolist() == [1]


def test_the_best_cell_of_a_finished_search_is_trained(tmp_path):
    path = write_images(tmp_path / "images.npz", with_test=True)
    run = tmp_path / "search"
    config = train_config(path, **{"arch": "", "from_run": str(run), "train.epochs": 1})
    run.mkdir()
    (run / "summary.json").write_text(json.dumps({"best_arch": ARCH}))
    assert ARCH in train_and_report(config, tmp_path / "work")
    assert json.loads((tmp_path / "work/config.json").read_text())["config"]["arch"] == ARCH


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no summary.json, expected a finished search"),
        ("{}", "holds no best_arch"),
        ("[]", "holds no best_arch"),
        ('"best_arch"', "holds no best_arch"),
        ("\xff", "holds no best_arch"),
        ('{"best_arch": "' + ARCH, "holds no best_arch"),
        ("[" * 100_000, "holds no best_arch"),
        ('{"best_arch": ' + "[" * 900 + "]" * 900 + "}", "holds no best_arch"),
        *(
            (f'{{"best_arch": {value}}}', "holds no best_arch")
            for value in ("NaN", "1", "[]", "{}")
        ),
        ('{"best_arch": null}', "no cell of the search has a score"),
        ('{"best_arch": ""}', "arch string ''"),
        (r'{"best_arch": "a\n\u2028\ud800"}', "arch string 'a"),
    ],
)
def test_a_search_without_a_best_cell_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "summary.json").write_bytes(content.encode("latin1"))
    config = tiny_config(arch="", from_run=str(tmp_path))
    assert message in refusal(lambda: train_and_report(config, tmp_path / "work"))


@pytest.mark.parametrize(
    ("shape", "message"), [((8, 12), "found 8x12 pixels"), ((6, 6), "divisible by 4")]
)
def test_images_that_no_network_takes_are_refused_and_leave_nothing(tmp_path, shape, message):
    images = np.random.default_rng(0).integers(0, 256, (16, *shape, 3)).astype(np.uint8)
    np.savez(tmp_path / "own.npz", x_train=images, y_train=np.arange(16) % 2)
    config = tiny_config(**overrides_of(str(tmp_path / "own.npz")))
    assert message in refusal(lambda: train_and_report(config, tmp_path / "work"))
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"arch": NO_PATH}, "no path of real operations leads from input to output"),
        ({"arch": ""}, "arch, from_run: found neither"),
        ({"from_run": "somewhere"}, "arch, from_run: found both"),
        ({"arch": "conv"}, "arch string 'conv'"),
        (
            {"space.name": "darts", "arch": DARTS_V2},
            "space.name: found 'darts', expected nasbench201 for training",
        ),
        ({"space.name": "darts"}, "space.name: found 'darts', expected nasbench201 for training"),
        ({"space.name": "nasnet"}, "space.name: found 'nasnet', expected one of nasbench201, d"),
        ({"train.num_seeds": 0}, "train.num_seeds: found 0"),
        ({"train.batch_size": 41}, "batch_size: found 41, expected at most 40"),
        ({"train.epochs": 0}, "epochs: found 0"),
        ({"train.patience": 3}, "train.patience: found 3 without train.validation, expected it"),
        ({"train.precision": "half"}, "precision: found 'half', expected one of float32"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(tmp_path, overrides, message):
    path = write_images(tmp_path / "images.npz", with_test=True)
    with pytest.raises(InputError, match=message):
        train_and_report(train_config(path, **overrides), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_configs_follow_the_recipe_of_the_benchmark():
    train = train_cifar10.get_config().train
    assert (train.epochs, train.batch_size, train.learning_rate) == (200, 256, 0.1)
    assert (train.momentum, train.weight_decay, train.augment) == (0.9, 5e-4, True)
    assert set(train_cifar10_subset.get_config().train) == set(train)


def test_a_trained_cell_redeems_its_accuracy_in_results():
    """The table's best cell and the median of its bottom tenth, as `results/README.md` says."""
    metrics = pd.read_csv(ROOT / "results/training_cifar10_subset.csv")
    last = metrics[metrics["epoch"] == metrics["epoch"].max()]
    best, bottom = (last[last["arch"] == arch]["test_accuracy"] for arch in last["arch"].unique())
    assert len(best) == len(bottom) == 3
    assert best.min() > 45
    assert best.min() - bottom.max() > 5 * max(best.std(), bottom.std())
    assert has_path(parse_arch(last["arch"].iloc[-1]))
