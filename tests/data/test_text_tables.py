import bz2
import codecs
import gzip
import io
import json
import lzma
import math
import os
import re
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_inputs import damaged
from refusals import refusal

from epe_nas_jax import InputError
from epe_nas_jax.data.accuracies import read_accuracies
from epe_nas_jax.data.score_files import read_published, read_scores
from epe_nas_jax.data.text_tables import number, read_header, read_table
from epe_nas_jax.spaces.darts.published import DARTS_V1, DARTS_V2
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.nasbench201.genotype import decode, format_arch
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

A = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
B = A.replace("none~2", "skip_connect~2")
PLAIN = f"arch,top1,other\n{A},10,x\n{B},93.25,y\n"
CELLS = {"arch": [A, B], "top1": ["10", "93.25"]}


def zipped(*members, **options):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def with_password(archive):
    """The archive with the flag that says so, in both places where a member has flags."""
    local, central = archive.index(b"PK\3\4") + 6, archive.index(b"PK\1\2") + 8
    return bytes(byte | (place in (local, central)) for place, byte in enumerate(archive))


COMPRESSED = {
    "none": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": lambda content: zipped(("folder/table.csv", content)),
    "zip of a Mac": lambda content: zipped(
        ("folder/", b""), ("folder/t.csv", content), ("__MACOSX/folder/._t.csv", b"x"), (".a", b"y")
    ),
}
ENCODED = {
    "UTF-8": str.encode,
    "UTF-8 with a byte order mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16 of the other order": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
}


@pytest.fixture
def put(tmp_path):
    """Writes a file, text as UTF-8, and returns its path."""

    def put(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return put


def columns_of(path, wanted=("arch", "top1"), **options):
    return dict(read_table(path, wanted, expected="a table", **options).columns)


@pytest.mark.parametrize("name", ["table", "table.json", "table.csv.gz", "table.csv.zip"])
@pytest.mark.parametrize("form", COMPRESSED)
def test_what_compresses_a_table_its_content_says(put, form, name):
    assert columns_of(put(COMPRESSED[form](PLAIN.encode()), name)) == CELLS


@pytest.mark.parametrize("encoding", ENCODED)
def test_encodings(put, encoding):
    encode = ENCODED[encoding]
    assert columns_of(put(encode(PLAIN))) == CELLS
    text = json.dumps({A: 10, B: 93.25})
    assert read_accuracies(put(encode(text)), "top1", space=NASBENCH201) == {A: 10, B: 93.25}


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.strip(),
        PLAIN.replace(",", " , ").replace("\n", " \n "),
        PLAIN.replace(",", " ; "),
        PLAIN.replace(",", '","').replace("\n", '"\n"')[:-1].join('""')[:-1],
        PLAIN.replace("\n", "\n\n").replace("arch", "\n \narch"),
        PLAIN.replace("\n", "\n,,\n"),
        ";;\n" + PLAIN.replace(",", ";"),
        PLAIN.replace("\n", ",\n"),
        PLAIN.replace("x\n", "x,,\n"),
        PLAIN.replace(",x", "").replace(",y", ""),
        f"top1;arch\n10;{A}\n93.25;{B}",
        f'"arch" ; "top1"\n"{A}" ; "10"\n "{B}" ; "93.25" \n',
        f"other,other,arch,top1\n1,2,{A},10\n3,4,{B},93.25\n",
        f"Arch,TOP1\n{A},10\n{B},93.25\n",
        f"TOP1,ARCH,top1,Top1\n1,{A},10,1\n1,{B},93.25,2\n",
        f'a;"b, c";arch;top1\n1;2;{A};10\n1;2;{B};93.25\n',
    ],
)
def test_forms_of_csv(put, text):
    assert columns_of(put(text)) == CELLS


@pytest.mark.parametrize("spaces", ["", " "])
def test_forms_of_json(put, spaces):
    first, second = (
        {f"{spaces}Arch": f"{cell}{spaces}", f"TOP1{spaces}": value}
        for cell, value in ((A, 10), (B, f"{spaces}93.25"))
    )
    by_cell = {f"{spaces}{A}": 10, B: "93.25"}
    for text in (
        json.dumps([first, second]),
        f"{json.dumps(first)}\n{json.dumps(second)}",
        f"\n{json.dumps(first)}\r\n\r\n{json.dumps(second)}\n",
        json.dumps(by_cell),
        json.dumps({cell: {"Top1 ": value} for cell, value in by_cell.items()}, indent=1),
    ):
        found = columns_of(put(text), value_name="top1")
        assert found == {"arch": [A, B], "top1": [10, "93.25"]}
    assert columns_of(put(json.dumps(first))) == {"arch": [A], "top1": [10]}


def test_the_column_of_an_objects_values_needs_no_name(put):
    path = put(json.dumps({A: 10}))
    assert read_accuracies(path, "", space=NASBENCH201) == {A: 10}
    with pytest.raises(InputError, match=r"table.csv: found 10, expected records with a key"):
        columns_of(path)
    with pytest.raises(InputError, match="expected a column '', found arch, , top1"):
        read_accuracies(put(f"arch,,top1\n{A},5,10\n"), "", space=NASBENCH201)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"not a readable table \(found nothing in it\), expected CSV or JSON in UTF-8"),
        (" \n\t\n", r"not a readable table \(found nothing in it\)"),
        ("\xe9\xe8".encode("latin-1"), "found no text, expected CSV or JSON in UTF-8"),
        (codecs.BOM_UTF16_LE + b"a", "found no text, expected CSV or JSON"),
        (b"\x89PNG\r\n\x1a\n\0\0", "found no text, expected CSV or JSON"),
        (zipped(), "found a zip archive of 0 files .*expected one file, CSV or JSON"),
        (zipped(("a.csv", PLAIN), ("b.csv", "")), "found a zip archive of 2 files"),
        (
            zipped(("[Content_Types].xml", ""), ("xl/workbook.xml", ""), ("xl/styles.xml", "")),
            r"a zip archive of 3 files \(an Excel workbook is one, too\)",
        ),
        (with_password(zipped(("a.csv", PLAIN))), "encrypted zip archive, expected one without a"),
        (gzip.compress(PLAIN.encode())[:40], r"not a readable table \(broken gzip: "),
        (bz2.compress(PLAIN.encode())[:40], r"not a readable table \(broken bzip2: "),
        (lzma.compress(PLAIN.encode())[:40], r"not a readable table \(broken xz: "),
        (zipped(("a.csv", PLAIN))[:40], r"not a readable table \(broken zip: "),
        (gzip.compress(b"\x89PNG"), "found no text"),
        ("arch;cell\tx,y\n", "expected a column 'top1', found arch, cell\tx,y"),
        (f"arch top1\n{A} 10\n", "expected a column 'arch', found arch top1"),
        (f"arch,top1,Top1,top1\n{A},1,2,3\n", "found column 'top1' twice, expected it once"),
        (f"arch,Top1,TOP1\n{A},1,2\n", r"found column 'top1' twice \(Top1, TOP1\)"),
        (f"arch,Arch ,arch,top1\n{A},{A},{A},2\n", "found column 'arch' twice"),
        (f"arch,top1\n{A},93,25\n", "line 2: found 3 cells, expected 2"),
        (f'arch,top1\n\n"{A}\n",1\n{A},1,2,3\n', "line 5: found 4 cells, expected 2"),
        (f'arch,top1\n{A},"10\n{B},20\n', "a quote that is not closed"),
        ("arch,top1\n" + "x" * 200_000, r"not a readable table \(field larger than"),
        (f'{{"arch": "{A}", "top1": 1}}\n{{"arch": "{B}"', r"line 2: Expecting .*, expected CSV"),
        (f'{{"arch": "{A}", "top1": 1}}\n[]', r"found \[\], expected records with a key 'arch'"),
        (f'{{"arch": "{A}", "top1": 1}}\n{{"arch": "{B}"}}', "expected a key 'top1', found arch"),
        (f'{{"arch": "{A}", "arch": "{B}", "top1": 1}}', "found key 'arch' twice, expected it"),
        (f'[{{"Arch": "{A}", "ARCH": "{B}", "top1": 1}}]', r"found key 'arch' twice \(Arch, ARCH"),
        (f'[{{"arch": "{A}", "top1": 1, " top1": 2}}]', "found key 'top1' twice"),
        ('{"arch": ' + "1" * 5000 + "}", r"not a readable table \(Exceeds the limit"),
    ],
)
def test_bad_tables_are_refused_in_one_line(put, content, message):
    with pytest.raises(InputError, match=message) as caught:
        columns_of(put(content))
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert len(line) < 700


def test_only_regular_files_are_read(tmp_path):
    for path, found in ((tmp_path, "found a folder"), (tmp_path / "no.csv", "no such file")):
        for read in (read_header, lambda path, **options: read_table(path, ["arch"], **options)):
            with pytest.raises(InputError, match=f"{found}, expected a table"):
                read(str(path), expected="a table")


def test_the_home_directory_is_found_and_a_pipe_is_not_waited_for(put, tmp_path, monkeypatch):
    put(f"arch,top1,score\n{A},10,1\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_accuracies("~/table.csv", "top1", space=NASBENCH201) == {A: 10}
    assert list(read_scores("~/table.csv", space=NASBENCH201).index) == [A]
    for name in ("pipe", "pipe.pbz2"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(InputError, match="found a pipe or a device, expected a table of acc"):
            read_accuracies(f"~/{name}", "cifar10_test_200", space=NASBENCH201)


def test_other_columns_must_be_there_once(put):
    text = f",arch,score,zen,Zen\n0,{A},1,2,3\n"
    found = columns_of(put(text), ("arch", "score"), others=True)
    assert found == {"arch": [A], "score": ["1"], "zen": ["2"], "Zen": ["3"]}
    with pytest.raises(InputError, match="found column 'zen' twice, expected it once"):
        columns_of(put(text.replace("Zen", "zen ")), ("arch", "score"), others=True)
    lines = f'{{"arch": "{A}", "score": 1, "zen": 2}}\n{{"arch": "{B}", "score": 1, "x": 3}}'
    found = columns_of(put(lines), ("arch", "score"), others=True)
    assert found == {"arch": [A, B], "score": [1, 1], "zen": [2, None], "x": [None, 3]}


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("arch,top1, Other ,\n", ["arch", "top1", "Other", ""]),
        ("top1;ARCH;a,b,c\n", ["top1", "ARCH", "a,b,c"]),
        ("arch\ttop1\n1,2,3", ["arch", "top1"]),
        (gzip.compress(b"top1,top5"), ["top1", "top5"]),
        ('[{"arch": "x", " top1": 1}, {"other": 2}]', ["arch", "top1"]),
        ('{"arch": "x", "top1": 1}\n{}', ["arch", "top1"]),
        ('{"x": {"top1": 1}}', ["top1", "arch"]),
        ('{"x": 1}', ["arch", ""]),
        ("[]", []),
    ],
)
def test_headers(put, content, names):
    assert read_header(put(content), expected="a table") == names


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("93.25", 93.25),
        ("+.5e-3", 0.0005),
        ("-5.", -5),
        ("1E2", 100),
        ("-inf", -math.inf),
        ("Infinity", math.inf),
        ("1e999", math.inf),
        ("93,25", 93.25),
        ("-,5", -0.5),
        (7, 7),
        (np.float32(0.5), 0.5),
        *[(text, None) for text in ("", "x", "0x10", "1_0", "\u0661", "1 0", "1,2,3", "1,2.3")],
        *[(value, None) for value in (True, [1], {}, 10**400, 1j)],
    ],
)
def test_numbers_are_read_exactly_or_not_at_all(cell, value):
    assert number(cell, decimal_comma=True) == value
    if isinstance(cell, str) and "," in cell:
        assert number(cell, decimal_comma=False) is None


def test_missing_cells_are_no_numbers(put):
    cells = ["", "NaN", "nan", "NULL", "null", "None", "n/a", "N/A", "NA", "<NA>", "#N/A", "-nan"]
    text = "arch,top1\n" + "".join(f"x,{cell} \n" for cell in cells)
    for path in (put(text), put(json.dumps([{"arch": "x", "top1": cell} for cell in cells]))):
        found = columns_of(path)["top1"]
        assert len(found) == len(cells)
        assert all(math.isnan(number(cell, decimal_comma=False)) for cell in found)
    assert math.isnan(number(None, decimal_comma=False))


def table_of(rows, separator, quote=False):
    """CSV, cells in quotes where they must be or, with `quote`, everywhere."""
    return "".join(
        separator.join(
            f'"{cell}"' if quote or separator in cell or "'" in cell else cell for cell in row
        )
        + "\n"
        for row in rows
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("quote", [False, True])
def test_genotypes_with_commas_in_them(put, separator, quote):
    rows = [("arch", "score"), (DARTS_V1, "1"), (f" {DARTS_V2} ", "2")]
    path = put(table_of(rows, separator, quote))
    names = [DARTS.format(DARTS.parse(text)) for text in (DARTS_V1, DARTS_V2)]
    assert read_scores(path, space=DARTS)["score"].to_dict() == dict(
        zip(names, (1, 2), strict=True)
    )


def cased(draw, text):
    """The text, with some letters in the other case."""
    return "".join(
        letter.swapcase() if swap else letter
        for letter, swap in zip(
            text, draw(st.lists(st.booleans(), min_size=len(text), max_size=len(text))), strict=True
        )
    )


@st.composite
def written(draw):
    """Accuracies by cell, and a file that has them."""
    codes = draw(st.lists(st.integers(0, 15_624), min_size=1, max_size=6, unique=True))
    cells = [format_arch(cell) for cell in np.asarray(decode(np.array(codes)))]
    sign = draw(st.sampled_from(["", "%", " %"]))
    values = draw(
        st.lists(st.floats(0 if sign else 1.5, 100), min_size=len(cells), max_size=len(cells))
    )
    separator = draw(st.sampled_from([",", ";", "\t"]))
    mark = draw(st.sampled_from(".,"))
    space = draw(st.sampled_from(["", " "]))
    names = [space + cased(draw, name) for name in ("arch", "top1", "other")]
    rows = [
        (f"{cell}{space}", f"{space}{value!r}".replace(".", mark) + sign, "1.5")
        for cell, value in zip(cells, values, strict=True)
    ]
    order = draw(st.permutations(range(3)))
    text = table_of(
        [[row[i] for i in order] for row in (names, *rows)], separator, draw(st.booleans())
    )
    encode = ENCODED[draw(st.sampled_from(list(ENCODED)))]
    compress = COMPRESSED[draw(st.sampled_from(list(COMPRESSED)))]
    return dict(zip(cells, values, strict=True)), compress(encode(text))


@given(written())
@settings(max_examples=200, deadline=None)
def test_accuracies_are_read_as_they_were_written(tmp_path_factory, case):
    accuracies, content = case
    path = tmp_path_factory.getbasetemp() / "written"
    path.write_bytes(content)
    assert read_accuracies(str(path), "top1", space=NASBENCH201) == accuracies


def read_every_way(folder, content):
    """Each reader gives a result or one line that names no exception."""
    path = folder / "fuzzed"
    path.write_bytes(content)
    for read in (
        lambda: read_accuracies(str(path), "top1", space=NASBENCH201),
        lambda: read_accuracies(str(path), "top1", space=DARTS),
        lambda: read_scores(str(path), space=NASBENCH201),
        lambda: read_published(str(path), "x", space=NASBENCH201),
        lambda: read_header(str(path), expected="a table"),
    ):
        assert not re.search(r"[a-z](Error|Exception|Warning)\b", refusal(read))


WORDS = (
    *("arch", "top1", "score", "dataset", "x", A, B, DARTS_V1, "Genotype(", "10", "93,25", "93.25"),
    *('"', ",", ";", "\t", "\n", "\r", "{", "}", "[", "]", ":", "%", " ", "nan", "inf", "true"),
    *("null", "1e999", "-", "\0", "\u2028", "\\ud800", "\x1c", "'"),
)
PRESS = st.sampled_from(list(COMPRESSED.values()))
MAGIC = st.sampled_from(
    [b"\x1f\x8b\x08\0", b"BZh9", b"\xfd7zXZ\0", b"PK\3\4", b"PK\5\6", b"\xff\xfe", b"\xef\xbb\xbf"]
)


@given(
    st.binary(max_size=200)
    | st.builds(bytes.__add__, MAGIC, st.binary(max_size=100))
    | st.builds(
        lambda words, press: press("".join(words).encode()),
        st.lists(st.sampled_from(WORDS), max_size=30),
        PRESS,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path_factory, content):
    read_every_way(tmp_path_factory.getbasetemp(), content)


VALID = [
    f"dataset,arch,top1,score\nx,{A},10,5.5\nx,{B},93.25,\n",
    f"dataset;Arch;TOP1;score\nx;{A} ;10,5 %;1,5\nx;{B};93,25%;2,75\n",
    f'arch,top1\n"{DARTS_V1}",97\n',
    json.dumps([{"arch": A, "top1": 10, "score": 1, "dataset": "x"}] * 2),
    f'{{"arch": "{A}", "top1": 10}}\n{{"arch": "{B}", "top1": 20}}\n',
    json.dumps({A: 10, B: 93.25}),
    json.dumps({A: {"top1": 10, "dataset": "x", "score": None}}),
]


ENCODED_VALID = [encode(text) for text in VALID for encode in ENCODED.values()]


@given(
    damaged([press(content) for press in COMPRESSED.values() for content in ENCODED_VALID])
    | st.builds(lambda press, content: press(content), PRESS, damaged(ENCODED_VALID))
)
@settings(max_examples=200, deadline=None)
def test_damaged_tables_are_read_or_refused_in_one_line(tmp_path_factory, content):
    read_every_way(tmp_path_factory.getbasetemp(), content)
