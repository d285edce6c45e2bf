"""Frozen results are JSON files next to the tests; a test compares what it measured with them.

FREEZE=1 python -m pytest tests/frozen       writes them anew: only where a result is meant to change
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def check(file: str, name: str, found: Any, *, tolerance: float = 0) -> None:
    """Fail where `found` is not what stands under `name` in the file; numbers may differ by a share of
    `tolerance`."""
    path = HERE / file
    tree = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if os.environ.get("FREEZE"):
        tree[name] = found
        text = json.dumps(dict(sorted(tree.items())), ensure_ascii=False, indent=1)
        path.write_text(text + "\n", "utf-8")
        return
    lines = list(differences(name, tree.get(name), json.loads(json.dumps(found)), tolerance))
    more = f"\n… and {len(lines) - 20} more" if len(lines) > 20 else ""
    assert not lines, f"{file} has another result:\n" + "\n".join(lines[:20]) + more


def differences(place: str, old: Any, new: Any, tolerance: float) -> Iterator[str]:
    """A line for each value that is another one."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(f"{place} > {key}", old.get(key), new.get(key), tolerance)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(f"{place} > {number}", *pair, tolerance)
    elif not _same(old, new, tolerance):
        yield f"{place}: {old!r} frozen, {new!r} now"


def _same(old: Any, new: Any, tolerance: float) -> bool:
    if isinstance(old, float) and isinstance(new, int | float) and tolerance:
        return math.isclose(old, new, rel_tol=tolerance, abs_tol=1e-12)
    return type(old) is type(new) and bool(old == new)
