import functools
import json

import numpy as np
import pytest

from epe_nas_jax import InputError
from epe_nas_jax.data import score_files
from epe_nas_jax.data.score_files import beside_published, with_accuracies
from epe_nas_jax.spaces.darts.published import DARTS_V1, DARTS_V2
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

A = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
B = A.replace("none~2", "skip_connect~2")
C = A.replace("none~2", "avg_pool_3x3~2")
D = A.replace("none~1", "skip_connect~1")

read_scores = functools.partial(score_files.read_scores, space=NASBENCH201)
read_published = functools.partial(score_files.read_published, space=NASBENCH201)


@pytest.mark.parametrize("name", ["scores.csv", "scores.csv.gz"])
def test_scores_with_further_proxies(write, name):
    path = write(f"arch,params,score,note,accuracy\n{A},5,,x,10\n{B},6,2.5,y,20\n", name)
    scores = read_scores(path)
    assert list(scores) == ["score", "params"]
    assert list(scores.index) == [A, B]
    assert np.array_equal(scores.to_numpy(), [[np.nan, 5], [2.5, 6]], equal_nan=True)


def test_what_only_cells_scored_again_have_is_no_proxy(write):
    head = "arch,score,search_score,refined_score,nwot,refined_nwot"
    scores = read_scores(write(f"{head}\n{A},0.5,3,,7,\n{B},1,4,9,8,80\n"))
    assert scores.to_dict("list") == {"score": [0.5, 1], "nwot": [7, 8]}


@pytest.mark.parametrize(
    "text",
    [
        f"{A};0.5;7;x;10\n{B};2.25;;;20\n",
        f"{A}; 0,5 ;7;x;10.5\n{B};2,25;NaN;;20\n",
        f"{A},0.5,7,x,10%\n {B} ,2.25,n/a,,20%\n",
        f'{A}\t"0,5"\t7,0\t1,2,3\t1\n{B}\t2,25\t\t5\t2\n',
    ],
)
def test_scores_as_they_come(write, text):
    separator = next(mark for mark in ("\t", ";", ",") if mark in text)
    header = separator.join(("ARCH", " Score", "Zen", "note", "Accuracy"))
    scores = read_scores(write(f"{header}\n{text}"))
    assert list(scores) == ["score", "Zen"]
    assert list(scores.index) == [A, B]
    assert np.array_equal(scores.to_numpy(), [[0.5, 7], [2.25, np.nan]], equal_nan=True)


def test_scores_from_json(write):
    records = [{"arch": A, "score": 0.5, "zen": 7}, {"arch": B, "score": None}]
    for text in (json.dumps(records), "\n".join(map(json.dumps, records))):
        scores = read_scores(write(text))
        assert list(scores) == ["score", "zen"]
        assert np.array_equal(scores.to_numpy(), [[0.5, 7], [np.nan, np.nan]], equal_nan=True)
    assert read_scores(write(json.dumps({A: 0.5, B: 2})))["score"].to_dict() == {A: 0.5, B: 2}
    with pytest.raises(InputError, match="found 1, expected records with a key 'arch'"):
        read_published(write(json.dumps({A: 1})), "x")


def test_one_comma_that_is_decimal_says_what_the_others_are(write):
    scores = read_scores(write(f"arch;score;params\n{A};1234,5;559,386\n"))
    assert scores.to_numpy().tolist() == [[1234.5, 559.386]]


def test_a_column_without_a_name_is_no_proxy(write):
    assert list(read_scores(write(f",arch,score\n0,{A},1\n"))) == ["score"]


def test_an_infinite_proxy_is_no_score(write):
    scores = read_scores(write(f"arch,score,nwot\n{A},1,-inf\n{B},2,3\n"))
    assert np.array_equal(scores["nwot"], [np.nan, 3], equal_nan=True)


def test_a_cell_drawn_twice_is_there_once(write):
    scores = read_scores(write(f"arch,score\n{A},\n{B},2\n{A},\n{B},2\n"))
    assert list(scores.index) == [A, B]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arch,accuracy\n", "expected a column 'score', found"),
        ("cell,score\n", "expected a column 'arch', found cell, score"),
        (f"arch,score\n{A},high\n", "score: found text, expected numbers"),
        (f"arch,score\n{A},inf\n", "score: found inf"),
        (f"arch,score\n{A},1\n{A},2\n", "two different scores of"),
        (f"arch,score\n{A},1\n{A},\n", "two different scores of"),
        ("arch,score\n|none~0|,1\n", "expected the form"),
        ("arch,score\n,1\n", "expected a str"),
        ("", "not a readable table"),
        ("arch,score\n", "found no cells, expected scores"),
        (f"arch,score\n{A},True\n", "score: found text, expected numbers: True"),
        (f'arch,score\n{A},"1,5"\n', "score: found text, expected numbers: 1,5"),
        (f"arch,score,score\n{A},1,2\n", "found column 'score' twice, expected it once"),
        (f"arch,Score,SCORE\n{A},1,2\n", r"found column 'score' twice \(Score, SCORE\)"),
        (f"arch,score,zen,zen\n{A},1,2,3\n", "found column 'zen' twice, expected it once"),
        (f"arch;score\n{A};1,5\n{B};2.5\n", "found 1,5 and 2.5, expected either decimal commas"),
        (f"arch;score;zen\n{A};1,5;559.386\n", "found 1,5 and 559.386, expected either"),
        (f"arch,score,zen\n{A},1,2\n{B},2,oops\n{C},3,4\n", "zen: found 'oops' among numbers"),
        (f"arch,score,=A1\n{A},1,2\n", "found a column '=A1', expected a name, no formula"),
        (f"arch;score;zen\n{A};1;559,386\n", "found 559,386, whose comma may separate thousands"),
    ],
)
def test_bad_scores_are_refused(write, text, message):
    with pytest.raises(InputError, match=message):
        read_scores(write(text))


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_scores(str(tmp_path / "missing.csv"))
    with pytest.raises(InputError, match="found a folder, expected a table of scores"):
        read_scores(str(tmp_path))


def test_published_scores_of_a_data_set(write):
    rows = f"Some-Set,0,{A},1,-100000000\nother,0,{A},5,6\nSome-Set,1,{B},3,4\n"
    path = write(f"dataset,index,arch,zen,jacov\n{rows}")
    published = read_published(path, "some_set")
    assert list(published) == ["zen", "jacov"]
    assert np.array_equal(published.to_numpy(), [[1, np.nan], [3, 4]], equal_nan=True)
    assert read_published(path, "cifar10") is None
    with pytest.raises(InputError, match="twice"):
        read_published(write(f"dataset,arch,zen\nx,{A},1\nx,{A},1\n"), "x")
    with pytest.raises(InputError, match="expected a column 'dataset'"):
        read_published(write(f"arch,zen\n{A},1\n"), "x")
    others = read_published(write(f"Dataset;Arch;Zen\nX-1; {A};1,5\n;{B};2\n"), "x_1")
    assert others.to_dict() == {"Zen": {A: 1.5}}
    with pytest.raises(InputError, match="found column 'zen' twice"):
        read_published(write(f"dataset,arch,zen,zen\nx,{A},1,2\n"), "x")


def test_cells_of_another_space_are_named_as_it_names_them(write):
    names = [DARTS.format(DARTS.parse(text)) for text in (DARTS_V1, DARTS_V2)]
    assert names[0] != DARTS_V1
    rows = f'"{DARTS_V1}",1\n"{DARTS_V2}",2\n"{names[0]}",1\n'
    scores = score_files.read_scores(write(f"arch,score\n{rows}"), space=DARTS)
    assert list(scores.index) == names
    assert scores["score"].tolist() == [1, 2]
    path = write(f'dataset,arch,zen\nx,"{DARTS_V1}",3\n')
    published = score_files.read_published(path, "x", space=DARTS)
    assert published["zen"].to_dict() == {names[0]: 3}
    path = write(f"arch,score\n{A},1\n")
    with pytest.raises(InputError, match=f"{path}: cell 1: genotype .* expected the form Genotype"):
        score_files.read_scores(path, space=DARTS)


def test_cells_keep_their_order_and_need_every_accuracy(write):
    scores = read_scores(write(f"arch,score\n{C},3\n{A},\n{D},1\n{B},2\n"))
    accuracies = {"test": {A: 10.0, B: 20.0, C: 30.0, D: 35.0}, "validation": {B: 2.0, A: 1, C: 3}}
    cells = with_accuracies("x", scores, accuracies)
    assert list(cells.scores.index) == list(cells.accuracies.index) == [C, A, B]
    assert np.array_equal(cells.scores["score"], [3, np.nan, 2], equal_nan=True)
    assert cells.accuracies["test"].tolist() == [30, 10, 20]
    assert cells.accuracies["validation"].tolist() == [3, 1, 2]
    assert cells.best_known == {"test": 30, "validation": 3}
    with pytest.raises(InputError, match="x: found no scored cell with an accuracy"):
        with_accuracies("x", scores, {"test": {}})


def test_the_same_cells_are_those_that_every_proxy_scores(write):
    scores = read_scores(write(f"arch,score\n{C},3\n{A},\n{D},1\n{B},2\n"))
    cells = with_accuracies("x", scores, {"test": {A: 10.0, B: 20.0, C: 30.0, D: 35.0}})
    rows = f"x,{B},7,1\nx,{A},8,1\nx,{C},9,1\nx,{D},5,-1e8\n"
    published = read_published(write(f"dataset,arch,epe_nas,zen\n{rows}"), "x")
    common = beside_published(cells, published)
    assert list(common.scores) == ["score", "epe_nas (published)", "zen (published)"]
    assert list(common.scores.index) == list(common.accuracies.index) == [C, B]
    assert common.scores["epe_nas (published)"].tolist() == [9, 7]
    assert common.accuracies["test"].tolist() == [30, 20]
