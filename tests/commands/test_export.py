"""The export command: a folder that is whole or not there."""

import json

import pytest
from command_line import epe_nas
from refusals import refusal

from epe_nas_jax import InputError
from epe_nas_jax.commands import export
from epe_nas_jax.commands.export import export_run


@pytest.fixture(autouse=True)
def few_files(monkeypatch):
    """In the place of the formats, which tests/exports holds."""

    def export_files(trained):
        return {"network.json": json.dumps({"seed": trained.seed}).encode(), "weights.pt": b"123"}

    monkeypatch.setattr(export, "export_files", export_files)


def test_the_files_of_a_seed_are_written_and_listed(trained_run, tmp_path):
    for seed, expected in ((None, 0), (1, 1)):
        out = tmp_path / f"out_{seed}"
        text = export_run(str(trained_run), str(out), seed)
        assert text.splitlines() == [
            f"{out}/network.json  11 bytes",
            f"{out}/weights.pt  3 bytes",
        ]
        assert json.loads((out / "network.json").read_text()) == {"seed": expected}


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file", "found a file, expected no such folder yet"),
        ("full", "found a folder that is not empty, expected none"),
        ("gs://bucket/out", "found a URL, expected a path"),
    ],
)
def test_what_is_there_is_refused_and_stays(trained_run, tmp_path, monkeypatch, out, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    assert message in refusal(lambda: export_run(str(trained_run), out))
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_exported_leaves_nothing(trained_run, tmp_path, monkeypatch):
    def fail(_):
        raise InputError("torch: not installed")

    monkeypatch.setattr(export, "export_files", fail)
    with pytest.raises(InputError, match="torch: not installed"):
        export_run(str(trained_run), str(tmp_path / "out"))
    with pytest.raises(InputError, match="seed: found 7"):
        export_run(str(trained_run), str(tmp_path / "out"), 7)
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_what_is_no_training_in_one_line(tmp_path):
    arguments = (f"--from_run={tmp_path}", f"--out={tmp_path}/out")
    done = epe_nas("export", *arguments, JAX_NUM_CPU_DEVICES="1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"error: {tmp_path}: found no config.json, expected the work directory of a finished "
        "training (epe-nas train)\n"
    )
    assert not list(tmp_path.iterdir())
