import os
import re

import numpy as np
import official
import pandas as pd
import pytest

from epe_nas_jax import InputError
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.data.archives import records
from epe_nas_jax.data.datasets import has_test_split, load_dataset
from epe_nas_jax.data.readers import official as official_reader
from epe_nas_jax.data.table import DATASETS, Entry, Statistics
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

DATA = os.environ.get("EPE_NAS_JAX_DATA", "")


def test_unknown_name_is_refused():
    with pytest.raises(InputError, match="'mnist': unknown, expected one of digits, cifar10"):
        load_dataset("mnist")
    with pytest.raises(InputError, match="'mnist': unknown, expected one of digits, cifar10"):
        has_test_split("mnist", "", "x_train")


@pytest.mark.parametrize(
    ("name", "num_classes", "class_3", "mean", "std"),
    [
        ("cifar10", 10, "cat", (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
        ("cifar100", 100, "bear", (129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
        ("imagenet16_120", 120, "3", (122.68, 116.66, 104.01), (63.22, 61.26, 65.09)),
    ],
)
def test_known_data_sets_bring_their_classes_and_statistics(
    write_npz, name, num_classes, class_3, mean, std
):
    dataset = load_dataset(name, write_npz())
    assert dataset.num_classes == num_classes == len(set(dataset.class_names))
    assert dataset.class_names[3] == class_3
    # The classes of the CIFARs are numbered in alphabetical order.
    if not class_3.isdigit():
        assert list(dataset.class_names) == sorted(dataset.class_names)
    assert np.allclose(dataset.mean, np.divide(mean, 255), rtol=1e-15)
    assert np.allclose(dataset.std, np.divide(std, 255), rtol=1e-15)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10", "cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar-10-"),
        ("cifar100", "cifar-100-binary.tar.gz from https://www.cs.toronto.edu/~kriz/"),
        ("imagenet16_120", "Imagenet16_train.zip, the downsampled ImageNet of image-net.org"),
        ("npz", "an .npz file"),
        ("folder", "a folder of images by class"),
    ],
)
def test_without_a_path_what_to_get_is_said(name, expected):
    with pytest.raises(InputError, match=f"found nothing, expected the path of {expected}"):
        load_dataset(name)


def test_only_the_cifars_can_be_downloaded():
    with pytest.raises(InputError, match=r"data.download: found True, .* imagenet16_120 has no"):
        load_dataset("imagenet16_120", download=True)
    found = {name: entry.archive.file_name for name, entry in DATASETS.items() if entry.archive}
    assert found == {
        "cifar10": "cifar-10-binary.tar.gz",
        "cifar100": "cifar-100-binary.tar.gz",
    }


@pytest.mark.parametrize("name", DATASETS)
def test_an_entry_has_what_a_data_set_needs(name):
    entry = DATASETS[name]
    assert entry.name == name
    needs_path = entry.archive is not None or entry.where
    assert needs_path or load_dataset(name).num_classes == entry.num_classes
    assert len(entry.accuracy_columns) <= 2
    assert not any("," in column for column in entry.accuracy_columns)
    # A table that NATS-Bench's files were written to has the columns of these files.
    stems = {re.sub("_200$", "", column) for column in entry.accuracy_columns}
    assert stems <= set(entry.nats_columns)


def test_no_column_is_of_two_data_sets():
    columns = [column for entry in DATASETS.values() for column in entry.nats_columns]
    assert len(columns) == len(set(columns)) == 7


@pytest.mark.skipif(not DATA, reason="EPE_NAS_JAX_DATA does not name a folder of real images")
def test_the_default_columns_are_those_of_the_real_table():
    header = set(pd.read_csv(f"{DATA}/nasbench201.csv.gz", nrows=0))
    assert {column for entry in DATASETS.values() for column in entry.accuracy_columns} <= header


def test_a_data_set_is_added_by_one_entry(monkeypatch, tmp_path, write_npz):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 8, 8, 3)).astype(np.uint8), np.arange(6)
    entry = Entry(
        name="added",
        reader=official_reader(records(["a.bin", "b.bin"], ["c.bin"], label_bytes=1, side=8)),
        num_classes=6,
        statistics=Statistics((51, 102, 204), (51, 51, 102)),
        where="two files of records",
        accuracy_columns=("added_200",),
        nats_columns={"added": ("added", "test-accuracy")},
    )
    monkeypatch.setitem(DATASETS, "added", entry)
    files = {
        "b.bin": official.records(images[3:], labels[3:]),
        "a.bin": official.records(images[:3], labels[:3]),
        "c.bin": official.records(images[:2], labels[:2]),
    }
    path = str(official.write_folder(tmp_path / "files", files))
    train, test = (load_dataset("added", path, split=split) for split in ("train", "test"))
    assert np.array_equal(train.images, images)
    assert train.labels.tolist() == labels.tolist()
    assert np.array_equal(test.images, images[:2])
    assert (train.num_classes, test.num_classes) == (6, 6)
    assert np.allclose(test.mean, [0.2, 0.4, 0.8])
    assert np.allclose(test.std, [0.2, 0.2, 0.4])
    assert has_test_split("added", path, "x_train")
    own = write_npz(images, labels)
    assert np.array_equal(load_dataset("added", own).images, images)
    assert not has_test_split("added", own, "x_train")
    with pytest.raises(InputError, match="expected the path of two files of records"):
        load_dataset("added")
    with pytest.raises(InputError, match=r"expected one of .*, added_200"):
        read_accuracies(path, "cifar10", space=NASBENCH201)


def test_which_data_sets_have_a_test_split(tmp_path, write_npz):
    assert not has_test_split("digits", "", "x_train")
    assert has_test_split("cifar10", "", "x_train")
    for name in ("a", "b"):
        (tmp_path / "own/train" / name).mkdir(parents=True)
    assert not has_test_split("folder", str(tmp_path / "own"), "x_train")
    (tmp_path / "own/test").mkdir()
    assert has_test_split("folder", str(tmp_path / "own"), "x_train")
    assert not has_test_split("cifar10", str(tmp_path / "own"), "x_train")
    (tmp_path / "own/test_batch.bin").write_bytes(b"as of CIFAR-10")
    assert has_test_split("cifar10", str(tmp_path / "own"), "x_train")
    for name in ("npz", "cifar10"):
        path = write_npz(x_test=np.zeros((1, 8, 8, 3), np.uint8))
        assert has_test_split(name, path, "x_train")
        assert not has_test_split(name, write_npz(), "x_train")
