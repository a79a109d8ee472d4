import numpy as np
import pandas as pd
import pytest

from experiments.spaces import COMMON, COUNTS, SIGNALS, read_scores, texts_of

SCORES = "results/nasbench101_zc_fast.csv.gz"


def test_scores_come_in_the_order_of_the_cells_with_all_counts_beside_them():
    table = pd.read_csv(SCORES).sample(6, random_state=0)
    archs = [*table["arch"], table["arch"].iloc[0]]
    scores = read_scores(SCORES, archs, "nasbench101")
    assert list(scores.index) == archs
    assert {*SIGNALS, *COUNTS, *COMMON} <= set(scores)
    assert np.array_equal(scores["jacob_cov"][:6], table["jacob_cov"])
    assert (scores["all_wide_convs"] == [arch.count("conv3x3") for arch in archs]).all()


@pytest.mark.parametrize("name", ["arch", "genotype"])
def test_a_cell_is_named_by_a_column_or_by_matrix_and_labels(name):
    text = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    assert texts_of(pd.DataFrame({name: [text, text]}), "nasbench201") == [text, text]
    table = pd.DataFrame({"adjacency": ["101-11-1"], "ops": ["input,maxpool3x3,maxpool3x3,output"]})
    assert texts_of(table, "nasbench101") == ["101-11-1:input,maxpool3x3,maxpool3x3,output"]
