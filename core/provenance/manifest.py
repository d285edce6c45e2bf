"""Folders that are complete or absent, each with a `manifest.json` that records where it came from.

A step calls `up_to_date`, then `build` (or `build_in_parts`, which can be resumed) with its folder, its
resolved configuration and its inputs. They yield a hidden folder next to the target. When the block ends, the
outputs are hashed, the manifest is written and the folder is renamed to the target. A step that fails leaves
nothing under the target's name.

`manifest.json` (UTF-8, one object): `format`, `step`, `command`, `config`, `inputs` and `outputs` (path to
`sha256:<hex>`; output paths are relative to the folder), `sources` (licence and permitted use, by name, of
what a corpus was read from), `counts`, `git_commit`, `versions`, `created` (UTC, ISO 8601).
"""

import hashlib
import io
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.provenance.atomic_io import (
    LOCK,
    MADE_FROM,
    beside,
    refuse_existing,
    refuse_overlap,
    remove_leftovers,
    replace,
    resumable_folder,
    write_text,
)

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
    """A folder under construction: write files into `path`, what was counted into `counts`, and the licences
    of what it is made from into `sources`."""

    path: Path
    counts: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, dict[str, str]] = field(default_factory=dict)


@contextmanager
def build(
    target: Path, *, step: str, config: Mapping[str, Any], inputs: Mapping[str, str], force: bool = False
) -> Iterator[Folder]:
    """Yield an empty folder that becomes `target`, with its manifest, when the block ends without an
    exception.

    `inputs` maps a path to its hash (see `hash_files`). Raises UserError if `target` exists; with `force` the
    old folder is replaced once the new one is complete, unless an input lies in it. If the block fails, its
    folder is removed.
    """
    remove_leftovers(target)
    refuse_existing(target, force=force)
    _keep_inputs(target, inputs)
    partial = beside(target, "partial")
    partial.mkdir(parents=True)
    try:
        folder = Folder(partial)
        yield folder
        write(partial, step=step, config=config, inputs=inputs, counts=folder.counts, sources=folder.sources)
        refuse_existing(target, force=force, created_by="another process in the meantime")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
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
    """As `build`, for a step with many parts: a later run gets the folder that a killed or failed run left.

    It gets that folder unchanged if step, configuration, inputs and `code` (a hash of the program) are the
    same, so the block can skip the parts that are finished; otherwise it gets an empty one. UserError if
    another process is building the same folder.
    """
    _keep_inputs(target, inputs)
    made_from = {"step": step, "config": config, "inputs": dict(inputs), "code": code}
    with resumable_folder(target, made_from, force=force) as partial:
        folder = Folder(partial)
        yield folder
        write(partial, step=step, config=config, inputs=inputs, counts=folder.counts, sources=folder.sources)


def _keep_inputs(target: Path, inputs: Mapping[str, str]) -> None:
    """Raise UserError if replacing `target` would remove one of the inputs."""
    if target.exists():
        refuse_overlap(target, map(Path, inputs))


def hash_code(folder: Path) -> str:
    """One hash of all Python and YAML files of a package."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".yaml"))
    return hashlib.sha256(repr([digest for _, digest in _hash_all(files)]).encode()).hexdigest()


def _is_output(path: Path, folder: Path) -> bool:
    """Whether a file of a finished `folder` is its content: not the manifest, the lock of the process that
    writes there, or what a killed one left half written."""
    return path not in (folder / NAME, folder / LOCK) and not path.match(".*.partial*")


def write(
    folder: Path,
    *,
    step: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    counts: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, str]] | None = None,
    hashes: Mapping[str, str] | None = None,
) -> None:
    """Hash every file of `folder` and write its manifest, synced to disk before it appears.

    `hashes` are those already known, by path in `folder`. This ends the folder's construction: from here on
    an interrupted build starts again from an empty folder.
    """
    (folder / MADE_FROM).unlink(missing_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _is_output(path, folder))
    known = {folder / name: digest for name, digest in (hashes or {}).items()}
    known |= _hash_all(path for path in files if path not in known)
    manifest = {
        "format": FORMAT,
        "step": step,
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "config": config,
        "inputs": dict(inputs),
        "outputs": {path.relative_to(folder).as_posix(): known[path] for path in files},
        "sources": dict(sources or {}),
        "counts": counts,
        "git_commit": git_commit(),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_text(folder / NAME, json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a complete folder; UserError if it is missing or damaged."""
    path = folder / NAME
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is not a complete folder: it has no {NAME}.") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}). Delete {folder} and build it again.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path}: unknown manifest format; this version of the code reads format {FORMAT}.")
    keys = ("config", "counts", "inputs", "outputs")
    if absent := [key for key in keys if not isinstance(manifest.get(key), dict)]:
        raise UserError(f"{path} is damaged (no {', '.join(absent)}). Delete {folder} and build it again.")
    return manifest


def up_to_date(
    target: Path, *, config: Mapping[str, Any], inputs: Mapping[str, str] | None, advice: str
) -> bool:
    """Whether `target` is the result of this configuration and these inputs; False if it does not exist.

    If it was built from anything else, raises UserError with the differences and `advice`. `inputs=None`
    skips the comparison of inputs.
    """
    remove_leftovers(target)
    if not target.exists():
        return False
    manifest = read(target)
    leaves = differences_of(manifest["config"], json.loads(json.dumps(config)))
    differences = [f"{key}: {_short(old)} before, {_short(new)} now" for key, old, new in leaves]
    if inputs is not None:
        differences += _changed_inputs(manifest["inputs"], inputs)
    if differences:
        shown = "\n".join(f"  {line}" for line in differences[:10])
        rest = f"\n  … and {len(differences) - 10} more" if len(differences) > 10 else ""
        raise UserError(f"{target} was built from other settings or inputs:\n{shown}{rest}\n{advice}")
    return True


def verify(folder: Path) -> None:
    """Check the hash of every output; UserError lists files that are missing or have changed."""
    refuse_damage(folder, *damage(folder, read(folder)["outputs"]))


def damage(folder: Path, outputs: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The names of those files of `outputs` (path in `folder` to hash) that are missing, and of those that
    have changed; if any is missing, none is read."""
    missing = [name for name in outputs if not (folder / name).is_file()]
    if missing:
        return missing, []
    hashed = _hash_all(folder / name for name in outputs)
    return [], [path.name for path, found in hashed if outputs[_key(path, folder)] != found]


def refuse_damage(folder: Path, missing: Sequence[str], altered: Sequence[str]) -> None:
    """UserError if the lists of `damage` are not empty."""
    if missing:
        raise UserError(f"{folder} is incomplete: missing {', '.join(missing[:5])}.")
    if altered:
        raise UserError(f"{folder} is damaged: {', '.join(altered[:5])} has changed since it was written.")


def hash_files(files: Iterable[Path]) -> dict[str, str]:
    """Path (as given) to `sha256:<hex>` for each file."""
    return {path.as_posix(): digest for path, digest in _hash_all(files)}


def outputs_of(folder: Path) -> dict[str, str]:
    """A finished folder as the input of another step: its files and their hashes, from its manifest."""
    return {(folder / name).as_posix(): digest for name, digest in read(folder)["outputs"].items()}


def differences_of(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """The dotted key, the old and the new value of every leaf in which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            leaf
            for name in sorted(old.keys() | new.keys())
            for leaf in differences_of(old.get(name), new.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if old == new else [(key, old, new)]


def git_commit() -> str | None:
    """The commit of this code, with `+changes` if the working tree differs; None outside git."""
    root = Path(__file__).parents[2]
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect the results."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hash_file(file: io.BufferedReader) -> str:
    """`sha256:<hex>` of an open file, which is closed."""
    with file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _hash_all(files: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    for path in files:
        yield path, hash_file(path.open("rb"))


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _changed_inputs(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Inputs whose content is new or no longer present; the path of a file does not matter."""
    before, now = set(old.values()), set(new.values())
    removed = {path for path, digest in old.items() if digest not in now}
    added = {path for path, digest in new.items() if digest not in before}
    return [
        f"input {path}: {'changed' if path in removed & added else 'removed' if path in removed else 'new'}"
        for path in sorted(removed | added)
    ]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
