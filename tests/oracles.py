"""Independent oracles: plain NumPy loops that follow the paper and the released code."""

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
