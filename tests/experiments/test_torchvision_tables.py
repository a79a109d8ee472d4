"""What untrained networks of torchvision are compared with, and how."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from epe_nas_jax.networks.columns import NETWORK_COLUMNS
from experiments import torchvision_tables


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("resnet18", "resnet"),
        ("wide_resnet50_2", "resnet"),
        ("resnext101_32x8d", "resnet"),
        ("efficientnet_b7", "efficientnet"),
        ("efficientnet_v2_s", "efficientnet_v2"),
        ("regnet_x_1_6gf", "regnet_x"),
        ("regnet_y_400mf", "regnet_y"),
        ("swin_v2_t", "swin_v2"),
        ("vit_b_16", "vit"),
        ("vgg11_bn", "vgg"),
        ("inception_v3", "googlenet"),
    ],
)
def test_families(name, family):
    assert torchvision_tables.family_of(name) == family


def test_accuracies_are_those_of_the_weights_of_imagenet():
    pytest.importorskip("torchvision", exc_type=ImportError)
    found = torchvision_tables.accuracies(["resnet18", "resnet50", "vit_h_14"])
    # torchvision's documentation says 69.76, 76.13 and 80.86; ViT-H has seen more images.
    assert found["first"].round(2).to_dict() == {"resnet18": 69.76, "resnet50": 76.13}
    assert found["best"].round(2).to_dict() == {"resnet18": 69.76, "resnet50": 80.86}


def test_order_within_families_is_the_tau_of_one_family_and_of_pairs_of_several():
    rng = np.random.default_rng(0)
    scores, trained = rng.normal(size=(2, 12))
    one = torchvision_tables.within_families(scores, trained, np.zeros(12, int))
    assert one == pytest.approx(stats.kendalltau(scores, trained).statistic)
    families = np.arange(12) // 6
    halves = [
        stats.kendalltau(scores[part], trained[part]).statistic for part in (slice(6), slice(6, 12))
    ]
    both = torchvision_tables.within_families(scores, trained, families)
    assert both == pytest.approx(np.mean(halves))


def test_the_tables_have_a_line_a_method_and_a_family():
    names = [f"vgg{number}" for number in range(5)] + ["alexnet"]
    rng = np.random.default_rng(0)
    signals = pd.DataFrame(
        {name: rng.normal(size=6) for name in NETWORK_COLUMNS}, index=names
    ).assign(params=np.arange(6))
    trained = pd.DataFrame(
        {
            "first": 50.0 + np.arange(6),
            "best": 60.0 - np.arange(6),
            "family": list(map(torchvision_tables.family_of, names)),
        },
        index=names,
    )
    methods = torchvision_tables.methods_table(signals, trained)
    (line,) = [row for row in methods.rows if row[0] == "params"]
    assert line[1].startswith("1.000")
    assert line[3].startswith("-1.000")
    assert line[5].startswith("0.000")
    assert line[6].startswith("1.000")
    families = torchvision_tables.families_table(signals, trained)
    assert [row[:3] for row in families.rows] == [["vgg", "5", "1.00"]]
    best = torchvision_tables.best_sums(signals, trained)
    assert best.rows[0][1] == "1.000"
