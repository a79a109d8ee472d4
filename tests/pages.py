"""What tests of pages share: reading them, and strings and runs to make them of."""

import importlib
import json
import re
from html.parser import HTMLParser

import jax
import numpy as np
from scipy.stats import rankdata

from epe_nas_jax.reports import comparison_page, comparison_plots, search_page, training_page
from epe_nas_jax.reports.mistakes import Mistakes
from epe_nas_jax.search.ranking import pareto_front
from epe_nas_jax.spaces.nasbench201.genotype import decode
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&"


CELL = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += "" if self.lasttag == "style" else data


def table_below(text, heading):
    """The first table below a heading, as lists of the text in its cells, a list for each row."""
    table = text.split(f"<h2>{heading}</h2>")[1].split("</table>")[0]
    rows = [re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", row) for row in table.split("</tr>")]
    return [row for row in rows if row]


def installed_config(name, **overrides):
    """An installed config in JSON's types, with other values by keys such as `data.name`."""
    config = importlib.import_module(f"epe_nas_jax.configs.{name}").get_config()
    config.update_from_flattened_dict(overrides)
    return json.loads(config.to_json())


def provenance_of(config, version="1.2"):
    """The content of `config.json` of a made run."""
    return {"config": config, "versions": {"jax": version}, "minibatch_sha256": "ab" * 32}


def ranks_of(order, num_columns, num_cells):
    """Made ranks of the best cells, near the top; none of those that were not ranked."""
    ranks = np.random.default_rng(1).integers(1, 2 + num_cells // 10, (len(order), num_columns))
    ranks = ranks.astype(float)
    ranks[num_cells:] = np.nan
    return search_page.ColumnRanks(ranks, num_cells)


def make_search_page(
    num_cells=60,
    num_classes=10,
    *,
    benchmark=True,
    name="digits",
    path="",
    objective=("epe",),
    combine="log_rank_sum",
    scale=3_000,
    space=NASBENCH201,
    stages=None,
    config=None,
):
    """The page of a made run, and what it was made of."""
    rng = np.random.default_rng(0)
    scores = scale * rng.normal(20_000 / 3_000, 1, num_cells)
    scores[::20] = np.nan
    num_ranked = int(np.sum(~np.isnan(scores)))
    if stages:
        # The best score is 1, as after the best cells were scored again.
        scores = rankdata(scores, nan_policy="omit") / num_ranked
        num_ranked = stages["refine"]["num_cells"]
    accuracies = rng.uniform(40, 95, num_cells)
    if space is NASBENCH201:
        cells = np.asarray(decode(np.arange(1000, 1000 + num_cells)))
    else:
        cells = np.asarray(space.sample(jax.random.key(0), num_cells))
    archs = [space.format(cell) for cell in cells]
    order = np.argsort(-scores)[:5]
    correlation = {"value": 0.123, "low": -0.1, "high": 0.4}
    summary = {
        "best_arch": archs[order[0]],
        "best_score": float(scores[order[0]]),
        "num_scored": num_cells,
        "num_networks": num_cells - 7,
        "num_degenerate": int(np.isnan(scores).sum()),
        "seconds": 12.25,
        "compile_seconds": 3.5,
        "ms_per_cell": 204.2,
        "device": name,
        **({"stages": stages} if stages else {}),
    }
    # Larger cells score a little better.
    size = (scores - np.nanmin(scores)) / np.nanstd(scores)
    params = 40_000 + 1_000.0 * rng.permutation(num_cells) + 90_000 * size
    params = np.nan_to_num(params, nan=40_000.0).round()
    summary["pareto_front"] = {
        "params": [
            {"arch": archs[i], "score": float(scores[i]), "params": int(params[i])}
            for i in pareto_front(scores, params)
        ]
    }
    best = [{"arch": archs[i], "score": float(scores[i])} for i in order]
    if benchmark:
        summary["best_accuracy"] = float(accuracies[order[0]])
        summary["rank_correlation"] = {
            "num_cells": num_cells - summary["num_degenerate"],
            "spearman": correlation,
            "kendall": None,
        }
        for cell, i in zip(best, order, strict=True):
            cell["accuracy"] = float(accuracies[i])
    config = config or {
        "seed": 3,
        "data": {"name": name, "path": path},
        "score": {"objective": list(objective), "combine": combine},
        "compare": {"num_cells": 9},
    }
    text = search_page.run_page(
        summary=summary,
        provenance=provenance_of(config, name),
        best=best,
        ranks=None if len(objective) == 1 else ranks_of(order, len(objective), num_ranked),
        graphs=space.graphs(cells[order[0]]),
        objective=objective,
        scores=scores,
        costs={"params": params},
        accuracies=accuracies if benchmark else None,
        benchmark_accuracies=accuracies if benchmark else None,
        class_scores=-rng.uniform(1, 9, num_classes),
        class_sizes=np.arange(num_classes),
    )
    return text, summary, accuracies


def make_training_page():
    """The page of a made training of three seeds."""
    rng = np.random.default_rng(0)
    config = installed_config("train_cifar10", **{"arch": CELL, "train.num_seeds": 3})
    rows = []
    for seed in range(3):
        for epoch in range(1, 101):
            reached = 93 - 50 * np.exp(-epoch / 15)
            rows.append(
                {
                    **{"seed": seed, "epoch": epoch},
                    "train_accuracy": reached + rng.normal(3, 0.3),
                    "test_accuracy": reached + rng.normal(0, 1),
                }
            )
    names = ["airplane", "automobile", "bird", "cat", "deer"]
    names += ["dog", "frog", "horse", "ship", "truck"]
    confusion = rng.integers(0, 40, (10, 10))
    np.fill_diagonal(confusion, 850)
    summary = {
        **{"arch": CELL, "held_out": "test", "mean_accuracy": 91.254, "std_accuracy": 0.5},
        **{"table_accuracy": 93.5, "seeds": [0, 1, 2], "epochs": 100, "device": "CPU, 2 cores"},
        **{"num_train_images": 50_000, "num_held_out_images": 10_000},
        **{"train_seconds": 4321.0, "images_per_second": 3471.0},
    }
    mistakes = Mistakes(
        class_names=names,
        confusion=confusion,
        images=rng.integers(0, 256, (12, 32, 32, 3)).astype(np.uint8),
        classes=rng.integers(0, 5, 12),
        taken_for=rng.integers(5, 10, 12),
        probabilities=np.linspace(0.99, 0.9, 12),
    )
    graphs = NASBENCH201.graphs(NASBENCH201.parse(CELL))
    return training_page.training_page(
        summary, provenance_of(config), rows, graphs=graphs, mistakes=mistakes
    )


def make_comparison_page(num_cells=50, name="digits", **changes):
    """The page of a made comparison, the summary with some changes."""
    rng = np.random.default_rng(0)
    scores = rng.normal(24_000, 2_000, num_cells)
    errors = {
        quantity: scale * rng.lognormal(0, 0.7, num_cells)
        for quantity, scale in (("logits", 1e-6), ("jacobian", 3e-5), ("score", 5e-5))
    }
    pytorch_scores = scores * (1 + errors["score"])
    cells = np.asarray(decode(np.arange(1000, 1000 + 7 * num_cells, 7)))
    rows = [
        {
            **{"arch": NASBENCH201.format(cell), "score": float(scores[i])},
            "pytorch_score": float(pytorch_scores[i]),
            **{f"{quantity}_error": float(values[i]) for quantity, values in errors.items()},
            **{"seconds": 0.75, "pytorch_seconds": 3.0, "pytorch_best_seconds": 1.5},
        }
        for i, cell in enumerate(cells)
    ]
    rows[1] |= {"score": None, "pytorch_score": None, "score_error": None}
    summary = {
        **{"num_cells": num_cells, "num_degenerate": 1, "num_scored_on_one_side_only": 0},
        **{
            f"{quantity}_error": {"worst": float(values.max()), "median": float(np.median(values))}
            for quantity, values in errors.items()
        },
        **{"spearman": 0.9998, "same_best": True},
        **{"best_arch": rows[0]["arch"], "pytorch_best_arch": rows[0]["arch"]},
        "seconds_per_cell": {
            **{"ours": 0.75, "pytorch_as_released": 3.0, "pytorch_at_its_best": 1.5}
        },
        "times_ours": {"pytorch_as_released": 4.0, "pytorch_at_its_best": 2.0},
        **{"compile_seconds": 13.3, "batch_size": 256, "dtype": "float32"},
        **{"device": "CPU, 2 cores", "pytorch_network": "xautodl", "pytorch_threads": 2},
        **changes,
    }
    config = installed_config("digits", **{"data.name": name, "compare.num_cells": num_cells})
    scatter = comparison_plots.score_scatter(scores, pytorch_scores)
    return comparison_page.comparison_page(summary, provenance_of(config), rows, scatter)
