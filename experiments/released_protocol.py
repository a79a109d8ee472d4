"""Compares the distributions of our scores and PyTorch's by the released protocol.

Each side draws its own weights by its framework's initialiser and its own shuffled, cropped and
flipped mini-batches of real CIFAR-10 images; nothing is copied between them. For each cell: the
difference of the means in standard errors, and the two-sample Kolmogorov-Smirnov test, whose p is
multiplied by the number of cells (Bonferroni).

Command:  python -m experiments.released_protocol --path=cifar10.npz
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from absl import app, flags
from scipy import stats
from tqdm import tqdm

from epe_nas_jax import NasBench201Network, ScoringConfig, format_arch, parse_arch, score_cells
from epe_nas_jax.data.datasets import Dataset, load_dataset
from epe_nas_jax.pytorch.network import build_network, released_score, run
from epe_nas_jax.spaces.nasbench201.cost import Sizes

_PATH = flags.DEFINE_string("path", None, "An .npz file of CIFAR-10.", required=True)
_DRAWS = flags.DEFINE_integer("draws", 100, "Draws per cell on each side.", lower_bound=2)
_BATCH = flags.DEFINE_integer("batch", 64, "Images in a mini-batch.", lower_bound=2)
_OUT = flags.DEFINE_string("out", "results/released_protocol.csv", "The table as a CSV file.")

_SIZES = Sizes(channels=16, cells_per_stage=5, num_classes=10)

# Cells of different kinds: of one operation, of few and many convolutions, deep and shallow.
_ARCHS = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|nor_conv_1x1~0|nor_conv_1x1~1|nor_conv_1x1~2|",
    "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|",
    "|avg_pool_3x3~0|+|avg_pool_3x3~0|avg_pool_3x3~1|+|avg_pool_3x3~0|avg_pool_3x3~1|avg_pool_3x3~2|",
    "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|",
    "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|",
    "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|skip_connect~2|",
    "|skip_connect~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
)
_COLUMNS = ("arch", "mean", "sd", "pytorch_mean", "pytorch_sd", "standard_errors", "ks", "ks_p")


def main(argv: Sequence[str]) -> None:
    """Writes the CSV file and prints the table as Markdown."""
    del argv
    dataset = load_dataset("cifar10", _PATH.value)
    cells = np.array([parse_arch(arch) for arch in _ARCHS])
    ours = np.array([_our_scores(cells, dataset, seed) for seed in tqdm(range(_DRAWS.value))])
    torch.manual_seed(0)
    pytorchs = np.array([_pytorch_scores(cells, dataset) for _ in tqdm(range(_DRAWS.value))])
    rows = [_compare(cell, a, b) for cell, a, b in zip(cells, ours.T, pytorchs.T, strict=True)]

    out = Path(_OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{_DRAWS.value} draws a side, N = {_BATCH.value}\n")
    print("| cell | ours | PyTorch | difference, standard errors | KS p, Bonferroni |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| `{row['arch'].replace('|', chr(92) + '|')}` "
            f"| {float(row['mean']):.1f} ± {float(row['sd']):.1f} "
            f"| {float(row['pytorch_mean']):.1f} ± {float(row['pytorch_sd']):.1f} "
            f"| {float(row['standard_errors']):+.2f} | {float(row['ks_p']):.2f} |"
        )
    failed = [
        row["arch"]
        for row in rows
        if abs(float(row["standard_errors"])) > 3 or float(row["ks_p"]) <= 0.01
    ]
    print(f"\napart: {', '.join(failed) or 'no cell'}")


def _our_scores(cells: np.ndarray, dataset: Dataset, seed: int) -> np.ndarray:
    """A score of each cell, with all weights and mini-batches drawn from the seed."""
    return score_cells(
        cells,
        dataset.normalised(),
        dataset.labels,
        seed=seed,
        network=NasBench201Network(**_SIZES._asdict()),
        config=ScoringConfig(init="independent", fresh_batch=_BATCH.value, augment=True),
        black=dataset.black(),
    )


def _pytorch_scores(cells: np.ndarray, dataset: Dataset) -> list[float]:
    """A score of each cell by PyTorch alone."""
    scores = []
    for cell in cells:
        images, labels = _pytorch_minibatch(dataset)
        found = run(build_network(cell, _SIZES), images)
        scores.append(released_score(found.jacobian, labels))
    return scores


def _pytorch_minibatch(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled images, padded by 4 black pixels, cropped, flipped, then normalised."""
    rows = torch.randperm(len(dataset.images))[: _BATCH.value]
    images = torch.from_numpy(dataset.images)[rows].permute(0, 3, 1, 2)
    side = images.shape[-1]
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    crops = []
    for image in padded:
        top, left = torch.randint(0, 9, (2,)).tolist()
        crop = image[:, top : top + side, left : left + side]
        crops.append(crop.flip(-1) if torch.rand(()) < 0.5 else crop)
    pixels = torch.stack(crops).permute(0, 2, 3, 1).double() / 255
    normalised = (pixels - torch.from_numpy(dataset.mean)) / torch.from_numpy(dataset.std)
    return normalised.float().numpy(), dataset.labels[rows.numpy()]


def _compare(cell: np.ndarray, ours: np.ndarray, pytorchs: np.ndarray) -> dict[str, str]:
    variance = np.var(ours, ddof=1) / len(ours) + np.var(pytorchs, ddof=1) / len(pytorchs)
    ks = stats.ks_2samp(ours, pytorchs)
    numbers = (
        np.mean(ours),
        np.std(ours, ddof=1),
        np.mean(pytorchs),
        np.std(pytorchs, ddof=1),
        (np.mean(ours) - np.mean(pytorchs)) / np.sqrt(variance),
        ks.statistic,
        min(1.0, ks.pvalue * len(_ARCHS)),
    )
    return {
        "arch": format_arch(cell),
        **{name: f"{number:.6g}" for name, number in zip(_COLUMNS[1:], numbers, strict=True)},
    }


if __name__ == "__main__":
    app.run(main)
