import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import official
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_inputs import damaged
from refusals import refusal

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
        ({"data": PIXELS, "fine_labels": [1, 2**32]}, r"found label 4294967296, expected 0\.\.99"),
        ({"a\nb": 1, "c\u2028d": 1}, "train: expected a key 'data', found a b, c d"),
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


def tar(files, compression="", form=tarfile.PAX_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{compression}", format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"folder/{name}")
            # In the pax form it has a header of its own.
            member.size, member.mtime = len(content), 1.5
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zipped(files, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def with_checksum(header):
    """A member's header of a tar archive, with the right sum of its bytes in it."""
    header = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def changed(archive, start, field):
    """A tar archive with other bytes in the header of its first member."""
    return (
        with_checksum(archive[:start] + field + archive[start + len(field) : 512]) + archive[512:]
    )


# So even that they compress well, and damage hits headers.
EVEN = np.full((2, 32, 32, 3), 7, np.uint8)
CIFAR100 = {
    **cifar100_files(EVEN, np.arange(2), EVEN[:1], np.arange(1), "bin"),
    "fine_label_names.txt": b"",
}
PICKLED = cifar100_files(EVEN, np.arange(2), EVEN[:1], np.arange(1), "py")
IMAGENET = imagenet_files(np.repeat(EVEN[:, :16, :16], 5, axis=0), np.arange(1, 11))
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Reads the content of a file as two data sets; what they refuse it with, by split."""
    path = tmp_path_factory.mktemp("read") / "archive"

    def read(content):
        path.write_bytes(content)
        return [
            refusal(lambda name=name, split=split: load_dataset(name, str(path), split=split))
            for name in ("cifar100", "imagenet16_120")
            for split in ("train", "test")
        ]

    return read


# 3,074 bytes an image of CIFAR-100.
SIZE = (2 * 3074).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            zipped(CIFAR100).replace(b"PK\1\2", b"PK\1\3"),
            "not a readable archive or .npz file (Bad magic number for central directory)",
        ),
        (zipped(CIFAR100, zipfile.ZIP_LZMA).replace(b"\x5d", b"\xff"), "broken or truncated ("),
        (zipped(CIFAR100).replace(SIZE, b"\xfe\xff\xff\xff"), "broken or truncated ("),
        (
            changed(tar(CIFAR100, form=tarfile.GNU_FORMAT), 124, b"\x80" + b"\xff" * 11),
            "broken or truncated (cannot fit 'int' into",
        ),
        *(
            (
                changed(tar(CIFAR100, form=tarfile.GNU_FORMAT), 156, kind),
                "found nothing of the train split of cifar100, expected train.bin or train",
            )
            for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
        ),
        (tar({}), "found nothing of the train split"),
        (zipped({}), "found nothing of the train split"),
        (zipped({"train.bin/": b""}), "train.bin: found 0 bytes"),
        (zipped({**CIFAR100, "train.bin": b"x\ny"}), "found 3 bytes, expected records of 3074"),
        (tar({"train": b"c\xc2\x85\n\x0c\n.", "test": b""}), "train: names the class"),
    ],
)
def test_broken_archives_and_wrong_members_are_refused(read, content, message):
    assert message in read(content)[0]


def test_an_archive_with_a_password_is_refused(read):
    content = zipped(CIFAR100)
    # The flag stands in both headers of a member.
    for mark, start in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = content.index(mark) + start
        content = content[:place] + b"\1" + content[place + 1 :]
    assert "is encrypted, password required" in read(content)[0]


def test_only_regular_files_of_a_folder_are_read(tmp_path):
    os.mkfifo(tmp_path / "train.bin")
    (tmp_path / "train").mkdir()
    (tmp_path / "test").symlink_to(tmp_path / "nothing")
    for split in ("train", "test"):
        message = refusal(lambda split=split: load_dataset("cifar100", str(tmp_path), split=split))
        assert f"found nothing of the {split} split" in message


@given(
    damaged(
        [
            make(files, form)
            for files in (CIFAR100, PICKLED, IMAGENET)
            for make, forms in ((tar, ("", "gz", "bz2", "xz")), (zipped, METHODS))
            for form in forms
        ]
    )
)
@settings(deadline=None, max_examples=200)
def test_damaged_archives_are_read_or_refused(read, content):
    read(content)


@given(
    st.sampled_from([tar, zipped]),
    st.sampled_from([CIFAR100, PICKLED, IMAGENET]),
    damaged([CIFAR100["train.bin"], PICKLED["train"], IMAGENET["train_data_batch_3"]]),
)
@settings(deadline=None, max_examples=200)
def test_archives_of_damaged_files_are_read_or_refused(read, make, files, content):
    for name in ("train", "train.bin", "train_data_batch_3"):
        if name in files:
            read(make({**files, name: content}))


NUMBERS = (b"77777777777\0", b"\x80" + b"\xff" * 11, b"-0000000001\0", bytes(12), b"00000000400\0")


@given(
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.lists(
        st.tuples(
            st.just(156), st.sampled_from([b"%c" % kind for kind in b"0123567LKSDxgXV\0\xff"])
        )
        | st.tuples(st.just(124), st.sampled_from(NUMBERS))
        | st.tuples(st.integers(0, 499), st.binary(max_size=12)),
        max_size=3,
    ),
)
@settings(deadline=None, max_examples=200)
def test_tar_headers_of_any_content_are_read_or_refused(read, form, fields):
    content = tar(CIFAR100, form=form)
    for start, field in fields:
        content = changed(content, start, field)
    read(content)


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_no_flipped_bit_of_a_compressed_archive_changes_a_pixel(tmp_path, compression):
    images, labels = some_images(5), np.arange(5)
    files = cifar10_files(images, labels, images, labels, "bin")
    whole = official.write_tar(tmp_path / f"whole.tar.{compression}", files, "batches")
    content = whole.read_bytes()
    places = np.random.default_rng(0).integers(20, len(content), 40)
    path = tmp_path / f"flipped.tar.{compression}"
    num_refused = 0
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        try:
            assert np.array_equal(load_dataset("cifar10", str(path)).images, images)
        except InputError:
            num_refused += 1
    assert num_refused > 20


@pytest.mark.parametrize("place", ["folder", "tar", "zip"])
def test_a_file_that_is_there_twice_is_refused(tmp_path, place):
    images, labels = some_images(5), np.arange(5)
    files = cifar10_files(images, labels, images, labels, "bin")
    twice = {f"batches/{name}": content for name, content in files.items()}
    twice["old/data_batch_2.bin"] = files["data_batch_2.bin"]
    path = tmp_path / place
    if place == "folder":
        for name, content in twice.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    elif place == "tar":
        official.write_tar(path, twice, ".")
    else:
        official.write_zip(path, twice)
    with pytest.raises(InputError, match=r"found data_batch_2\.bin twice, expected it once"):
        load_dataset("cifar10", str(path))
