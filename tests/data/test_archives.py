import os
import pickle

import numpy as np
import official
import pytest

from epe_nas_jax import InputError
from epe_nas_jax.data.datasets import load_dataset

DATA = os.environ.get("EPE_NAS_JAX_DATA", "")
NEEDS_DATA = pytest.mark.skipif(
    not DATA, reason="EPE_NAS_JAX_DATA does not name a folder of real images"
)
BATCHES = [f"data_batch_{i}" for i in range(1, 6)]
IMAGENET_BATCHES = [f"train_data_batch_{i}" for i in range(1, 11)]


def some_images(num_images, side=32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_images, side, side, 3)).astype(np.uint8)


def cifar10_files(images, labels, test_images, test_labels, form):
    """The files of CIFAR-10 in an order that is not that of their numbers."""
    write = {"bin": official.records, "py": official.cifar_pickle}[form]
    suffix = ".bin" if form == "bin" else ""
    parts = np.array_split(np.arange(len(images)), 5)
    files = {"batches.meta" + suffix: b"not read"}
    for batch in (3, 0, 4, 2, 1):
        rows = parts[batch]
        files[BATCHES[batch] + suffix] = write(images[rows], labels[rows])
    return files | {"test_batch" + suffix: write(test_images, test_labels)}


def cifar100_files(images, labels, test_images, test_labels, form):
    if form == "bin":
        return {
            "train.bin": official.records(images, labels // 5, labels),
            "test.bin": official.records(test_images, test_labels // 5, test_labels),
            "fine_label_names.txt": b"apple\n",
        }
    return {
        "meta": b"not read",
        "train": official.cifar_pickle(images, labels, "fine_labels"),
        "test": official.cifar_pickle(test_images, test_labels, "fine_labels"),
    }


MAKERS = {"cifar10": (cifar10_files, 10), "cifar100": (cifar100_files, 100)}


@pytest.mark.parametrize("place", ["archive", "folder", "folder above"])
@pytest.mark.parametrize("form", ["bin", "py"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_in_its_official_forms(tmp_path, name, form, place):
    make, num_classes = MAKERS[name]
    images, test_images = some_images(12), some_images(3, seed=1)
    labels = np.arange(12) * 7 % num_classes
    test_labels = np.array([num_classes - 1, 0, 1])
    files = make(images, labels, test_images, test_labels, form)
    if place == "archive":
        path = official.write_tar(tmp_path / "data.tar.gz", files, "cifar-batches")
    else:
        path = official.write_folder(tmp_path / "extracted/batches", files)
        path = path if place == "folder" else path.parent
    before = sorted(tmp_path.rglob("*"))
    train = load_dataset(name, str(path))
    assert np.array_equal(train.images, images)
    assert train.labels.tolist() == labels.tolist()
    assert train.num_classes == num_classes
    test = load_dataset(name, str(path), split="test")
    assert np.array_equal(test.images, test_images)
    assert test.labels.tolist() == test_labels.tolist()
    assert np.array_equal(test.mean, train.mean)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_binary_form_is_preferred(tmp_path):
    images, labels = some_images(5), np.arange(5)
    files = cifar10_files(images, labels, images, labels, "bin")
    files |= cifar10_files(images[::-1], labels, images, labels, "py")
    path = official.write_folder(tmp_path / "both", files)
    assert np.array_equal(load_dataset("cifar10", str(path)).images, images)


def imagenet_files(images, labels, protocol=2):
    files = {}
    parts = np.array_split(np.arange(len(images)), 10)
    for name, rows in zip(IMAGENET_BATCHES, parts, strict=True):
        batch = {
            "data": official.pixels_of(images[rows]),
            "labels": labels[rows].tolist(),
            "mean": images.mean((0, 1, 2)),
        }
        files[name] = pickle.dumps(batch, protocol)
    batch = {"data": official.pixels_of(images[:5]), "labels": labels[:5].tolist()}
    return files | {"val_data": pickle.dumps(batch, protocol)}


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("place", ["zip", "folder"])
def test_imagenet16_120_takes_the_first_120_classes(tmp_path, place, protocol):
    images = some_images(40, side=16)
    labels = np.array([1, 120, 121, 1000, 60] * 8)
    files = imagenet_files(images, labels, protocol)
    if place == "zip":
        path = official.write_zip(tmp_path / "Imagenet16.zip", files)
    else:
        path = official.write_folder(tmp_path / "Imagenet16", files)
    train = load_dataset("imagenet16_120", str(path))
    taken = labels <= 120
    assert np.array_equal(train.images, images[taken])
    assert train.labels.tolist() == (labels[taken] - 1).tolist()
    assert train.num_classes == 120
    test = load_dataset("imagenet16_120", str(path), split="test")
    assert np.array_equal(test.images, images[[0, 1, 4]])
    assert test.labels.tolist() == [0, 119, 59]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def test_a_pickled_batch_that_names_another_class_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"data": Evil(), "labels": [1]})
    path = official.write_folder(tmp_path / "cifar", {"train": content})
    message = rf"{path}: train: names the class posix.mkdir, expected NumPy arrays"
    with pytest.raises(InputError, match=message):
        load_dataset("cifar100", str(path))
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", [">i8", "<i2", "u1"])
def test_pickled_batches_of_arrays_of_all_layouts_are_read(tmp_path, protocol, order, dtype):
    batch = {"data": PIXELS.copy(order), "fine_labels": np.array([1, 2], dtype)}
    path = official.write_folder(tmp_path / "cifar", {"train": pickle.dumps(batch, protocol)})
    read = load_dataset("cifar100", str(path))
    assert np.array_equal(read.images, some_images(2))
    assert read.labels.tolist() == [1, 2]


PIXELS = official.pixels_of(some_images(2))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1, 2], "train: found list, expected a dict"),
        ({"data": PIXELS}, "expected a key 'fine_labels', found data"),
        ({"fine_labels": [1, 2]}, "expected a key 'data', found fine_labels"),
        ({"data": PIXELS.tolist(), "fine_labels": [1, 2]}, "data: found list"),
        ({"data": PIXELS.astype(float), "fine_labels": [1, 2]}, "data: found float64"),
        (
            {"data": PIXELS.astype(object), "fine_labels": [1, 2]},
            r"train: not a readable pickle \(an array of object\)",
        ),
        ({"data": PIXELS[:, :768], "fine_labels": [1, 2]}, r"data: found shape \(2, 768\)"),
        ({"data": PIXELS, "fine_labels": [1]}, r"found int64 of shape \(1,\), expected 2 integers"),
        ({"data": PIXELS, "fine_labels": [1, {}]}, "fine_labels: found object"),
        ({"data": PIXELS, "fine_labels": [1, 100]}, r"found label 100, expected 0\.\.99"),
    ],
)
def test_bad_batches_are_refused(tmp_path, batch, message):
    path = official.write_folder(tmp_path / "cifar", {"train": pickle.dumps(batch)})
    with pytest.raises(InputError, match=message):
        load_dataset("cifar100", str(path))


@pytest.mark.parametrize("label", [0, 1001])
def test_imagenet_labels_count_from_1(tmp_path, label):
    files = imagenet_files(some_images(10, side=16), np.array([1] * 9 + [label]))
    path = official.write_folder(tmp_path / "imagenet", files)
    with pytest.raises(InputError, match=rf"batch_10: found label {label}, expected 1\.\.1000"):
        load_dataset("imagenet16_120", str(path))


def test_a_split_without_an_image_of_the_first_120_classes_is_refused(tmp_path):
    files = imagenet_files(some_images(10, side=16), np.full(10, 500))
    path = official.write_folder(tmp_path / "imagenet", files)
    with pytest.raises(InputError, match="found no images"):
        load_dataset("imagenet16_120", str(path))


@pytest.mark.parametrize("form", ["bin", "py"])
def test_every_cut_of_a_file_or_an_archive_is_refused(tmp_path, form):
    images, labels = some_images(5), np.arange(5)
    files = cifar10_files(images, labels, images, labels, form)
    archive = official.write_tar(tmp_path / "whole.tar.gz", files, "batches").read_bytes()
    for cut in [1, 2, 20, 100, *range(600, len(archive) - 8, len(archive) // 7)]:
        path = tmp_path / "cut.tar.gz"
        path.write_bytes(archive[:cut])
        with pytest.raises(InputError, match=r"cut\.tar\.gz: ") as caught:
            load_dataset("cifar10", str(path))
        assert len(str(caught.value).splitlines()) == 1
    name = "data_batch_2.bin" if form == "bin" else "data_batch_2"
    for cut in (0, 1, 100, len(files[name]) - 1):
        broken = files | {name: files[name][:cut]}
        path = official.write_folder(tmp_path / f"cut{cut}", broken)
        with pytest.raises(InputError, match=r"data_batch_2.*(expected records|readable pickle)"):
            load_dataset("cifar10", str(path))


def test_a_cut_zip_is_refused(tmp_path):
    files = imagenet_files(some_images(10, side=16), np.ones(10, int))
    path = official.write_zip(tmp_path / "whole.zip", files)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not a readable archive or"):
        load_dataset("imagenet16_120", str(path))


def test_missing_files_are_named(tmp_path):
    images, labels = some_images(5), np.arange(5)
    files = cifar10_files(images, labels, images, labels, "bin")
    del files["data_batch_4.bin"]
    path = official.write_folder(tmp_path / "cifar", files)
    with pytest.raises(InputError, match=r"found no data_batch_4.bin beside"):
        load_dataset("cifar10", str(path))
    with pytest.raises(InputError, match=r"nothing of the train split of cifar100, expected train"):
        load_dataset("cifar100", str(path))


@NEEDS_DATA
@pytest.mark.parametrize("form", ["bin", "py"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_real_images_in_the_official_forms(tmp_path, name, form):
    npz = f"{DATA}/{name}_subset.npz"
    train, test = (load_dataset(name, npz, split=split) for split in ("train", "test"))
    make, _ = MAKERS[name]
    files = make(train.images, train.labels, test.images, test.labels, form)
    path = official.write_folder(tmp_path / name, files)
    for split, expected in (("train", train), ("test", test)):
        found = load_dataset(name, str(path), split=split)
        assert np.array_equal(found.images, expected.images)
        assert np.array_equal(found.labels, expected.labels)


@NEEDS_DATA
def test_real_16_pixel_images_in_the_official_form(tmp_path):
    with np.load(f"{DATA}/imagenet16_like.npz") as arrays:
        images, labels = arrays["x_sample1000"], arrays["y_sample1000"]
    path = official.write_folder(tmp_path / "imagenet", imagenet_files(images, labels + 1))
    found = load_dataset("imagenet16_120", str(path))
    assert np.array_equal(found.images, images[:120])
    assert found.labels.tolist() == list(range(120))
