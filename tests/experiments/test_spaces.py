import numpy as np
import pandas as pd

from epe_nas_jax import COMMON_RANKING
from epe_nas_jax.spaces.darts.published import DARTS_V1
from epe_nas_jax.spaces.darts.space import DARTS
from experiments.spaces import COUNTS, SIGNALS, read_scores, texts_of

SCORES = "results/nasbench101_zc_fast.csv.gz"


def test_scores_come_in_the_order_of_the_cells_with_all_counts_beside_them():
    table = pd.read_csv(SCORES).sample(6, random_state=0)
    archs = [*table["arch"], table["arch"].iloc[0]]
    scores = read_scores(SCORES, archs, "nasbench101")
    assert list(scores.index) == archs
    assert {*SIGNALS, *COUNTS, *COMMON_RANKING} <= set(scores)
    assert np.array_equal(scores["jacob_cov"][:6], table["jacob_cov"])
    assert (scores["all_wide_convs"] == [arch.count("conv3x3") for arch in archs]).all()


def test_a_cell_is_named_by_arch_or_by_the_columns_of_its_space():
    text = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    assert texts_of(pd.DataFrame({"arch": [text, text]}), "nasbench201") == [text, text]
    assert texts_of(pd.DataFrame({"genotype": [DARTS_V1]}), "darts") == [
        DARTS.format(DARTS.parse(DARTS_V1))
    ]
    table = pd.DataFrame({"adjacency": ["101-11-1"], "ops": ["input,maxpool3x3,maxpool3x3,output"]})
    assert texts_of(table, "nasbench101") == ["101-11-1:input,maxpool3x3,maxpool3x3,output"]
