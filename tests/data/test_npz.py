import io
import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odd_inputs import DTYPES, damaged
from refusals import refusal

from epe_nas_jax import InputError
from epe_nas_jax.data.datasets import load_dataset
from epe_nas_jax.data.npz import has_test_array, key_of_split


def test_npz_of_your_own(write_npz):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    path = write_npz(images, pictures=images[:2], kinds=np.array([0, 6]))
    own = load_dataset("npz", path)
    assert np.array_equal(own.images, images)
    assert own.num_classes == 4
    assert np.allclose(own.mean, images.mean((0, 1, 2)) / 255)
    other = load_dataset("npz", path, images_key="pictures", labels_key="kinds")
    assert len(other.images) == 2
    assert other.num_classes == 2


def test_pixels_of_another_dtype_are_taken_if_whole(write_npz):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3))
    for dtype in (np.float32, np.float64, np.int64):
        own = load_dataset("npz", write_npz(images.astype(dtype)))
        assert own.images.dtype == np.uint8
        assert np.array_equal(own.images, images)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"images": np.full((4, 8, 8, 3), 0.5)},
            "x_train: found float64 pixels from 0.5 to 0.5 that are no whole numbers",
        ),
        ({"images": np.full((4, 8, 8, 3), 255.5)}, r"found pixels from 255.5 to 255.5, expected 0"),
        ({"images": np.full((4, 8, 8, 3), -1)}, r"found pixels from -1 to -1, expected 0\.\.255"),
        ({"images": np.full((4, 8, 8, 3), np.nan)}, "found pixels from nan to nan"),
        ({"images": np.zeros((4, 8, 8, 3), bool)}, "x_train: found bool"),
        ({"images": np.zeros((4, 8, 8, 3), object)}, "not a readable archive or .npz"),
        (
            {"images": np.zeros((4, 3, 8, 8), np.uint8)},
            r"found channels first, \(4, 3, 8, 8\), expected them last: turn them with "
            r"images.transpose\(0, 2, 3, 1\)",
        ),
        ({"images": np.zeros((4, 1, 8, 8))}, r"found channels first, \(4, 1, 8, 8\)"),
        ({"images": np.zeros((4, 8, 8, 4), np.uint8)}, r"found uint8 of shape \(4, 8, 8, 4\)"),
        ({"images": np.zeros((4, 192), np.uint8)}, r"found uint8 of shape \(4, 192\)"),
        ({"images": np.eye(8)[None, :, :, None] + np.zeros((4, 1, 1, 3))}, "all 0 or 1"),
        ({"labels": np.zeros(4)}, "y_train: found float64"),
        ({"labels": np.ones((4, 3), int)}, r"y_train: found int64 of shape \(4, 3\)"),
        ({"labels": np.zeros((4, 3))}, r"y_train: found float64 of shape \(4, 3\)"),
        ({"labels": np.zeros((4, 1))}, r"y_train: found float64 of shape \(4, 1\)"),
        ({"labels": np.array(["a", "b", "c", "d"])}, "y_train: found <U1"),
        ({"labels": np.arange(4).astype("M8[s]")}, "y_train: found datetime64"),
        ({"labels": np.arange(4).astype("m8[s]")}, "y_train: found timedelta64"),
        ({"labels": np.array([0, 1, 2, 2**31])}, "found label 2147483648, expected 0..9"),
        ({"labels": np.array([0, 1, 2, 2**64 - 1], np.uint64)}, "found label 18446744073709551615"),
        ({"labels": np.zeros(3, int)}, "found 4 images and 3 labels"),
        ({"labels": np.array([0, 1, 2, 10])}, "found label 10, expected 0..9"),
        ({"labels": np.array([0, 1, 2, -1])}, "found label -1, expected 0..9"),
        ({"labels": np.array([{}, 1, 2, 3])}, "not a readable archive or .npz file"),
        (
            {"images": np.zeros((0, 8, 8, 3), np.uint8), "labels": np.zeros(0, int)},
            "expected images",
        ),
    ],
)
def test_bad_arrays_are_refused(write_npz, arrays, message):
    with pytest.raises(InputError, match=message):
        load_dataset("cifar10", write_npz(**arrays))


def test_bad_files_are_refused(write_npz, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_dataset("cifar10", str(tmp_path / "missing.npz"))
    path = Path(write_npz())
    with pytest.raises(InputError, match="expected an array 'x_test', found x_train, y_train"):
        load_dataset("cifar10", str(path), images_key="x_test")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not a readable"):
        load_dataset("cifar10", str(path))
    path.write_text("just text")
    with pytest.raises(InputError, match="not a readable"):
        load_dataset("cifar10", str(path))
    with pytest.raises(InputError, match="found nothing of the train split of cifar10"):
        load_dataset("cifar10", str(tmp_path))
    with pytest.raises(InputError, match=r"found a folder, expected an \.npz file"):
        load_dataset("npz", str(tmp_path))


def test_a_single_array_file_is_refused(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(InputError, match=r"found an \.npy file of one array, expected an \.npz"):
        load_dataset("cifar10", str(path))


def test_the_test_split_is_told_by_its_array(write_npz):
    assert key_of_split("x_train", "test") == "x_test"
    assert key_of_split("pictures", "train") == "pictures"
    images = np.zeros((4, 8, 8, 3), np.uint8)
    path = Path(write_npz(x_test=images))
    assert has_test_array(path, "x_train", "y_train")
    assert not has_test_array(path, "x_test", "y_test")
    assert not has_test_array(path, "train_pictures", "train_labels")


GREY = np.random.default_rng(1).integers(0, 256, (6, 28, 28)).astype(np.uint8)
COLOUR = np.repeat(GREY[..., None], 3, axis=-1)
LABELS = np.array([0, 2, 1, 1, 0, 2])


@pytest.mark.parametrize(
    "arrays",
    [
        {"x_train": COLOUR, "y_train": LABELS},
        {"x_train": GREY, "y_train": LABELS},
        {"x_train": GREY[..., None], "y_train": LABELS.astype(np.uint8)},
        {"x_train": GREY.astype(np.float32), "y_train": LABELS[:, None]},
        {"train_images": GREY, "train_labels": LABELS[:, None].astype(np.uint8)},
        {"x_train": COLOUR, "y_train": np.eye(3)[LABELS]},
        {"x_train": COLOUR, "y_train": np.eye(3, dtype=bool)[LABELS]},
        {"x_train": COLOUR, "y_train": np.eye(3, dtype=np.uint8)[LABELS]},
    ],
    ids=["ours", "grey", "keras_mnist", "keras_cifar", "medmnist", "one_hot", "bool", "uint8"],
)
def test_arrays_as_they_come(tmp_path, caplog, arrays):
    path = tmp_path / "own.npz"
    tests = {name.replace("train", "test"): array[:2] for name, array in arrays.items()}
    np.savez(path, **arrays, **tests, val_images=GREY[:1], val_labels=LABELS[:1])
    train, test = (load_dataset("npz", str(path), split=split) for split in ("train", "test"))
    assert train.images.dtype == np.uint8
    assert np.array_equal(train.images, COLOUR)
    assert train.labels.tolist() == LABELS.tolist()
    assert train.num_classes == 3
    assert np.array_equal(test.images, COLOUR[:2])
    assert test.labels.tolist() == [0, 2]
    assert has_test_array(path, "x_train", "y_train")
    assert not caplog.records


@pytest.mark.parametrize(
    ("ids", "line"),
    [
        ([0, 5, 100000], "found 3 different labels from 0 to 100000, which are classes 0..2 in"),
        ([1, 2, 3], "found 3 different labels from 1 to 3, which are classes 0..2 in this order"),
        ([2**40, 2**41, 2**63], "found 3 different labels from 1099511627776 to 92233720368547758"),
        ([0, 1, 2], ""),
    ],
)
def test_label_ids_are_numbered_and_that_is_said(tmp_path, caplog, ids, line):
    ids = np.array(ids, np.uint64)
    path = tmp_path / "own.npz"
    np.savez(path, x_train=COLOUR, y_train=ids[LABELS], x_test=COLOUR[:2], y_test=ids[[2, 1]])
    own = load_dataset("npz", str(path))
    assert own.labels.tolist() == LABELS.tolist()
    assert own.labels.dtype == np.int32
    assert own.num_classes == 3
    assert [line in record.getMessage() for record in caplog.records] == [True] * bool(line)
    assert load_dataset("npz", str(path), split="test").labels.tolist() == [2, 1]
    np.savez(path, x_train=COLOUR, y_train=ids[LABELS], x_test=COLOUR[:1], y_test=ids[:1] + 7)
    with pytest.raises(InputError, match=r"found label \d+, expected (one of the|0\.\.2)"):
        load_dataset("npz", str(path), split="test")


def test_negative_labels_of_your_own_are_refused(write_npz):
    with pytest.raises(InputError, match="found label -1, expected 0 or more"):
        load_dataset("npz", write_npz(labels=np.array([0, 1, -1, 2])))


def test_a_test_split_of_another_size_is_refused(write_npz):
    path = write_npz(x_test=np.full((2, 12, 12, 3), 9, np.uint8), y_test=np.arange(2))
    with pytest.raises(InputError, match="test split: found 12x12 pixels, expected 8x8 as the tr"):
        load_dataset("npz", path, split="test")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for name in ("npz", "cifar10", "folder"):
        with pytest.raises(InputError, match=r"pipe.npz: found a (pipe or a device|file), expec"):
            load_dataset(name, str(tmp_path / "pipe.npz"))


def test_a_tilde_is_the_home_directory(write_npz, monkeypatch):
    path = Path(write_npz())
    monkeypatch.setenv("HOME", str(path.parent))
    assert len(load_dataset("npz", f"~/{path.name}").images) == 4
    with pytest.raises(InputError, match="found no such user"):
        load_dataset("npz", "~nobody-of-this-name/x.npz")


def npy(array, version=(3, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def npy_of_header(text, version=1):
    """An array's file with a header of one's own and 96 bytes of content."""
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode("latin1") + bytes(96)


def zipped(method=zipfile.ZIP_STORED, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


IMAGES = np.random.default_rng(2).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
MEMBERS = {"x_train": npy(IMAGES), "y_train": npy(np.arange(2))}


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Reads the content of a file in all ways, and returns what they refuse it with."""
    path = tmp_path_factory.mktemp("read") / "images.npz"

    def read(content):
        path.write_bytes(content)
        return [
            refusal(lambda name=name, split=split: load_dataset(name, str(path), split=split))
            for name in ("npz", "cifar10")
            for split in ("train", "test")
        ]

    return read


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped(x_train=b"pixels", y_train=npy(LABELS)), "(x_train is no array)"),
        (zipped(x_train=b"", y_train=npy(LABELS)), "(x_train is no array)"),
        # NumPy takes this for a header of Python 2, and looks for the letter L in it.
        (zipped(**{**MEMBERS, "x_train": npy_of_header("{'descr': ((")}), "EOF in multi-line st"),
        (zipped(**MEMBERS).replace(b"PK\1\2", b"PK\1\3"), "(Bad magic number for central dir"),
        (zipped(**{"a\nb": b"", "c\u2028d": b""}), "expected an array 'x_train', found a b, c d"),
    ],
)
def test_what_numpy_cannot_read_is_refused(read, content, message):
    for line in read(content)[::2]:
        assert message in line


def test_a_header_of_a_huge_shape_takes_no_memory(read):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for shape in ((2**33,), (2**28, 4, 4, 3), (10**18,), (10**9, 10**9, 10**9)):
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n"
        for name in MEMBERS:
            members = {**MEMBERS, name: npy_of_header(header)}
            for line in read(zipped(**members))[::2]:
                assert "not a readable archive or .npz file" in line
    # In KiB: less than 1 GiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@given(damaged([zipped(method, **MEMBERS) for method in METHODS]))
@settings(deadline=None, max_examples=200)
def test_damaged_files_are_read_or_refused(read, content):
    read(content)


NPY = [npy(array, version) for array in (IMAGES, LABELS) for version in ((1, 0), (2, 0), (3, 0))]
WORDS = st.sampled_from(
    [
        *("'descr'", "'fortran_order'", "'shape'", "True", "None", "{", "}", "(", ":", ",", "'"),
        *(
            "\0",
            "\\",
            "\n",
            "(10**9,)",
            "(1000000000000, 3)",
            "(2, 4, 4, 3)",
            "(2,)",
            "(-1,)",
            "(2L,)",
        ),
        *(
            "'|u1'",
            "'<i8'",
            "'O'",
            "'a'",
            "'V0'",
            "'<U0'",
            "'M8[s]'",
            "[('a', 'O')]",
            "('u1', (2,))",
        ),
    ]
)
HEADERS = st.lists(WORDS, max_size=12).map("".join) | st.builds(
    "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}\n".format, WORDS, WORDS, WORDS
)
ARRAYS = damaged(NPY) | st.builds(npy_of_header, HEADERS, st.integers(1, 3))


@given(ARRAYS, st.sampled_from(NPY) | ARRAYS)
@settings(deadline=None, max_examples=200)
def test_damaged_arrays_are_read_or_refused(read, images, labels):
    read(zipped(x_train=images, y_train=labels))


def arrays_of(*shapes):
    """Strategy of arrays of any dtype, which hold zeros, whole numbers or anything."""
    shapes = st.sampled_from(shapes)
    numbers = hnp.integer_dtypes() | hnp.floating_dtypes()
    return st.one_of(
        st.builds(np.zeros, shapes, DTYPES),
        hnp.arrays(hnp.scalar_dtypes(), shapes),
        hnp.arrays(numbers, shapes, elements=st.integers(0, 100)),
    )


@given(
    arrays_of(
        (), (2,), (2, 4, 4), (2, 4, 4, 1), (2, 4, 4, 3), (2, 4, 5, 3), (0, 4, 4, 3), (2, 0, 0, 3)
    ),
    arrays_of((), (0,), (2,), (2, 0), (2, 1), (2, 2), (2, 2, 2)) | st.just(np.arange(2)),
)
@settings(deadline=None, max_examples=200)
def test_arrays_of_any_dtype_and_shape_are_read_or_refused(read, images, labels):
    read(zipped(x_train=npy(images), y_train=npy(labels), x_test=npy(IMAGES), y_test=npy(labels)))
