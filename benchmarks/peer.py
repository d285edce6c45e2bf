"""What a benchmark compares with: packages of this environment, or a process in an environment of its own.

    python -m benchmarks.peer NAME …     install the peers' environments

The environment of peer NAME is `.venv-bench/NAME`, with the versions of `benchmarks/peers/NAME.txt`; it is
made when a benchmark first needs it. What cannot be had ends a benchmark with exit code 2, so that figures
without a peer are never taken for a comparison.
"""

import contextlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".venv-bench"
WITHOUT = "--without-peers"


def main() -> None:
    """Install the peers that are named."""
    for name in sys.argv[1:]:
        print(environment(name))


def require(*packages: str) -> None:
    """Exit with code 2 if a package to compare with is not in this environment."""
    for package in packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            _fail(f"{package}, which this benchmark compares with, is not installed. Run make setup.")


def environment(name: str) -> Path:
    """The interpreter of a peer's environment, which is made if it is missing or has other versions."""
    wanted, folder = ROOT / "benchmarks" / "peers" / f"{name}.txt", ENVIRONMENTS / name
    made, python = folder / "made-from.txt", folder / "bin" / "python"
    if not python.exists() or not made.is_file() or made.read_text("utf-8") != wanted.read_text("utf-8"):
        print(f"installing {name} into {folder} to compare with", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, "-r", str(wanted)], capture_output=True, text=True, check=False)
        if done.returncode:
            reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR: ")), "")
            _fail(
                f"{name}, which this benchmark compares with, cannot be installed:"
                f" {reason or done.stderr[-300:]}\nRun it again with access to a package index, or leave the"
                f" peers out with {WITHOUT} (make bench NAME=… ARGS={WITHOUT})."
            )
        made.write_text(wanted.read_text("utf-8"), "utf-8")
    return python


class Process:
    """A process that answers line by line: JSON in, JSON out."""

    def __init__(self, name: str, *command: str) -> None:
        self._name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=ROOT
        )

    def ask(self, work: dict[str, Any]) -> Any:
        """The script's answer; exit with code 2 and its last words if it ends instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(work), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = self._errors.read()[-2000:].rstrip()
            _fail(f"{self._name} failed:\n{last}\nTo leave the peers out: {WITHOUT}.")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._errors.close()


class Peer(Process):
    """A process in a peer's environment that runs a script of benchmarks/peers.

    The script measures its own time, without its imports.
    """

    def __init__(self, name: str, script: str, *arguments: str) -> None:
        python, file = environment(name), ROOT / "benchmarks" / "peers" / script
        super().__init__(name, str(python), "-P", str(file), *arguments)


def versions_of(name: str) -> dict[str, str]:
    """The versions that a peer's environment was made with."""
    lines = (ROOT / "benchmarks" / "peers" / f"{name}.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
