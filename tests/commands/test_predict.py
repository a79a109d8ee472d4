"""The predict command: a folder of images of any size, to a CSV file."""

import csv
import shutil

import numpy as np
import pandas as pd
import pytest
from command_line import epe_nas
from PIL import Image
from refusals import refusal
from trained_runs import noise

from epe_nas_jax import load_trained
from epe_nas_jax.commands import predict
from epe_nas_jax.commands.predict import predict_folder

# Of the CSV file's seven digits.
ROUNDED = {"rtol": 1e-6, "atol": 1e-9}
PROBABILITIES = [f"probability_{name}" for name in range(10)]


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    """Five images of three sizes in two folders, two that cannot be read, and a text."""
    folder = tmp_path / "photos"
    images = noise(3)
    for number, image in enumerate(images):
        save(folder / f"{number}.png", image)
    # Twice as large, and twice as wide.
    save(folder / "deep/er/large.png", images[0].repeat(2, 0).repeat(2, 1))
    save(folder / "deep/wide.png", images[1].repeat(2, 1))
    (folder / "broken.jpg").write_bytes(b"no image")
    save(folder / "deep/sixteen_bits.png", np.arange(64, dtype=np.uint16).reshape(8, 8))
    (folder / "notes.txt").write_text("no image")
    return folder


FILES = [
    "0.png",
    "1.png",
    "2.png",
    "broken.jpg",
    "deep/er/large.png",
    "deep/sixteen_bits.png",
    "deep/wide.png",
]
BROKEN = ["broken.jpg", "deep/sixteen_bits.png"]


# In one call of the network, and in many.
@pytest.mark.parametrize("batch", [64, 2])
def test_a_row_an_image(trained_run, photos, tmp_path, monkeypatch, caplog, batch):
    monkeypatch.setattr(predict, "PREDICT_BATCH", batch)
    text = predict_folder(str(trained_run), str(photos), str(tmp_path / "new/out.csv"))
    table = pd.read_csv(tmp_path / "new/out.csv")
    assert list(table) == ["file", "class", "probability", "error", *PROBABILITIES]
    assert table["file"].tolist() == FILES
    is_broken = table["file"].isin(BROKEN)
    assert table["error"].notna().tolist() == is_broken.tolist()
    assert table.loc[is_broken, ["class", "probability", *PROBABILITIES]].isna().all(axis=None)
    assert table["error"][3] == "not a readable image (cannot identify image file 'broken.jpg')"
    assert table["error"][5].endswith("expected 8 bits a channel")
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(": ")[0] for line in told] == BROKEN

    # Whatever was repeated, boxes make the image of.
    expected = load_trained(trained_run).predict(noise(3))[[0, 1, 2, 0, 1]]
    found = table[~is_broken]
    assert np.allclose(found[PROBABILITIES], expected, **ROUNDED)
    assert found["class"].astype(int).tolist() == expected.argmax(1).tolist()
    assert np.allclose(found["probability"], expected.max(1), **ROUNDED)

    assert f"5 images in {tmp_path}/new/out.csv" in text
    assert "2 not readable: their rows say why" in text
    counts = [line.split() for line in text.splitlines()[3:-2]]
    expected_counts = found["class"].astype(int).value_counts()
    assert {int(name): int(count) for name, count in counts} == dict(expected_counts)


def test_another_seed_and_a_file_that_is_replaced(trained_run, photos, tmp_path):
    out = tmp_path / "out.csv"
    tables = []
    for seed in (None, 1):
        predict_folder(str(trained_run), str(photos), str(out), seed)
        tables.append(pd.read_csv(out))
    expected = load_trained(trained_run, seed=1).predict(noise(1))[0]
    assert np.allclose(tables[1].loc[0, PROBABILITIES].astype(float), expected, **ROUNDED)
    assert not tables[0].equals(tables[1])


def test_names_of_files_may_be_anything(trained_run, tmp_path):
    names = ['a,"b".png', "two\nlines.png", "\udcff.png", "größe.png"]
    for name in names:
        save(tmp_path / "photos" / name, noise(1)[0])
    predict_folder(str(trained_run), str(tmp_path / "photos"), str(tmp_path / "out.csv"))
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        found = [row["file"] for row in csv.DictReader(file)]
    assert found == [name.replace("\udcff", r"\udcff") for name in sorted(names)]


@pytest.mark.parametrize(
    ("images", "out", "message"),
    [
        ("nowhere", "out.csv", "nowhere: found nothing, expected a folder of images"),
        ("photos/0.png", "out.csv", "found a file, expected a folder of images"),
        ("", "out.csv", "images: found nothing, expected a folder"),
        ("empty", "out.csv", "empty: found no images, expected some"),
        ("unreadable", "out.csv", "unreadable: found no readable image of 1, the first is 1.png: "),
        ("photos", "empty", "empty: found a folder, expected a CSV file or nothing"),
        ("photos", "", "found a folder, expected a CSV file or nothing"),
        ("photos", "/dev/null", "found a pipe or a device, expected a CSV file"),
        ("photos", "gs://bucket/out.csv", "found a URL, expected a path"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    request, trained_run, tmp_path, monkeypatch, images, out, message
):
    request.getfixturevalue("photos")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable/1.png").write_text("no image")
    before = sorted(tmp_path.rglob("*"))
    assert message in refusal(lambda: predict_folder(str(trained_run), images, out))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_training_is_needed(photos, tmp_path):
    run = str(tmp_path / "nowhere")
    message = refusal(lambda: predict_folder(run, str(photos), str(tmp_path / "out.csv")))
    assert message.startswith(f"{run}: found nothing, expected the work directory of a finished")
    assert not (tmp_path / "out.csv").exists()


def test_the_command_on_one_device_of_a_training_on_two(trained_run, photos, tmp_path):
    arguments = (f"--from_run={trained_run}", f"--images={photos}", f"--out={tmp_path}/out.csv")
    done = epe_nas("predict", *arguments, JAX_NUM_CPU_DEVICES="1")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for name in BROKEN:
        assert f"{name}: " in done.stderr
    assert len(done.stderr.splitlines()) == len(BROKEN)
    assert "5 images in" in done.stdout
    found = pd.read_csv(tmp_path / "out.csv").loc[:2, PROBABILITIES]
    assert np.allclose(found, load_trained(trained_run).predict(noise(3)), rtol=1e-5, atol=1e-7)


def test_an_image_of_the_folder_is_not_written_over(trained_run, photos):
    before = (photos / "0.png").read_bytes()
    message = refusal(lambda: predict_folder(trained_run, str(photos), str(photos / "0.png")))
    assert "0.png: found an image of the folder, expected a CSV file or nothing" in message
    assert (photos / "0.png").read_bytes() == before


def test_a_csv_file_below_a_file_is_refused_at_once(trained_run, photos):
    out = photos / "0.png" / "new" / "predictions.csv"
    message = refusal(lambda: predict_folder(trained_run, str(photos), str(out)))
    assert "0.png, expected a folder" in message


def test_the_error_of_a_file_with_two_lines_in_its_name_is_one_line(trained_run, photos, tmp_path):
    (photos / "two\nlines.png").write_bytes(b"no image")
    out = tmp_path / "predictions.csv"
    predict_folder(trained_run, str(photos), str(out))
    table = pd.read_csv(out).set_index("file")
    assert table.loc["two\nlines.png", "error"].startswith("not a readable image")


def test_of_damaged_weights_the_command_says_one_line(trained_run, photos, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained_run, copy)
    for file in (copy / "checkpoints").rglob("d/*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:20])
    arguments = [f"--from_run={copy}", f"--images={photos}", f"--out={tmp_path / 'p.csv'}"]
    done = epe_nas("predict", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "seed_0: not readable" in line
    assert not (tmp_path / "p.csv").exists()
