"""Mini-batches that fit the memory, and what is said of a network of which none does."""

from epe_nas_jax.errors import InputError
from epe_nas_jax.networks.found import Minibatch

# Fewer images say too little of a network, and batch norm cannot do with one.
_FEWEST_IMAGES = 8
# What PyTorch and XLA say, in errors of several classes.
_MESSAGES = ("out of memory", "RESOURCE_EXHAUSTED", "can't allocate memory")


class DoesNotFitError(InputError):
    """A network and a mini-batch need more memory than there is."""


def check_fits(needed: int, free: int) -> None:
    """Raises `DoesNotFitError` if more bytes are needed than are free."""
    if needed > free:
        raise DoesNotFitError(
            f"memory: found {free / 1e6:,.0f} MB free, expected about {needed / 1e6:,.0f} MB"
        )


def is_about_memory(error: Exception) -> bool:
    """Whether an error says that the memory does not suffice."""
    is_said = any(message in str(error) for message in _MESSAGES)
    return isinstance(error, DoesNotFitError | MemoryError) or is_said


def half(minibatch: Minibatch) -> Minibatch | None:
    """Every second image of a mini-batch; None if these were too few."""
    images, labels = minibatch.images[::2], minibatch.labels[::2]
    return (
        None if len(images) < _FEWEST_IMAGES else minibatch._replace(images=images, labels=labels)
    )
