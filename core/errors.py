"""How a user's mistake reaches the user: one short message, exit code 2, no traceback.

A `UserError` message names the file, line or key, the value, and what to do about it. Any other exception is
a bug in this project and keeps its traceback.
"""

import errno
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from core import rank_report
from core.launch import end_with_launcher, set_for_torch

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, marks that reverse a line, and halves of surrogate pairs: a name
with one could move the cursor, hide text, or not be printable at all."""


class UserError(Exception):
    """A mistake in the input, the configuration or the environment that the user can fix."""

    status = 2
    """The exit code."""


class NothingNewError(UserError):
    """There is nothing to do, which a pipeline must tell from a mistake: exit code 3."""

    status = 3


class DiskError(UserError):
    """The disk is full or a write failed. What has been written is kept, and the command can be resumed."""


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's `main` and exit; errors that the user can fix print one message and exit with code 2.

    So do a full disk, a read-only folder and a package that is not installed. An interrupt exits with 130.
    A rank ends when its launcher does.
    """
    end_with_launcher()
    set_for_torch()
    try:
        status = main() or 0
        sys.stdout.flush()
    except UserError as error:
        status = _report(str(error), error.status)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output has exited (`… | head`): not the user's mistake
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


def printable(text: str) -> str:
    """`text` without what could take over a terminal: such characters as their escapes."""
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def printable_name(name: str) -> str:
    """A name from a file, on one line."""
    return printable(name).replace("\n", "\\n").replace("\t", "\\t")


def missing_package(error: ModuleNotFoundError) -> str:
    """The message for a package that is not installed; a missing module of this project is a bug and is
    raised again."""
    package = (error.name or "").split(".")[0]
    if package in ("", "core", "data", "pretrain", "sft", "delta", "eval", "serve", "tools"):
        raise error
    return f"the Python package {package} is not installed. `make setup` installs all dependencies."


def explain_os_error(error: OSError) -> str | None:
    """The message for a failed system call, or None if the user cannot fix its cause."""
    place = f"{error.filename}: " if error.filename else ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"{place}the disk is full. Free some space and run the same command again to resume."
        case errno.EFBIG:
            return f"{place}{error.strerror}: limited by the file system or by `ulimit -f`. Raise the limit."
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return f"{place}{error.strerror}. Choose a location you can write to, or change its permissions."
        case errno.ENOENT | errno.ENOTDIR | errno.EISDIR:
            return f"{place}{error.strerror}."
        case errno.ENAMETOOLONG | errno.ELOOP:
            return f"{place}{error.strerror}. Choose another name."
        case _:
            return None


def _report(message: str, status: int = 2) -> int:
    """Print a message, once for all processes of a run on this machine; returns the exit code."""
    line = rank_report.report(message)
    if line is not None:
        print(f"{'error: ' if status == 2 else ''}{printable(line)}", file=sys.stderr)
    return status


def _report_crash(error: Exception) -> int:
    """Print a line about a bug or a lost process in a run of several; the traceback goes to a file."""
    line = rank_report.report_crash(error)
    if line is not None:
        print(f"error: {line}", file=sys.stderr)
    return 1
