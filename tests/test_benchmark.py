import gzip
from pathlib import Path

import pytest

from epe_nas_jax import InputError
from epe_nas_jax.benchmark import read_accuracies

A = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
B = A.replace("none~2", "skip_connect~2")


@pytest.fixture
def write(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        return str(path)

    return write


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_accuracies_by_arch_string(write, name):
    path = write(f"index,arch,top1,other\n7,{A},10,1\n3,{B},93.25,\n", name)
    assert read_accuracies(path, "top1") == {A: 10.0, B: 93.25}
    assert read_accuracies(path, "other") == {A: 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"arch,top5\n{A},10\n", "expected a column 'top1', found arch, top5"),
        ("cell,top1\nx,10\n", "expected a column 'arch', found cell, top1"),
        (f"arch,top1\n{A},10\n{A},11\n", "twice"),
        ("arch,top1\n|none~0|,10\n", "expected the form"),
        (f"arch,top1\n{A},good\n", "found good, expected accuracies in 0..100"),
        (f"arch,top1\n{A},930\n", "found 930"),
        (f"arch,top1\n{A},-1\n", "found -1"),
        ("", "not a readable CSV table"),
    ],
)
def test_bad_tables_are_refused(write, text, message):
    with pytest.raises(InputError, match=message):
        read_accuracies(write(text), "top1")


def test_bad_files_are_refused(write, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_accuracies(str(tmp_path / "missing.csv"), "top1")
    with pytest.raises(InputError, match="not a readable CSV table"):
        read_accuracies(str(tmp_path), "top1")
    path = Path(write(f"arch,top1\n{A},10\n" * 100, "table.csv.gz"))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="not a readable CSV table"):
        read_accuracies(str(path), "top1")
