"""The one exception for bad input: the command line prints it as one line and exits with status 2."""


class InputError(ValueError):
    """What the user gave cannot work; the message says what arrived, what was expected, and the remedy."""
