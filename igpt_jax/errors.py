"""What ends a command early; the command line prints it as one line."""

import logging
import sys


class InputError(ValueError):
    """What the user gave cannot work; the message says what arrived, what was expected, and the remedy."""


class Preempted(Exception):
    """The run was asked to stop, and lost nothing; the message says by what, and where it stands."""


def hide_late_writes() -> None:
    """Has tensorstore print nothing where a read or a write ends after another has failed.

    Orbax raises the failure that came first, and closes its event loop.  A later end then prints a traceback that
    begins in asyncio, since no Python code has called it, and says nothing but that; a later failure, which nobody
    awaits any more, goes to asyncio's log, which is off: nothing else here uses asyncio.  All else is printed.
    """
    logging.getLogger("asyncio").disabled = True
    print_traceback, print_unraisable = sys.excepthook, sys.unraisablehook

    def is_late(error, trace):
        begins_in = trace.tb_frame.f_globals["__name__"] if trace else ""
        return begins_in.startswith("asyncio.") and str(error) == "Event loop is closed"

    def excepthook(kind, error, trace):
        if not is_late(error, trace):
            print_traceback(kind, error, trace)

    def unraisablehook(unraisable):
        if not is_late(unraisable.exc_value, unraisable.exc_traceback):
            print_unraisable(unraisable)

    sys.excepthook, sys.unraisablehook = excepthook, unraisablehook
