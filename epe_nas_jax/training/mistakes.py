"""What a trained network takes for what."""

import numpy as np
from sklearn.metrics import confusion_matrix


def judge(
    probabilities: np.ndarray, labels: np.ndarray, *, num_worst: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compares predictions with the classes.

    Args:
      probabilities: of every class, `[M, K]`.
      labels: the classes, int `[M]`.
      num_worst: how many of the worst mistakes to name, at most.

    Returns:
      How many images of class i are taken for class j, int `[K, K]`; and the images that are taken
      for another class than theirs, those with the least probability of their own first, int `[B]`.
    """
    taken_for = probabilities.argmax(axis=1)
    num_classes = probabilities.shape[1]
    confusion = confusion_matrix(labels, taken_for, labels=np.arange(num_classes))
    wrong = np.flatnonzero(taken_for != labels)
    order = np.argsort(probabilities[wrong, labels[wrong]], kind="stable")
    return confusion, wrong[order][:num_worst]
