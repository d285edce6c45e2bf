"""The files that a run is made from: hashed beside training, and compared before the run goes on.

base, adapter, data folders ──▶ path: hash ──▶ the manifests of checkpoints and of RUN/model
                                   └──────────▶ RUN/inputs.json: size, time of change and hash of each file

A file of the same size and time as in RUN/inputs.json is not read again, so going on costs no second hashing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from core.provenance import atomic_io, manifest

NAME = "inputs.json"
Noted = dict[str, list[int | str]]
"""Path to size, time of change (ns) and hash."""
SHOWN = 5
"""Number of changed files that are listed."""


class Inputs(NamedTuple):
    """What a run is made from."""

    run: Path
    branch: Path | None
    """The checkpoint of another run that this one starts from."""
    base: str
    adapter: str | None
    """The adapter that training continues."""
    folders: Sequence[Path]
    """The data, in finished folders."""

    def hashes(self, *, note: bool) -> dict[str, str]:
        """Path to hash of every file that the result depends on: what is in the data folders by their
        manifests (read again where it has changed since it was noted), the base's and the adapter's weights
        and configuration. With `note`, RUN/inputs.json is written."""
        stated: dict[str, str] = {}
        for folder in self.folders:
            stated |= manifest.outputs_of(folder)
        models = [*_model_files(self.base), *(_model_files(self.adapter) if self.adapter else ())]
        now: Noted = {}
        noted = _noted(self.run) or (_noted(self.branch.resolve().parents[1]) if self.branch else {})
        found: dict[str, str] = {}
        for file in [*map(Path, stated), *models]:
            if not file.is_file():
                continue
            name, stat = file.as_posix(), file.stat()
            mark = [stat.st_size, stat.st_mtime_ns]
            before = noted.get(name)
            if before is not None and before[:2] == mark:
                found[name] = str(before[2])
            elif before is None and name in stated:
                found[name] = stated[name]
            else:
                found |= manifest.hash_files([file])
            now[name] = [*mark, found[name]]
        if note:
            atomic_io.write_text(self.run / NAME, json.dumps(now, indent=1) + "\n")
        return found

    def check_same(self) -> None:
        """UserError if a file that the run's newest checkpoint (or the branch) was made from has changed or
        is gone; a file may have moved."""
        checkpoint, recorded = _recorded(self.run, self.branch)
        if not recorded:
            return
        now = self.hashes(note=False)
        contents = set(now.values())
        others = [Path(name) for name in recorded if name not in now and recorded[name] not in contents]
        now |= manifest.hash_files(file for file in others if file.is_file())  # of an older version
        changed = [
            f"  {name}: {'changed' if name in now else 'gone'}"
            for name, digest in recorded.items()
            if (now[name] != digest if name in now else digest not in contents)
        ]
        if changed:
            more = [f"  and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
            listed = "\n".join([*changed[:SHOWN], *more])
            remove = "" if checkpoint == self.branch else f", or remove {self.run}"
            raise UserError(
                f"{checkpoint} was trained from files that are not the same now:\n{listed}\nRestore them to"
                f" go on. To train from the present ones, start a new run: choose another run_dir{remove}."
            )


def _recorded(run: Path, branch: Path | None) -> tuple[Path | None, Mapping[str, str]]:
    """The newest checkpoint with a manifest, and the inputs in it."""
    own = sorted((run / "checkpoints").glob("step-*"), reverse=True)
    for folder in own or ([branch] if branch else []):
        try:
            inputs: Mapping[str, str] = manifest.read(folder)["inputs"]
        except UserError:  # a damaged checkpoint is reported where checkpoints are opened
            continue
        return folder, {name: digest for name, digest in inputs.items() if digest.startswith("sha256:")}
    return None, {}


def _model_files(path: str) -> Iterator[Path]:
    """The weights and the configuration of a model or an adapter, in a folder or in the hub's cache.

    Every file that looks like weights, also one that is not loaded: what an older run noted stays comparable.
    """
    folder = Path(path)
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(path, "config.json")
        if not isinstance(cached, str):
            return
        folder = Path(cached).parent
    for pattern in ("*.safetensors", "*.bin", "config.json", "adapter_config.json"):
        yield from sorted(folder.glob(pattern))


def _noted(run: Path) -> Noted:
    """What RUN/inputs.json says; nothing if it is missing or damaged."""
    try:
        noted: Noted = json.loads((run / NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return noted
