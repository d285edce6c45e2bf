"""Hashes of what a folder holds, without what differs from run to run (times, paths, commits) and prose."""

import hashlib
import json
import re
from pathlib import Path

LEFT_OUT = (
    "manifest.json", "config.yaml", "hardware.json", "inputs.json", "log.txt", "metrics.jsonl", "README.md",
    "latest", "report.html", ".lock",
)  # fmt: skip
LEFT_OUT_ENDINGS = (".png", ".pt", ".lock")
SHORT = 16
"""Hexadecimal digits of a hash that are kept."""


def digest(data: bytes) -> str:
    """The beginning of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:SHORT]


def hashes(folder: Path, root: Path | None = None, pattern: str = "**/*") -> dict[str, str]:
    """Name to hash of every file that must stay as it is; paths below `root` are no part of a hash."""
    return {
        _name(file.relative_to(folder)): digest(_content(file, root or folder))
        for file in sorted(folder.glob(pattern))
        if file.is_file() and file.name not in LEFT_OUT and file.suffix not in LEFT_OUT_ENDINGS
    }


def _name(file: Path) -> str:
    """The name without a hash of paths, which dpo's kept references carry."""
    return re.sub(r"reference-(\w+)-[0-9a-f]+\.npy$", r"reference-\1.npy", file.as_posix())


def _content(file: Path, root: Path) -> bytes:
    """The bytes of a file, of a Parquet file its rows, for its bytes depend on the library's version."""
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows = pq.read_table(file).to_pylist()
        data = json.dumps(rows, ensure_ascii=False, default=_plain).encode()
    elif file.name == "adapter_config.json":  # peft writes a set there, in any order
        tree = json.loads(file.read_text("utf-8"))
        tree = {key: sorted(value) if isinstance(value, list) else value for key, value in tree.items()}
        data = json.dumps(tree, sort_keys=True).encode()
    else:
        data = file.read_bytes()
    return data.replace(str(root).encode(), b"ROOT")


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
