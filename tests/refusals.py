"""What becomes of any input: a result, or one line."""

from epe_nas_jax import InputError


def refusal(work):
    """The line with which a function refuses its input; empty if it does not.

    Any other exception is a fault, and is not caught.
    """
    try:
        work()
    except InputError as error:
        lines = str(error).splitlines()
        assert len(lines) == 1, lines
        return lines[0]
    return ""
