"""Independent oracles: plain NumPy loops that follow the paper and the released code."""

from typing import NamedTuple

import numpy as np


def epe_score(jacobian, labels, num_classes, variant):
    """The score of an input Jacobian `[N, D]`, class by class, in float64."""
    k = 1e-5
    two_branch = variant == "two_branch" and num_classes > 100
    per_class = {}
    for label in sorted(set(labels.tolist())):
        rows = jacobian[labels == label].astype(np.float64)
        if len(rows) == 1 and two_branch:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            correlation = np.atleast_2d(np.corrcoef(rows))
        total = 0.0
        for i in range(len(rows)):
            for j in range(len(rows)):
                total += np.log(abs(correlation[i, j]) + k)
        per_class[label] = total / len(rows) if two_branch else total
    if not two_branch:
        return sum(abs(e) for e in per_class.values())
    if not per_class:
        return np.nan
    total = 0.0
    for a in per_class.values():
        for b in per_class.values():
            total += abs(a - b)
    return total / len(per_class)


def jacob_cov(jacobian):
    """Mellor et al.'s first score of an input Jacobian `[N, D]`, in float64."""
    k = 1e-5
    total = 0.0
    for eigenvalue in np.linalg.eigvalsh(np.corrcoef(jacobian.astype(np.float64))):
        total -= np.log(eigenvalue + k) + 1 / (eigenvalue + k)
    return total


def nwot(layers):
    """Mellor et al.'s second score of ReLU codes, a list of bool `[N, units]`."""
    kernel = 0.0
    for units in layers:
        ones = units.astype(np.float64)
        kernel = kernel + ones @ ones.T + (1 - ones) @ (1 - ones).T
    return np.linalg.slogdet(kernel)[1]


def channel_entropy(gradient):
    """Entropy of the covariance of the channels of `[N, H, H, C]`."""
    rows = gradient.reshape(-1, gradient.shape[-1])
    v = np.linalg.eigvalsh(np.cov(rows.T, bias=True))
    if v.sum() <= 0:
        return 0.0
    shares = v[v > 1e-14 * v.sum()] / v.sum()
    return -np.sum(shares * np.log(shares))


def grad_norm(gradients):
    """Sum over layers of the Euclidean norm, of a list of arrays."""
    return sum(np.linalg.norm(gradient.ravel()) for gradient in gradients)


def snip(weights, gradients):
    """Sum of |theta g| over two lists of arrays."""
    total = 0.0
    for theta, gradient in zip(weights, gradients, strict=True):
        total += np.abs(theta.ravel()) @ np.abs(gradient.ravel())
    return total


class Run(NamedTuple):
    """What an independent run of a network on a mini-batch found, as NumPy arrays.

    Attributes:
      jacobian: of the sum of all logits by the images, `[N, D]`.
      labels: classes of the images, int `[N]`.
      num_classes: K.
      relu_codes: which units of each ReLU are open, a list of bool `[N, ...]`.
      cell_gradients: of the sum of all logits by the outputs of all cells but those of the last
        stage, a list of `[N, H, H, C]`.
      last_gradient: by the output of the last cell.
      weights: of convolutions and linear layers, a list.
      gradients: of the mean cross-entropy by each of them.
      flow: theta dR/dtheta of `weights`, or of some of them together, a list: R is the sum of the
        outputs for an image of ones, with absolute weights and no batch norm.
    """

    jacobian: np.ndarray
    labels: np.ndarray
    num_classes: int
    relu_codes: list[np.ndarray]
    cell_gradients: list[np.ndarray]
    last_gradient: np.ndarray
    weights: list[np.ndarray]
    gradients: list[np.ndarray]
    flow: list[np.ndarray]


# Every proxy of `proxies.table.PROXIES`, from such a run of a network that has a Jacobian.
ORACLES = {
    "epe": lambda run: epe_score(run.jacobian, run.labels, run.num_classes, "released"),
    "epe_two_branch": lambda run: epe_score(
        run.jacobian, run.labels, run.num_classes, "two_branch"
    ),
    "jacob_cov": lambda run: jacob_cov(run.jacobian),
    "nwot": lambda run: nwot([code.reshape(len(code), -1) for code in run.relu_codes]),
    "grad_entropy": lambda run: sum(map(channel_entropy, run.cell_gradients)),
    "grad_decay": lambda run: np.log(np.sum(run.last_gradient**2) / np.sum(run.jacobian**2)),
    "synflow": lambda run: np.log(sum(np.sum(flow) for flow in run.flow)),
    "grad_norm": lambda run: grad_norm(run.gradients),
    "snip": lambda run: snip(run.weights, run.gradients),
}
# Those that a network without a Jacobian has too.
WITHOUT_JACOBIAN = {"nwot"}


def proxies(run):
    """All proxies by name; NaN for those that a network without a Jacobian lacks."""
    has_jacobian = np.any(run.jacobian != 0)
    return {
        name: oracle(run) if has_jacobian or name in WITHOUT_JACOBIAN else np.nan
        for name, oracle in ORACLES.items()
    }
