"""The last line of every benchmark: one JSON object, which `make bench` keeps."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime


def print_result(
    benchmark: str,
    packages: Iterable[str],
    results: Mapping[str, float],
    peers: Mapping[str, str] | None = None,
    *,
    table: bool = False,
) -> None:
    """Print the results with date, machine and package versions, also those of peers in environments of their
    own; units are in the keys. With `table`, print them for people first."""
    for key, value in results.items() if table else ():
        print(f"{key:44}{value:12,.3f}")
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}, {platform.system()}"
    )
    print(
        json.dumps(
            {
                "benchmark": benchmark,
                "date": datetime.now(UTC).date().isoformat(),
                "machine": machine,
                "versions": versions(packages) | {**(peers or {})},
                "results": {key: round(value, 3) for key, value in results.items()},
            }
        )
    )


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of the installed packages among `packages`."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
