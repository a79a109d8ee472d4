"""Which classes a trained network confuses."""

import numpy as np
from sklearn.metrics import confusion_matrix


def judge(
    probabilities: np.ndarray, labels: np.ndarray, *, num_worst: int
) -> tuple[np.ndarray, np.ndarray]:
    """Counts which classes a network confuses, and finds its worst mistakes.

    Args:
      probabilities: of every class, `[M, K]`.
      labels: the classes, int `[M]`.
      num_worst: how many of the worst mistakes to return, at most.

    Returns:
      The confusion matrix, int `[K, K]`: how many images of class i, a row, are taken for class j,
      a column; and the indices of images that are taken for a wrong class, at most `num_worst`,
      those with the lowest probability of their own class first.

    Examples:
      >>> from epe_nas_jax.training.mistakes import judge
      >>> found = np.array([[0.9, 0.1], [0.8, 0.2]])
      >>> confusion, worst = judge(found, np.array([0, 1]), num_worst=5)
      >>> confusion.tolist(), worst.tolist()
      ([[1, 0], [1, 0]], [1])
    """
    taken_for = probabilities.argmax(axis=1)
    num_classes = probabilities.shape[1]
    confusion = confusion_matrix(labels, taken_for, labels=np.arange(num_classes))
    wrong = np.flatnonzero(taken_for != labels)
    order = np.argsort(probabilities[wrong, labels[wrong]], kind="stable")
    return confusion, wrong[order][:num_worst]
