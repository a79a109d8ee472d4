import bz2
import functools
import json
import pickle
import re
import sys
from pathlib import Path

import nats_bench
import pytest

from epe_nas_jax import InputError
from epe_nas_jax.data import accuracies
from epe_nas_jax.spaces.darts.published import DARTS_V1
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.nasbench101.space import NASBENCH101
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

A = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
B = A.replace("none~2", "skip_connect~2")
C = A.replace("none~2", "nor_conv_3x3~2")

read_accuracies = functools.partial(accuracies.read_accuracies, space=NASBENCH201)


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_accuracies_by_arch_string(write, name):
    path = write(f"index,arch,top1,other\n7,{A},10,15\n3,{B},93.25,\n", name)
    assert read_accuracies(path, "top1") == {A: 10.0, B: 93.25}
    assert read_accuracies(path, "other") == {A: 15.0}


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
        (f"arch,top1\n{A},True\n", "found True"),
        (f"arch,top1\n{A.replace('none~2', 'zero~2')},10\n", "unknown operation 'zero'"),
        ("arch,top1\n,10\n", "arch string: found float"),
        ("arch,top1\n", "found no cells"),
        ("", "not a readable table"),
        ("\0\xff", "expected a column 'arch'"),
    ],
)
def test_bad_tables_are_refused(write, text, message):
    with pytest.raises(InputError, match=message):
        read_accuracies(write(text), "top1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"arch;top1\n{A};10\n{B};93,25\n", {A: 10, B: 93.25}),
        (f'arch,top1\n{A},"10,5"\n{B},"93,250"\n', {A: 10.5, B: 93.25}),
        (f"arch,top1\n{A},10%\n{B},93.25 %\n", {A: 10, B: 93.25}),
        (f"arch\ttop1\n{A}\t10,5\xa0%\n{B}\t\n", {A: 10.5}),
        (f"arch,top1\n{A},0.5%\n{B},1%\n", {A: 0.5, B: 1}),
        (f"arch,top1\n{A},0.5\n{B},1.01\n", {A: 0.5, B: 1.01}),
        (f'{{"{A}": "0,5 %", "{B}": NaN}}', {A: 0.5}),
        (f'{{"{A} ": "93.25"}}', {A: 93.25}),
        (f"arch,top1\n {A} ,n/a\n{B},\n", {}),
    ],
)
def test_accuracies_as_they_come(write, text, expected):
    assert read_accuracies(write(text), "top1") == expected


UNITS = r"top1: found accuracies from 0.1 to 0.94, expected percent, 0..100 \(multiply by 100\)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"arch,top1\n{A},0.1\n{B},0.94\n{C},\n", UNITS),
        (json.dumps({A: 0.1, B: 0.94}), UNITS),
        (f"arch,top1\n{A},1\n", "found accuracies from 1 to 1, expected percent"),
        (f"arch,top1\n{A},93%\n{B},0.94\n", "with and without a percent sign, expected one form"),
        (f"arch;top1\n{A};93,5\n{B};93.5\n", "top1: found 93,5 and 93.5, expected either"),
        (f"arch;top1\n{A};9,3,5\n", "found 9,3,5, expected accuracies in 0..100"),
        (f"arch,top1\n{A},101%\n", "found 101%, expected accuracies in 0..100"),
        (f"arch,top1\n{A},%\n", "found %, expected accuracies in 0..100"),
        (f"arch,top1,top1\n{A},10,20\n", "found column 'top1' twice"),
    ],
)
def test_accuracies_that_could_be_others_are_refused(write, text, message):
    with pytest.raises(InputError, match=message):
        read_accuracies(write(text), "top1")


def test_bad_files_are_refused(write, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_accuracies(str(tmp_path / "missing.csv"), "top1")
    path = Path(write(f"arch,top1\n{A},10\n" * 100, "table.csv.gz"))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="not a readable table"):
        read_accuracies(str(path), "top1")


@pytest.mark.parametrize(
    "content",
    [
        [{"arch": A, "top1": 10, "other": "x"}, {"top1": 93.25, "arch": B}],
        {A: {"top1": 10}, B: {"top1": 93.25, "loss": 0.1}},
        {A: 10, B: 93.25},
        [{"arch": A, "top1": 10}, {"arch": B, "top1": 93.25}, {"arch": C, "top1": None}],
    ],
)
@pytest.mark.parametrize("name", ["table.json", "table.json.gz", "table.txt"])
def test_accuracies_from_json(write, content, name):
    assert read_accuracies(write(json.dumps(content), name), "top1") == {A: 10.0, B: 93.25}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'[{{"arch": "{A}", "top5": 1}}]', "expected a key 'top1', found arch, top5"),
        ('[{"cell": "x", "top1": 1}]', "expected a key 'arch', found cell, top1"),
        (f'[{{"arch": "{A}", "top1": 1}}, {{"arch": "{A}", "top1": 1}}]', "twice"),
        (f'{{"{A}": 1, "{A}": 1}}', "twice"),
        ('{"|none~0|": 1}', "expected the form"),
        (f'{{"{A.replace("none", "zero")}": 1}}', "unknown operation 'zero'"),
        ('[{"arch": 3, "top1": 1}]', "arch string: found int"),
        (f'{{"{A}": "good"}}', "top1: found good, expected accuracies"),
        (f'{{"{A}": true}}', "top1: found True"),
        (f'{{"{A}": [1]}}', r"top1: found \[1\]"),
        (f'{{"{A}": 101}}', "top1: found 101"),
        (f'{{"{A}": Infinity}}', "top1: found inf"),
        ("[1, 2]", "found 1, expected records"),
        (f'{{"{A}": 1', "not a readable table"),
        ("[" * 100_000, "not a readable table"),
        ("[]", "found no cells"),
        ("{}", "found no cells"),
    ],
)
def test_bad_json_is_refused(write, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_accuracies(write(text, "table.json"), "top1")
    assert len(str(caught.value).splitlines()) == 1


# How DARTS_V1 begins, and the same cells with the first node's edges in the other order.
PUBLISHED = "[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
ORDERED = "[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "


def test_cells_of_another_space_are_named_as_it_names_them(write):
    ordered = DARTS_V1.replace(PUBLISHED, ORDERED)
    assert ordered != DARTS_V1
    found = accuracies.read_accuracies(
        write(json.dumps({DARTS_V1: 85.5}), "table.json"), "top1", space=DARTS
    )
    assert found == {DARTS.format(DARTS.parse(ordered)): 85.5}
    twice = write(json.dumps({DARTS_V1: 1, ordered: 2}), "table.json")
    with pytest.raises(InputError, match=r"found cell Genotype.* twice"):
        accuracies.read_accuracies(twice, "top1", space=DARTS)
    with pytest.raises(InputError, match="expected the form Genotype"):
        accuracies.read_accuracies(write(f"arch,top1\n{A},10\n"), "top1", space=DARTS)


@pytest.mark.parametrize("header", ["Adjacency,ops", "ops,adjacency"])
def test_cells_in_the_columns_of_a_benchmark(write, header):
    cells = {"Adjacency": "1", "adjacency": "1", "ops": '"input,output"'}
    row = ",".join(cells[name] for name in header.split(","))
    path = write(f"hash,{header},val\nx,{row},93\n")
    table = accuracies.read_accuracies(path, "val", space=NASBENCH101)
    assert table == {"1:input,output": 93.0}


def test_a_column_arch_comes_before_those_of_a_benchmark(write):
    path = write('arch,adjacency,ops,val\n"1:input,output",x,y,93\n')
    table = accuracies.read_accuracies(path, "val", space=NASBENCH101)
    assert table == {"1:input,output": 93.0}


def test_without_all_columns_of_a_benchmark_arch_is_expected(write):
    path = write("adjacency,val\n1,93\n")
    with pytest.raises(
        InputError, match="column 'arch', or adjacency and ops, found adjacency, val"
    ):
        accuracies.read_accuracies(path, "val", space=NASBENCH101)


def nats_results(arch_index, arch, runs):
    """One cell as NATS-Bench stores it: from (data set, seed) to accuracies by split, 2 epochs."""
    results = nats_bench.ArchResults(arch_index, arch)
    for (dataset, seed), splits in runs.items():
        epochs = {0: 1.0, 1: 50.0}
        config = {"channel": 16, "num_cells": 5, "arch_str": arch, "class_num": 10}
        run = nats_bench.ResultsCount(
            dataset, None, epochs, epochs, 1.0, 100.0, config, seed, 2, [0.01]
        )
        run.update_train_info(epochs, epochs, epochs, epochs)
        by_epoch = {f"{name}@{i}": value * i for name, value in splits.items() for i in (0, 1)}
        run.update_eval(by_epoch, by_epoch, by_epoch)
        results.update(dataset, seed, run)
    return results.state_dict()


@pytest.fixture
def nats_files(tmp_path):
    """The single file and the folder, of two cells and made by the package."""
    cells = {}
    for index, (arch, base) in enumerate(((B, 10.0), (A, 50.0))):
        runs = {
            ("cifar10", 777): {"ori-test": base},
            ("cifar10", 888): {"ori-test": base + 1},
            ("cifar10-valid", 777): {"x-valid": base + 2, "ori-test": base + 3},
            ("cifar100", 777): {"x-valid": base + 4, "x-test": base + 5, "ori-test": base + 6},
            ("ImageNet16-120", 777): {"x-valid": base + 7, "x-test": base + 8},
        }
        results = nats_results(index, arch, runs)
        cells[index] = {"12": results, "200": results}
    meta = {"meta_archs": [B, A], "evaluated_indexes": [0, 1]}
    file = tmp_path / "NATS-tss-v1_0-3ffb9.pickle"
    nats_bench.pickle_save({**meta, "arch2infos": cells}, str(file))
    folder = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
    folder.mkdir()
    nats_bench.pickle_save(meta, str(folder / "meta.pickle"))
    for index, cell in cells.items():
        nats_bench.pickle_save(cell, str(folder / f"{index:06d}.pickle"))
    return {"file": tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2", "folder": folder}


@pytest.mark.parametrize(
    ("column", "offset"),
    [
        ("cifar10_test_200", 0.5),
        ("cifar10_test_12", 0.5),
        ("cifar10_xvalid_200", 2),
        ("cifar10valid_test_200", 3),
        ("cifar100_xvalid_200", 4),
        ("cifar100_test_200", 5),
        ("imagenet16_xvalid_200", 7),
        ("imagenet16_test_200", 8),
    ],
)
@pytest.mark.parametrize("form", ["file", "folder"])
def test_accuracies_from_nats_bench(nats_files, form, column, offset):
    found = read_accuracies(str(nats_files[form]), column)
    assert found == {B: 10.0 + offset, A: 50.0 + offset}


def test_bad_nats_files_are_refused(nats_files):
    file, folder = nats_files["file"], nats_files["folder"]
    with pytest.raises(
        InputError, match=r"benchmark.column: found 'top1', expected one of cifar10"
    ):
        read_accuracies(str(file), "top1")
    for column in ("cifar10_test", "cifar10_test_", "cifar10_test_best", "cifar10_test_-1"):
        with pytest.raises(InputError, match=f"found '{column}', expected one of cifar10_test_200"):
            read_accuracies(str(file), column)
    with pytest.raises(InputError, match="not readable as NATS-Bench's files"):
        read_accuracies(str(file), "cifar10_test_90")
    (folder / "000001.pickle.pbz2").unlink()
    with pytest.raises(InputError, match="not readable as NATS-Bench's files"):
        read_accuracies(str(folder), "cifar10_test_200")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="not readable as NATS-Bench's files"):
        read_accuracies(str(file), "cifar10_test_200")


def test_what_is_wrong_with_nats_files_is_said_without_names_of_exceptions(nats_files, tmp_path):
    file, folder = nats_files["file"], nats_files["folder"]
    (tmp_path / "empty").mkdir()
    bytes_of_file = file.read_bytes()
    (folder / "000000.pickle.pbz2").unlink()
    of_a_list = tmp_path / "list.pickle.pbz2"
    of_a_list.write_bytes(bz2.compress(pickle.dumps([1])))
    cut = tmp_path / "cut.pbz2"
    cut.write_bytes(bytes_of_file[:100])
    text = tmp_path / "text.pbz2"
    text.write_text("arch,top1\n")
    either = r"expected NATS-tss-v1_0-\*.pickle.pbz2 or the folder NATS-tss-v1_0-\*-simple"
    for path, column, message in (
        (
            tmp_path / "empty",
            "cifar10_test_200",
            "empty: found a folder without meta.pickle.pbz2, "
            r"expected NATS-Bench's folder NATS-tss-v1_0-\*-simple or a table",
        ),
        (folder, "cifar10_test_200", "expected cell 0 trained on cifar10 for 200 epochs"),
        (file, "cifar100_test_90", "files, expected cell 0 trained on cifar100 for 90 epochs"),
        (of_a_list, "cifar10_test_200", either),
        (cut, "cifar10_test_200", either),
        (text, "cifar10_test_200", either),
        (tmp_path / "no.pbz2", "cifar10_test_200", "no such file, expected a table of accuracies"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_accuracies(str(path), column)
        assert len(str(caught.value).splitlines()) == 1
        assert not re.search(r"(Error|Exception)\b", str(caught.value))


def test_without_the_package_its_name_is_said(nats_files, monkeypatch):
    monkeypatch.setitem(sys.modules, "nats_bench", None)
    with pytest.raises(InputError, match=r"pip install 'epe_nas_jax\[nats\]'"):
        read_accuracies(str(nats_files["file"]), "cifar10_test_200")
