"""Trace a score, a model or a checkpoint back to the raw files it was built from.

    python -m tools.lineage runs/patents/model            what was built from what, when, by which command
    python -m tools.lineage runs/patents/model --verify   and whether all files still have their hashes

A folder's manifest lists its inputs. Each input is in another folder with a manifest, or is a raw file.
Relative paths are resolved from the repository's root, where the commands ran. `--verify` hashes every file
of the tree, lists each file that was modified, deleted or rebuilt since, with the folders that depend on it,
and exits with code 1 if there are any.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import UserError, run_command
from core.provenance import manifest

SHOWN = 5
"""Number of raw files listed per folder without --all; the rest are only counted."""


@dataclass(eq=False)
class Artifact:
    """A finished folder and what it was built from."""

    folder: Path
    manifest: dict[str, Any]
    parents: list["Artifact"] = field(default_factory=list)
    """The artifacts it was built from."""
    raw: dict[Path, str] = field(default_factory=dict)
    """Input files that belong to no artifact, with the hashes that they had."""
    used: list[tuple["Artifact", str, str]] = field(default_factory=list)
    """Input files from other artifacts: artifact, name of the file in it, and the hash that it had."""


def main() -> int:
    """Print the tree and, with --verify, what has changed since."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lineage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", type=Path, help="a folder with a manifest.json, a run's folder, or a file in one of them"
    )
    parser.add_argument("--verify", action="store_true", help="check the hash of every file in the tree")
    parser.add_argument("--all", action="store_true", help="list all raw files")
    arguments = parser.parse_args()
    root = trace(find(arguments.run))
    print("\n".join(draw(root, show_all=arguments.all)))
    if not arguments.verify:
        return 0
    changes = list(verify(root))
    for path, problem, dependents in changes:
        print(f"{path}: {problem}. Affected:")
        print("\n".join(f"  {folder}" for folder in dependents))
    if not changes:
        print(f"all {sum(len(files(artifact)) for artifact in walk(root)):,} files are unchanged.")
    return int(bool(changes))


def find(path: Path) -> Path:
    """The folder with a manifest that `path` refers to; for a run, its model or else its latest
    checkpoint."""
    for folder in (path, path / "model", *sorted(path.glob("checkpoints/step-*"), reverse=True)):
        if (folder / manifest.NAME).is_file():
            return folder
    for folder in path.parents:
        if path.exists() and (folder / manifest.NAME).is_file():
            return folder
    raise UserError(
        f"{path}: no {manifest.NAME} found in it, nor in its model/ or checkpoints/. Give a finished folder."
    )


def trace(folder: Path, seen: dict[Path, Artifact] | None = None) -> Artifact:
    """The artifact in `folder`, with everything it was built from; an artifact used twice is one object."""
    seen = {} if seen is None else seen
    place = folder.resolve()
    if place not in seen:
        artifact = seen[place] = Artifact(folder, manifest.read(folder))
        for name, digest in artifact.manifest["inputs"].items():
            home = next((up for up in Path(name).parents if (up / manifest.NAME).is_file()), None)
            parent = trace(home, seen) if home is not None and home.resolve() != place else None
            inside = Path(name).relative_to(home).as_posix() if home else ""
            if parent is None or inside not in parent.manifest["outputs"]:
                artifact.raw[Path(name)] = digest
                continue
            artifact.used.append((parent, inside, digest))
            if parent not in artifact.parents:
                artifact.parents.append(parent)
    return seen[place]


def draw(root: Artifact, *, show_all: bool) -> Iterator[str]:
    """The lines of the tree, then the commands. An artifact that appears again is not expanded again."""
    drawn: list[Artifact] = []
    commands: dict[str, int] = {}

    def lines(artifact: Artifact, first: str, others: str) -> Iterator[str]:
        made = artifact.manifest
        again = artifact in drawn
        drawn.append(artifact)
        counts = ", ".join(f"{k} {v:,}" for k, v in made["counts"].items() if type(v) is int)
        step = f"{made.get('step')}{', see above' if again else ''}"
        yield f"{first}{artifact.folder}  [{step}] {counts}".rstrip()
        if again:
            return
        below = others + ("│  " if artifact.parents or artifact.raw else "   ")
        number = commands.setdefault(made.get("command") or "unknown", len(commands) + 1)
        commit = (made.get("git_commit") or "unknown")[:12]
        yield f"{below}{made.get('created')}, commit {commit}, command {number}"
        listed = list(artifact.raw.items()) if show_all else list(artifact.raw.items())[:SHOWN]
        leaves = [f"{path}  {digest[:19]}" for path, digest in listed]
        if len(leaves) < len(artifact.raw):
            leaves.append(f"… and {len(artifact.raw) - len(leaves):,} more raw files (--all lists them)")
        for number, leaf in enumerate(leaves, 1):
            yield f"{others}{'├' if artifact.parents or number < len(leaves) else '└'}─ {leaf}"
        for number, parent in enumerate(artifact.parents, 1):
            last = number == len(artifact.parents)
            yield from lines(parent, f"{others}{'└' if last else '├'}─ ", others + ("   " if last else "│  "))

    yield from lines(root, "", "")
    for command, number in commands.items():
        yield f"command {number}: {command}"


def verify(root: Artifact) -> Iterator[tuple[Path, str, list[Path]]]:
    """Each file that has changed: the file, what happened to it, and the folders that depend on it."""
    artifacts = walk(root)
    for artifact in artifacts:
        dependents = [each.folder for each in artifacts if artifact in walk(each)]
        for path, digest in files(artifact).items():
            if not path.is_file():
                yield path, "missing", dependents
            elif next(iter(manifest.hash_files([path]).values())) != digest:
                since = f"{artifact.folder} was built from it" if path in artifact.raw else "it was written"
                yield path, f"modified since {since}", dependents
        for parent, name, digest in artifact.used:
            if parent.manifest["outputs"][name] != digest:
                yield parent.folder / name, f"rebuilt since {artifact.folder} was built from it", dependents


def walk(root: Artifact) -> list[Artifact]:
    """The artifact and everything it was built from, each once."""
    found = [root]
    for artifact in found:
        found += [parent for parent in artifact.parents if parent not in found]
    return found


def files(artifact: Artifact) -> dict[Path, str]:
    """The outputs of an artifact and the raw files that it used, with their hashes. A revision on the hub is
    not a file."""
    raw = {path: digest for path, digest in artifact.raw.items() if digest.startswith("sha256:")}
    return {artifact.folder / name: digest for name, digest in artifact.manifest["outputs"].items()} | raw


if __name__ == "__main__":
    run_command(main)
