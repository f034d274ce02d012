"""What ends a command early; the command line prints it as one line."""


class InputError(ValueError):
    """What the user gave cannot work; the message says what arrived, what was expected, and the remedy."""


class Preempted(Exception):
    """The run was asked to stop, and lost nothing; the message says by what, and where it stands."""
