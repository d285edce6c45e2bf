"""From a score, a model or a checkpoint back to the raw files that it rests on.

    python -m tools.lineage runs/patents/model            what was made from what, when, by which command
    python -m tools.lineage runs/patents/model --verify   and whether all files still have their hashes

A folder's manifest names its inputs; each input lies in another folder with a manifest, or is a raw file.
Paths are looked up from where the commands ran, the repository's root. `--verify` hashes every file of the
tree. It names each that is altered, missing, or has been made again since, with all that rests on it, and
ends with exit code 1 where there is one.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import UserError, run_command
from core.provenance import manifest

SHOWN = 5
"""Raw files of one step that are listed; the rest are counted, unless --all is given."""


@dataclass(eq=False)
class Step:
    """A finished folder, and what it was made from."""

    folder: Path
    manifest: dict[str, Any]
    steps: list["Step"] = field(default_factory=list)
    raw: dict[Path, str] = field(default_factory=dict)
    """Files that no step made, with the hashes that they had."""
    taken: list[tuple["Step", str, str]] = field(default_factory=list)
    """What was read of other steps: step, name of the file there, and the hash that it had."""


def main() -> int:
    """Print the tree and, on request, what is no longer as it was."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lineage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", type=Path, help="a folder with a manifest.json, a run, or a file in one of them"
    )
    parser.add_argument("--verify", action="store_true", help="hash every file of the tree")
    parser.add_argument("--all", action="store_true", help="list all raw files")
    given = parser.parse_args()
    root = trace(find(given.run))
    print("\n".join(draw(root, show_all=given.all)))
    if not given.verify:
        return 0
    wrong = list(verify(root))
    for path, words, above in wrong:
        print(f"{path}: {words}. On it rest:")
        print("\n".join(f"  {folder}" for folder in above))
    if not wrong:
        print(f"all {sum(len(files(step)) for step in walk(root)):,} files are as they were.")
    return int(bool(wrong))


def find(path: Path) -> Path:
    """The folder with a manifest that is meant: of a run, its model, else its newest checkpoint."""
    for folder in (path, path / "model", *sorted(path.glob("checkpoints/step-*"), reverse=True)):
        if (folder / manifest.NAME).is_file():
            return folder
    for folder in path.parents:
        if path.exists() and (folder / manifest.NAME).is_file():
            return folder
    raise UserError(f"{path}: no {manifest.NAME} there, nor in a model/ or checkpoints/ of it.")


def trace(folder: Path, seen: dict[Path, Step] | None = None) -> Step:
    """The step that made `folder`, with all steps before it; one that two rest on is one object."""
    seen = {} if seen is None else seen
    place = folder.resolve()
    if place not in seen:
        step = seen[place] = Step(folder, manifest.read(folder))
        for name, digest in step.manifest["inputs"].items():
            home = next((up for up in Path(name).parents if (up / manifest.NAME).is_file()), None)
            before = trace(home, seen) if home is not None and home.resolve() != place else None
            inside = Path(name).relative_to(home).as_posix() if home else ""
            if before is None or inside not in before.manifest["outputs"]:
                step.raw[Path(name)] = digest
                continue
            step.taken.append((before, inside, digest))
            if before not in step.steps:
                step.steps.append(before)
    return seen[place]


def draw(root: Step, *, show_all: bool) -> Iterator[str]:
    """The tree's lines, then the commands; a step that was drawn already is only named."""
    drawn: list[Step] = []
    commands: dict[str, int] = {}

    def lines(step: Step, first: str, others: str) -> Iterator[str]:
        made = step.manifest
        again = step in drawn
        drawn.append(step)
        counts = ", ".join(f"{k} {v:,}" for k, v in made["counts"].items() if type(v) is int)
        yield f"{first}{step.folder}  [{made.get('step')}{', see above' if again else ''}] {counts}".rstrip()
        if again:
            return
        below = others + ("│  " if step.steps or step.raw else "   ")
        number = commands.setdefault(made.get("command") or "unknown", len(commands) + 1)
        commit = (made.get("git_commit") or "unknown")[:12]
        yield f"{below}{made.get('created')}, commit {commit}, command {number}"
        listed = list(step.raw.items()) if show_all else list(step.raw.items())[:SHOWN]
        leaves = [f"{path}  {digest[:19]}" for path, digest in listed]
        if len(leaves) < len(step.raw):
            leaves.append(f"… and {len(step.raw) - len(leaves):,} more raw files (--all)")
        for number, leaf in enumerate(leaves, 1):
            yield f"{others}{'├' if step.steps or number < len(leaves) else '└'}─ {leaf}"
        for number, before in enumerate(step.steps, 1):
            last = number == len(step.steps)
            yield from lines(before, f"{others}{'└' if last else '├'}─ ", others + ("   " if last else "│  "))

    yield from lines(root, "", "")
    for command, number in commands.items():
        yield f"command {number}: {command}"


def verify(root: Step) -> Iterator[tuple[Path, str, list[Path]]]:
    """Each file that is not as it was: the file, what is wrong, and the folders that rest on it."""
    steps = list(walk(root))
    for step in steps:
        for path, digest in files(step).items():
            if not path.is_file():
                words = "is missing"
            elif next(iter(manifest.hash_files([path]).values())) != digest:
                words = "was altered since" + (
                    f" {step.folder} was made" if path in step.raw else " it was made"
                )
            else:
                continue
            yield path, words, [each.folder for each in steps if step in walk(each)]
        for before, name, digest in step.taken:
            if before.manifest["outputs"][name] != digest:
                words = f"was made again since {step.folder} was made from it"
                yield before.folder / name, words, [each.folder for each in steps if step in walk(each)]


def walk(root: Step) -> list[Step]:
    """The step and all before it, each once."""
    found = [root]
    for step in found:
        found += [before for before in step.steps if before not in found]
    return found


def files(step: Step) -> dict[Path, str]:
    """What a step made, and the raw files that it read, with their hashes; a hub's revision is no file."""
    raw = {path: digest for path, digest in step.raw.items() if digest.startswith("sha256:")}
    return {step.folder / name: digest for name, digest in step.manifest["outputs"].items()} | raw


if __name__ == "__main__":
    run_command(main)
