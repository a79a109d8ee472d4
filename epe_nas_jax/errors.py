"""The one exception that is the user's to mend."""


class InputError(ValueError):
    """Input that cannot be used: one line that names it, what was found and what was expected.

    The command line prints the line and exits with status 2; library code lets it rise.
    """
