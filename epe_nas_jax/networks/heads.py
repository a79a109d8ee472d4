"""Last layers of zeros, as vision transformers have them: no gradient would reach the images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

NEW_HEAD = "drawn at random: the last layer's weights, which are zeros"


def is_zero_head(weight: Any, num_classes: int, *, axis: int) -> bool:
    """Whether a weight is a matrix of zeros to K, of a 1x1 convolution too.

    Args:
      weight: an array.
      num_classes: K.
      axis: that of what comes out, in the form of the framework.
    """
    shape = np.shape(weight)
    is_matrix = len([side for side in shape if side != 1]) == 2
    return is_matrix and shape[axis] == num_classes and not np.asarray(weight).any()


def drawn_head(shape: Sequence[int], num_classes: int) -> np.ndarray:
    """Weights for such a matrix: normal, with a variance of 1 over its inputs; always the same."""
    num_inputs = math.prod(shape) / num_classes
    return np.random.default_rng(0).normal(size=tuple(shape)) / math.sqrt(num_inputs)
