"""Last layers of zeros, as in vision transformers, through which no gradient reaches the images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

NEW_HEAD = "drawn at random: the last layer's weights, which are zeros"


def is_zero_head(weight: Any, num_classes: int, *, axis: int) -> bool:
    """Whether a weight is a matrix of zeros with K outputs, or such a 1x1 convolution.

    Args:
      weight: an array.
      num_classes: K.
      axis: the axis of the outputs, which depends on the framework.
    """
    shape = np.shape(weight)
    is_matrix = len([side for side in shape if side != 1]) == 2
    return is_matrix and shape[axis] == num_classes and not np.asarray(weight).any()


def drawn_head(shape: Sequence[int], num_classes: int) -> np.ndarray:
    """Draws weights of a last layer: normal, with variance 1 / inputs, and always the same."""
    num_inputs = math.prod(shape) / num_classes
    return np.random.default_rng(0).normal(size=tuple(shape)) / math.sqrt(num_inputs)
