"""What ends a command early; the command line prints it as one line."""

import sys
import threading


class InputError(ValueError):
    """What the user gave cannot work; the message says what arrived, what was expected, and the remedy."""


class Preempted(Exception):
    """The run was asked to stop, and lost nothing; the message says by what, and where it stands."""


def hide_late_writes() -> None:
    """Has tensorstore's threads print nothing where a write ends after another has failed; everything else is printed.

    Orbax raises the failure that came first, and closes its event loop; every later end of a write then prints a
    traceback that says nothing but that.
    """
    print_traceback = sys.excepthook

    def hook(kind, error, trace):
        elsewhere = threading.current_thread() is not threading.main_thread()
        if not (elsewhere and kind is RuntimeError and str(error) == "Event loop is closed"):
            print_traceback(kind, error, trace)

    sys.excepthook = hook
