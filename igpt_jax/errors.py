"""What ends a command early; the command line prints it as one line."""

import errno
import logging
import sys


class InputError(ValueError):
    """What the user gave cannot work; the message says what arrived, what was expected, and the remedy."""


class Preempted(Exception):
    """The run was asked to stop, and lost nothing; the message says by what, and where it stands."""


# What an operating system's error says to somebody who does not know its numbers, and what to do.
_REASONS = {
    errno.ENOENT: "there is no such file or directory; check the path",
    errno.EEXIST: "a file of that name is there; choose another path, or remove it",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
    errno.EISDIR: "it is a directory; name a file",
    errno.EACCES: "it is not permitted; change the permissions, or choose another place",
    errno.EPERM: "it is not permitted; change the permissions, or choose another place",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOSPC: "the disk is full; make room, and run the same command again",
    errno.EDQUOT: "the disk quota is used up; make room, and run the same command again",
    errno.EMFILE: "too many files are open; raise the limit with ulimit -n",
}


def describe_os_error(error: OSError, doing: str = "") -> str:
    """One line for an error of the operating system: what was done with which path, why it failed, what to do.

    doing: such as "make the directory"; "use" where nobody said.
    """
    if error.errno is None:
        return str(error)
    path = str(error.filename or "")
    shown = path if len(path) <= 200 else f"{path[:100]}...{path[-20:]}"
    reason = _REASONS.get(error.errno) or f"{error.strerror or error}; check the path and the disk"
    return f"cannot {doing or 'use'} {shown or 'a file'}: {reason}"


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
