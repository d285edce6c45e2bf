"""One way for a user's mistake to reach the user: a short message, exit code 2, no traceback.

`UserError` carries a message that names the file, line or key, the value, and what to do about it. Everything
else that escapes is a bug in this project and keeps its traceback.
"""

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from core import rank_report


class UserError(Exception):
    """A mistake in the input, the configuration or the environment that the user can mend."""


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a room's `main`, turn what the user can mend into one message and exit code 2, and leave the
    process.

    An interrupt ends with 130. A full disk or a read-only folder is the user's to mend as well.
    """
    try:
        status = main() or 0
        sys.stdout.flush()
    except UserError as error:
        status = _report(str(error))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output left (`… | head`): not an error of the user's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except ModuleNotFoundError as error:
        status = _report(missing_package(error))
    except OSError as error:
        message = explain_os_error(error)
        if message is None and not rank_report.is_one_of_several():
            raise
        status = _report(message) if message else _report_crash(error)
    except Exception as error:
        if not rank_report.is_one_of_several():
            raise
        status = _report_crash(error)
    sys.exit(status)


def missing_package(error: ModuleNotFoundError) -> str:
    """Say what to do about a package that is not installed; a module of this project's own is a bug."""
    package = (error.name or "").split(".")[0]
    if package in ("", "core", "data", "pretrain", "sft", "delta", "eval"):
        raise error
    return f"the Python package {package} is not installed. `make setup` installs what this project needs."


def explain_os_error(error: OSError) -> str | None:
    """Say what a failed system call means for the user, or None where it is not the user's to mend."""
    place = f"{error.filename}: " if error.filename else ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return (
                f"{place}the disk is full. Free some space and run the same command again; it goes on there."
            )
        case errno.EFBIG:
            return f"{place}{error.strerror}: the file system or `ulimit -f` sets a limit. Raise it."
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return (
                f"{place}{error.strerror}. Choose a place that you may write to, or change its permissions."
            )
        case errno.ENOENT | errno.ENOTDIR | errno.EISDIR:
            return f"{place}{error.strerror}."
        case _:
            return None


def _report(message: str) -> int:
    """Print a message, once for all processes of a run on this machine."""
    line = rank_report.report(message)
    if line is not None:
        print(f"error: {line}", file=sys.stderr)
    return 2


def _report_crash(error: Exception) -> int:
    """Print a line about a bug or a lost process in a run of several; the traceback goes to a file."""
    line = rank_report.report_crash(error)
    if line is not None:
        print(f"error: {line}", file=sys.stderr)
    return 1
