"""The exception for input that cannot be used, and helpers for its messages."""

# Most characters of a message; of a longer one, such as one that quotes a file, both ends stay.
_LONGEST = 2000


class InputError(ValueError):
    """Input that cannot be used: one line that names it, what was found and what was expected.

    The command line prints this line and exits with status 2; library code does not catch it.

    Examples:
      >>> epe_nas_jax.parse_arch("conv")
      Traceback (most recent call last):
      ...
      epe_nas_jax.errors.InputError: arch string 'conv': expected the form |op~0|+|op~0|op~1|+...
    """

    def __init__(self, message: str):
        # A message may quote names and other errors, which have lines of their own.
        line = " ".join(message.splitlines())
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
        super().__init__(line)


def type_of(value: object) -> str:
    """The name of a value's type with its article, for messages: `"a list"`, `"an int"`."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def printable(text: str) -> str:
    """Escapes the control characters of a text, such as a name read from a file may have."""
    return "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
    )
