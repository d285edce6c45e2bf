"""Folders that are complete or absent, each with a `manifest.json` that says where it came from.

A step calls `build` with its folder, its resolved configuration and its inputs. `build` yields a folder
beside the target; when the step is through, outputs are hashed, the manifest is written and the folder is
renamed to its name. A step that fails leaves nothing under the target's name. `up_to_date` says whether the
folder already holds the same step's result.

`manifest.json` (UTF-8, one object): `format`, `step`, `command`, `config`, `inputs` and `outputs` (path to
`sha256:<hex>`; output paths are relative to the folder), `sources` (licence and permitted use, by name, of
what a corpus was read from), `counts`, `git_commit`, `versions`, `created` (UTC, ISO 8601).
"""

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.provenance.atomic_io import beside, lock, remove_leftovers, replace, write_text

NAME = "manifest.json"
FORMAT = 1
PACKAGES = (
    "torch",
    "transformers",
    "deepspeed",
    "peft",
    "tokenizers",
    "sentencepiece",
    "safetensors",
    "numpy",
    "pyarrow",
)


@dataclass
class Folder:
    """A folder under construction: write into `path`, put what was counted into `counts`, and the terms of
    what it was made from into `sources`."""

    path: Path
    counts: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, dict[str, str]] = field(default_factory=dict)


@contextmanager
def build(
    target: Path, *, step: str, config: Mapping[str, Any], inputs: Mapping[str, str], force: bool = False
) -> Iterator[Folder]:
    """Yield a fresh folder that becomes `target`, with its manifest, when the block ends without an
    exception.

    `inputs` maps a path to its hash (see `hash_files`). Raises UserError where `target` exists, unless
    `force`: then the old folder is replaced, after the new one is complete.
    """
    remove_leftovers(target)
    if target.exists() and not force:
        raise UserError(
            f"{target} exists already; it is never written over. Choose another folder, or pass --force."
        )
    partial = beside(target, "partial")
    partial.mkdir(parents=True)
    try:
        folder = Folder(partial)
        yield folder
        write(partial, step=step, config=config, inputs=inputs, counts=folder.counts, sources=folder.sources)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if target.exists() and not force:
        shutil.rmtree(partial)
        raise UserError(f"{target} was made by somebody else in the meantime; it was not written over.")
    replace(partial, target)


@contextmanager
def build_in_parts(
    target: Path,
    *,
    step: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    code: str,
    force: bool = False,
) -> Iterator[Folder]:
    """As `build`, for a step that is made of parts: what a killed or failed one left is yielded again.

    It is yielded as it was for the same step, configuration, inputs and `code` (a hash of the program), so
    that the block can leave out the parts that are finished there; else it is removed first. Nothing is ever
    mixed. UserError where another process is building the same folder.
    """
    remove_leftovers(target)
    if target.exists() and not force:
        raise UserError(f"{target} exists already; it is never written over. Pass --force to replace it.")
    partial = target.with_name(f".{target.name}.unfinished")
    mark = partial / ".made-from.json"
    made_from = json.dumps(
        {"step": step, "config": config, "inputs": dict(inputs), "code": code}, sort_keys=True
    )
    partial.mkdir(parents=True, exist_ok=True)
    with lock(target.with_name(f".{target.name}.lock"), f"{target}: it is being made already"):
        if not mark.exists() or mark.read_text("utf-8") != made_from:
            shutil.rmtree(partial)
            partial.mkdir()
            write_text(mark, made_from)
        folder = Folder(partial)
        yield folder
        mark.unlink()
        write(partial, step=step, config=config, inputs=inputs, counts=folder.counts, sources=folder.sources)
        replace(partial, target)


def hash_code(folder: Path) -> str:
    """One hash of all Python and YAML files of a package."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".yaml"))
    return hashlib.sha256(repr([digest for _, digest in _hash_all(files)]).encode()).hexdigest()


def write(
    folder: Path,
    *,
    step: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    counts: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Hash every file of `folder` and write its manifest, synced to the disk before it appears."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / NAME)
    manifest = {
        "format": FORMAT,
        "step": step,
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "config": config,
        "inputs": dict(inputs),
        "outputs": {path.relative_to(folder).as_posix(): digest for path, digest in _hash_all(files)},
        "sources": dict(sources or {}),
        "counts": counts,
        "git_commit": git_commit(),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_text(folder / NAME, json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a complete folder; UserError where it is missing or damaged."""
    path = folder / NAME
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is not a complete folder: {NAME} is missing.") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}). Remove {folder} and make it again.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path}: unknown manifest format; this version reads format {FORMAT}.")
    keys = ("config", "counts", "inputs", "outputs")
    if absent := [key for key in keys if not isinstance(manifest.get(key), dict)]:
        raise UserError(f"{path} is damaged (no {', '.join(absent)}). Remove {folder} and make it again.")
    return manifest


def up_to_date(
    target: Path, *, config: Mapping[str, Any], inputs: Mapping[str, str] | None, advice: str
) -> bool:
    """Whether `target` holds the result of this configuration and these inputs: True, or False where it is
    absent.

    Where it holds something else, UserError names the difference and gives `advice`. `inputs` of None are not
    compared.
    """
    remove_leftovers(target)
    if not target.exists():
        return False
    manifest = read(target)
    differences = _differences("", manifest["config"], json.loads(json.dumps(config)))
    if inputs is not None:
        differences += _changed_inputs(manifest["inputs"], inputs)
    if differences:
        shown = "\n".join(f"  {line}" for line in differences[:10])
        rest = f"\n  … and {len(differences) - 10} more" if len(differences) > 10 else ""
        raise UserError(f"{target} was made from something else:\n{shown}{rest}\n{advice}")
    return True


def verify(folder: Path) -> None:
    """Check every output's hash; UserError names the files that are missing or altered."""
    outputs: dict[str, str] = read(folder)["outputs"]
    missing = [name for name in outputs if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} is incomplete: {', '.join(missing[:5])} missing.")
    altered = [
        path.name
        for path, digest in _hash_all(folder / name for name in outputs)
        if outputs[_key(path, folder)] != digest
    ]
    if altered:
        raise UserError(f"{folder} is damaged: {', '.join(altered[:5])} changed since it was written.")


def hash_files(files: Iterable[Path]) -> dict[str, str]:
    """Path (as given) to `sha256:<hex>` for each file."""
    return {path.as_posix(): digest for path, digest in _hash_all(files)}


def outputs_of(folder: Path) -> dict[str, str]:
    """A finished folder as another step's input: its files and their hashes, as its manifest states them."""
    return {(folder / name).as_posix(): digest for name, digest in read(folder)["outputs"].items()}


def git_commit() -> str | None:
    """The commit of this code, with `+changes` where the working tree differs; None outside git."""
    root = Path(__file__).parents[2]
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            cwd=root, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _hash_all(files: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    for path in files:
        with path.open("rb") as file:
            yield path, f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _differences(prefix: str, old: Any, new: Any, key: str = "") -> list[str]:
    """`prefix key: old -> new` for every leaf in which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for name in sorted(old.keys() | new.keys())
            for line in _differences(prefix, old.get(name), new.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if old == new else [f"{prefix}{key}: {_short(old)} there, {_short(new)} now"]


def _changed_inputs(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Inputs whose content was not there, or is gone; where a file lies does not matter."""
    before, now = set(old.values()), set(new.values())
    gone = {path for path, digest in old.items() if digest not in now}
    come = {path for path, digest in new.items() if digest not in before}
    words = {
        path: "changed" if path in gone & come else "gone" if path in gone else "new" for path in gone | come
    }
    return [f"input {path}: {word}" for path, word in sorted(words.items())]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
