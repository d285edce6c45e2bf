"""A finished folder, shared by the tests of manifests."""

import hashlib
from pathlib import Path

from core.provenance import manifest

CONFIG = {"rate": 0.5, "parts": ("title", "claims"), "inner": {"seed": 1}}
INPUTS = {"raw/a.xml": "sha256:aa", "raw/b.xml": "sha256:bb"}


def make(target: Path, text: str = "first", *, force: bool = False) -> None:
    """A finished folder with two files."""
    with manifest.build(target, step="clean", config=CONFIG, inputs=INPUTS, force=force) as folder:
        (folder.path / "part").mkdir()
        (folder.path / "part" / "a.txt").write_text(text)
        (folder.path / "b.txt").write_text("b")
        folder.counts["records"] = 2


def names(folder: Path) -> list[str]:
    """The names in a folder, including hidden ones."""
    return sorted(path.name for path in folder.iterdir())


def sha256(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
