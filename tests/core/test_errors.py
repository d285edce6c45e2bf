"""What a user sees when a command ends: the message, the exit code, and whether there is a traceback."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PROGRAM = """
import errno, os, sys
from core.errors import UserError, run_command

def main():
    print("started")
    {body}

run_command(main)
"""


def start(body: str, stdout: int | None = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start a command whose `main` is `body`."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ("PYTHONUNBUFFERED", "RANK")},
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "raise UserError('a.yaml:3: `steps` = 0: choose more.')",
            "error: a.yaml:3: `steps` = 0: choose more.\n",
        ),
        (
            "raise OSError(errno.ENOSPC, 'No space left', '/data/x')",
            "error: /data/x: the disk is full. Free some space",
        ),
        (
            "raise OSError(errno.EFBIG, 'File too large')",
            "error: File too large: limited by the file system or",
        ),
        ("raise OSError(errno.ENOSPC, 'No space left')", "error: the disk is full. Free some space"),
        ("raise OSError(errno.EDQUOT, 'Quota exceeded')", "error: the disk is full"),
        (
            "raise OSError(errno.EACCES, 'Permission denied', '/x')",
            "error: /x: Permission denied. Choose a location",
        ),
        (
            "raise OSError(errno.EROFS, 'Read-only file system', '/x')",
            "error: /x: Read-only file system. Choose",
        ),
        ("open('/no/such/file')", "error: /no/such/file: No such file or directory."),
        ("open('/')", "error: /: Is a directory."),
        ("import patentlib.x", "error: the Python package patentlib is not installed. `make setup`"),
    ],
)
def test_what_the_user_can_fix_ends_with_one_message_and_exit_code_2(body: str, message: str) -> None:
    process = start(body)
    out, err = process.communicate()
    assert process.returncode == 2
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert out == "started\n", "earlier output is not lost"


@pytest.mark.parametrize(
    "body",
    ["1 / 0", "raise OSError(errno.EIO, 'Input/output error')", "raise KeyError('x')", "import core.no"],
)
def test_a_bug_keeps_its_traceback(body: str) -> None:
    process = start(body)
    _, err = process.communicate()
    assert process.returncode == 1
    assert "Traceback (most recent call last)" in err
    assert "in main" in err


def test_an_interrupt_ends_with_130_and_no_traceback() -> None:
    process = start("raise KeyboardInterrupt")
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.strip() == "interrupted"


@pytest.mark.parametrize(
    ("body", "status"), [("return None", 0), ("return 0", 0), ("return 143", 143), ("sys.exit(5)", 5)]
)
def test_a_command_that_exits_on_its_own_keeps_its_status(body: str, status: int) -> None:
    process = start(body)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (status, "started\n", "")


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_exits_ends_the_command_silently(lines: int) -> None:
    process = start(f"sys.stdin.read(); print('line\\n' * {lines})")
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdout.close()  # as `| head` does, before anything is written
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141, "as a program ended by SIGPIPE"
    process.stderr.close()


def test_output_onto_a_full_disk_is_named() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        process = start("print('line')", full.fileno())
        _, err = process.communicate()
    assert process.returncode != 0
    assert err.startswith("error: the disk is full")
