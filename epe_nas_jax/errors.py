"""The one exception that is the user's to mend, and the words of its messages."""

# Characters of a message. Of a longer one, such as one with the content of a file, both ends stay.
_LONGEST = 2000


class InputError(ValueError):
    """Input that cannot be used: one line that names it, what was found and what was expected.

    The command line prints the line and exits with status 2; library code lets it rise.
    """

    def __init__(self, message: str):
        """Makes one line of the message, whatever names and other errors are quoted in it."""
        line = " ".join(message.splitlines())
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
        super().__init__(line)


def type_of(value: object) -> str:
    """The name of a value's type with its article, for messages: `"a list"`, `"an int"`."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def printable(text: str) -> str:
    """Text without control characters: names read from files could hold some."""
    return "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
    )
