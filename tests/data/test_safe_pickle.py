import collections
import os
import pickle
import pickletools
import resource

import numpy as np
import official
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_inputs import damaged
from refusals import refusal

from epe_nas_jax import InputError
from epe_nas_jax.data.safe_pickle import load_arrays

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 48)).astype(np.uint8)


def test_the_made_pickles_are_those_of_python_2():
    content = official.cifar_pickle(PIXELS.reshape(2, 4, 4, 3), [3, 5])
    names = {argument for code, argument, _ in pickletools.genops(content) if code.name == "GLOBAL"}
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    codes = {code.name for code, _, _ in pickletools.genops(content)}
    assert "BINSTRING" in codes
    assert not {"BINUNICODE", "BINBYTES"} & codes


def test_a_dict_of_python_2_has_text_for_keys():
    images = PIXELS.reshape(2, 4, 4, 3)
    batch = load_arrays("train", official.cifar_pickle(images, [3, 5]))
    assert list(batch) == ["data", "labels", "batch_label", "filenames"]
    assert np.array_equal(batch["data"], official.pixels_of(images))
    assert batch["labels"] == [3, 5]
    assert batch["filenames"] == [b"0.png", b"1.png"]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"data": Evil(), "labels": [1]}, "posix.mkdir"),
        (collections.OrderedDict(data=1), "collections.OrderedDict"),
        ({"data": np.float64(1)}, "numpy._core.multiarray.scalar"),
        (np.random.default_rng, "numpy.random.default_rng"),
        (np.ndarray.tofile, "builtins.getattr"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_names_another_class_is_refused(
    tmp_path, monkeypatch, content, named, protocol
):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(content, protocol)
    if protocol == 2:
        named = named.replace("builtins.", "__builtin__.")
    with pytest.raises(InputError, match=rf"train: names the class {named}, expected NumPy"):
        load_arrays("train", content)
    assert not list(tmp_path.iterdir())


def test_bytes_are_read_in_one_encoding_only():
    content = b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R."
    with pytest.raises(InputError, match=r"train: not a readable pickle \(bytes as 'zip'\)"):
        load_arrays("train", content)


class Call:
    """Pickled as a call of a function, and what its result is then set to."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


ADDRESS = bytes(8)  # Of no object: NumPy reads None there. Another one would be followed.
OBJECTS = Call(np.dtype, ("V8",), (3, "|", None, ("a",), {"a": (np.dtype("u1"), 0)}, 8, 1, 0))


@pytest.mark.parametrize(
    "content",
    [
        Call(np.ndarray, ((1,), "O", ADDRESS)),
        Call(np.ndarray, ((1,), np.dtype("O"), ADDRESS)),
        Call(np.ndarray, ((2**40,), "u1", ADDRESS, 2**30)),
        Call(np.zeros(1).__reduce_ex__(5)[0], (ADDRESS, np.dtype("O"), (1,), "C")),
        Call(np.zeros(1).__reduce_ex__(5)[0], (ADDRESS, OBJECTS, (1,), "C")),
        Call(np.zeros(1).__reduce__()[0], (np.ndarray, (1,), b"O"), (1, (1,), OBJECTS, 0, ADDRESS)),
        Call(
            np.zeros(1).__reduce__()[0], (np.ndarray, (1,), b"b"), (1, (9,), np.dtype("u1"), 0, b"")
        ),
    ],
)
def test_a_pickled_array_is_not_taken_for_addresses(content):
    content = pickle.dumps({"data": content, "fine_labels": [1]}, 4)
    with pytest.raises(InputError, match="train: not a readable pickle"):
        load_arrays("train", content)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", [">i8", "<i2", "u1", "?", ">f4"])
def test_arrays_of_all_layouts_are_read(protocol, order, dtype):
    batch = {"data": PIXELS.copy(order), "fine_labels": np.array([1, 0], dtype), 3: "other"}
    read = load_arrays("train", pickle.dumps(batch, protocol))
    assert list(read) == ["data", "fine_labels", 3]
    assert np.array_equal(read["data"], PIXELS)
    assert read["data"].dtype == np.uint8
    assert read["fine_labels"].tolist() == [1, 0]
    assert read["fine_labels"].dtype == dtype
    assert read[3] == "other"


@pytest.mark.parametrize("content", [[1, 2], (), "text", None, PIXELS])
def test_what_is_not_a_dict_is_refused(content):
    with pytest.raises(InputError, match=f"train: found {type(content).__name__}, expected a dict"):
        load_arrays("train", pickle.dumps(content))


@pytest.mark.parametrize("protocol", [2, 5])
def test_every_cut_of_a_pickle_is_refused(protocol):
    content = pickle.dumps({"data": PIXELS, "labels": [1, 2]}, protocol)
    for cut in range(len(content) - 1):
        with pytest.raises(InputError, match=r"train: (not a readable|names the cl)") as caught:
            load_arrays("train", content[:cut])
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # Python hashes a nested tuple by a call within a call.
        (b"\x80\2}N" + b"\x85" * 10**6 + b"Ns.", "a tuple in a tuple in a tuple"),
        (b"cos\xc2\x85\na\x0cb\n.", "names the class os .a b, expected NumPy arrays"),
        (b"\x80\2}X\1\0\0\0aPx\ns.", "not a readable pickle"),
        (b"\x80\2}X\1\0\0\0aI" + b"9" * 5000 + b"\ns.", "Exceeds the limit"),
    ],
)
def test_bad_pickles_are_refused_in_one_line(content, message):
    assert message in refusal(lambda: load_arrays("train", content))


@pytest.mark.parametrize(
    "content",
    [
        b"r\xff\xff\xff\x0f.",  # An entry of the memo by its number.
        b"p268435455\n.",
        b"\x96" + (2**33).to_bytes(8, "little") + b"x.",  # Bytes by their number.
        b"\x95" + (2**33).to_bytes(8, "little") + b"x.",
        b"\x8d" + (2**33).to_bytes(8, "little") + b"x.",
        b"T\xff\xff\xff\x7fx.",
    ],
)
def test_a_number_in_a_pickle_takes_no_memory(content):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(lambda: load_arrays("train", b"\x80\5}" + content))
    # In KiB: less than 1 GiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


VALUES = {"data": PIXELS, "labels": [1, 2], "t": (1, (2.5, None)), "s": {3}, "b": bytearray(b"x")}
PICKLES = [pickle.dumps(VALUES, protocol) for protocol in range(6)]


@given(damaged([*PICKLES, official.cifar_pickle(PIXELS.reshape(2, 4, 4, 3), [3, 5])]))
@settings(deadline=None, max_examples=200)
def test_damaged_pickles_are_read_or_refused(content):
    refusal(lambda: load_arrays("train", content))


def text(content):
    return b"U%c%b" % (len(content), content)


CODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R"
DTYPE = b"cnumpy\ndtype\nU\2%b\x85R(K\3U\1|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
PIECES = st.sampled_from(
    [
        *CODES,
        *(
            b"c%b\n%b\n" % (module, name)
            for module in (b"numpy", b"_codecs")
            for name in (b"dtype",)
        ),
        *(
            ARRAY,
            DTYPE % b"u1",
            DTYPE % b"O8",
            DTYPE % b"M8",
            b"c_codecs\nencode\n",
            b"(K\1K\2\x85",
        ),
        *(
            b"K\1",
            b"J\xff\xff\xff\xff",
            b"q\0",
            b"h\0",
            b"I01\n",
            b"\x8c\1\x85",
            b"G" + b"\x7f" * 8,
        ),
        *map(text, [b"data", b"u1", b"O8", b"|", b"latin1", b"\xff\n"]),
    ]
)


@given(st.lists(PIECES | st.binary(max_size=4), max_size=20).map(b"".join))
@settings(deadline=None, max_examples=200)
def test_pickles_of_any_opcodes_are_read_or_refused(content):
    for before, after in ((b"\x80\5", b"."), (b"\x80\2}U\4data", b"s."), (b"\x80\2}(", b"u.")):
        refusal(lambda whole=before + content + after: load_arrays("train", whole))
