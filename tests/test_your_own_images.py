"""The whole way of docs/your-own-images.md: every block, in order, at a smaller size."""

import json
import os
import re
import shlex
from pathlib import Path

import onnxruntime
import pandas as pd
import pytest
from command_line import epe_nas

import epe_nas_jax

PAGE = (Path(__file__).parent.parent / "docs" / "your-own-images.md").read_text()
BLOCKS = re.findall(r"^```(python)?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
# What makes it small; everything else is as on the page.
NETWORK = ["--config.network.channels=4", "--config.network.cells_per_stage=1"]
SMALLER = {
    "search": [
        *NETWORK,
        "--config.data.side=8",
        "--config.data.batch_size=20",
        "--config.search.num_samples=3",
        "--config.search.max_latency_ms=10000",
    ],
    "train": [*NETWORK, "--config.data.side=8", "--config.train.epochs=2"],
    "predict": [],
    "export": [],
}


def run(folder, command):
    name = command[1]
    done = epe_nas(name, *command[2:], *SMALLER[name], cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_every_block_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = []
    for language, block in BLOCKS:
        if language:
            exec(block, {"__name__": "example"})
        elif block.startswith("epe-nas"):
            commands.append(shlex.split(block.replace("\\\n", "")))
            run(tmp_path, commands[-1])
    assert [command[1] for command in commands] == list(SMALLER)
    summary = json.loads((tmp_path / "runs/search/summary.json").read_text())
    assert summary["pareto_front"]["latency_ms"]
    training = json.loads((tmp_path / "runs/train/summary.json").read_text())
    assert training["arch"] == summary["best_arch"]
    assert training["class_names"] == [str(digit) for digit in range(10)]
    digits = epe_nas_jax.load_dataset("digits")
    predictions = pd.read_csv(tmp_path / "predictions.csv", dtype={"class": str})
    assert len(predictions) == len(digits.images)
    assert predictions["error"].isna().all()
    assert set(predictions["class"]) <= set(training["class_names"])
    trained = epe_nas_jax.load_trained(tmp_path / "runs/train")
    session = onnxruntime.InferenceSession(os.fspath(tmp_path / "exported/network.onnx"))
    images = epe_nas_jax.load_dataset("folder", "images", side=8).images[:5]
    (found,) = session.run(None, {"images": images.transpose(0, 3, 1, 2)})
    assert abs(found - trained.predict(images)).max() < 1e-5
