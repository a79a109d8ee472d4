"""Mini-batches that fit the memory, and errors about those that do not."""

import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.networks.found import Minibatch

# Fewer images say too little about a network, and batch norm needs more than one.
_FEWEST_IMAGES = 8
# Parts of the messages of PyTorch and XLA, in exceptions of several classes.
_MESSAGES = ("out of memory", "RESOURCE_EXHAUSTED", "can't allocate memory", "ALLOC_FAILED")


class DoesNotFitError(InputError):
    """A network and a mini-batch need more memory than there is."""


def check_fits(needed: int, free: int) -> None:
    """Checks that no more bytes are needed than are free.

    Raises:
      DoesNotFitError: there are.
    """
    if needed > free:
        raise DoesNotFitError(
            f"memory: found {free / 1e6:,.0f} MB free, expected about {needed / 1e6:,.0f} MB"
        )


def is_about_memory(error: Exception) -> bool:
    """Whether an error says that the memory does not suffice."""
    is_said = any(message in str(error) for message in _MESSAGES)
    return isinstance(error, DoesNotFitError | MemoryError) or is_said


def half(minibatch: Minibatch) -> Minibatch | None:
    """Every second image of each class of a mini-batch; None if these are too few."""
    classes = np.unique(minibatch.labels)
    kept = [np.flatnonzero(minibatch.labels == label)[::2] for label in classes]
    rows = np.sort(np.concatenate(kept))
    if not _FEWEST_IMAGES <= len(rows) < len(minibatch.labels):
        return None
    return minibatch._replace(images=minibatch.images[rows], labels=minibatch.labels[rows])
