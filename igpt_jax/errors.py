"""Exceptions that end a command early; the command line prints each as one line."""

import errno
import logging
import sys
import types
from typing import Any


class InputError(ValueError):
    """The user's input cannot be used.  The message says what was given, what was expected, and the remedy."""


class Preempted(Exception):
    """The run was told to stop, and has saved its progress.  The message says by what, and how far it got."""


# For each error number of the operating system, what it means and what to do.
_REASONS = {
    errno.ENOENT: "there is no such file or directory; check the path",
    errno.EEXIST: "a file of that name exists; choose another path, or remove it",
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
    """Describes an error of the operating system in one line: the action, the path, the reason and the remedy.

    Args:
      error: the error.
      doing: the action that failed, such as "make the directory"; "" means "use".
    """
    if error.errno is None:
        return str(error)
    path = str(error.filename or "")
    shown = path if len(path) <= 200 else f"{path[:100]}...{path[-20:]}"
    reason = _REASONS.get(error.errno) or f"{error.strerror or error}; check the path and the disk"
    return f"cannot {doing or 'use'} {shown or 'a file'}: {reason}"


def hide_late_writes() -> None:
    """Hides the tracebacks of reads and writes that end after Orbax has already raised the failure of another.

    Orbax raises the first failure and closes its event loop.  An operation of tensorstore that succeeds later prints a
    traceback that starts in asyncio and says only "Event loop is closed".  An operation that fails later is logged by
    asyncio, because nothing awaits it any more.  This hides that traceback and asyncio's log, which nothing else here
    uses.  All other errors are printed.
    """
    logging.getLogger("asyncio").disabled = True
    print_traceback, print_unraisable = sys.excepthook, sys.unraisablehook

    def is_late(error: BaseException | None, trace: types.TracebackType | None) -> bool:
        starts_in = trace.tb_frame.f_globals["__name__"] if trace else ""
        return starts_in.startswith("asyncio.") and str(error) == "Event loop is closed"

    def excepthook(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        if not is_late(error, trace):
            print_traceback(kind, error, trace)

    def unraisablehook(unraisable: Any) -> None:
        if not is_late(unraisable.exc_value, unraisable.exc_traceback):
            print_unraisable(unraisable)

    sys.excepthook, sys.unraisablehook = excepthook, unraisablehook
