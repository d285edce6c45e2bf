"""Which files of a folder are the model's weights: those that transformers loads, and no others.

`from_pretrained` takes the first of these that is there: the file that `transformers_weights` in config.json
names, model.safetensors, its index, pytorch_model.bin, its index. Whatever else lies there, such as the
shards or the index of an earlier save, is not read. Only where there is none of these, a numbered set without
an index is taken (`model-00001-of-00002.safetensors` …), if its names show that it is complete.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError, printable_name

INDEX = "model.safetensors.index.json"
STANDARD = ("model.safetensors", INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
"""In the order in which transformers looks for them."""
NUMBERED = re.compile(r"((?:model|pytorch_model)-)(\d{5})(-of-(\d{5})\.(?:safetensors|bin))")


@dataclass(frozen=True)
class WeightFiles:
    """The weights of a folder."""

    folder: Path
    files: list[Path]
    """One file, or the shards, sorted by name. All are there."""
    indexed: frozenset[str]
    """The tensors that the index names; empty without an index."""
    unread: list[str]
    """Other files that hold weights, or list them, by name."""

    @property
    def pickled(self) -> bool:
        """Whether they were written by torch.save."""
        return self.files[0].suffix == ".bin"

    @property
    def note(self) -> str:
        """A line about what lies there and is not read; "" if there is nothing."""
        if not self.unread:
            return ""
        first, more = self.unread[0], len(self.unread) - 1
        others = f"{first} and {more} more" if more else first
        return f"{self.folder}: {self.files[0].name} is read, as by transformers; {others} beside it is not."

    def check(self, tensors: Iterable[str]) -> None:
        """UserError if a tensor that the index names is not among `tensors`, those of all files."""
        if lost := sorted(self.indexed.difference(tensors)):
            raise UserError(
                f"{self.folder}: tensor {lost[0]} is in the index but in none of the files"
                f"{f', and so are {len(lost) - 1:,} more' if lost[1:] else ''}. Download the files again."
            )


def find(folder: Path) -> WeightFiles:
    """The weights in `folder`; UserError if there are none, or if a file is missing."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.")
    found = find_any(folder)
    if found:
        return found
    others = _weights_in(folder)
    hint = f" There is {others[0]}; if it is the whole model, rename it." if len(others) == 1 else ""
    for start, kind in (("adapter_model.", "an adapter"), ("delta-", "a delta")):
        if any(name.startswith(start) for name in others):
            hint = f" This is {kind}."
    raise UserError(f"{folder}: no weights found: transformers looks for {', '.join(STANDARD)}.{hint}")


def find_any(folder: Path) -> WeightFiles | None:
    """As `find`, but None if there are no weights."""
    chosen = _explicit(folder) or next((name for name in STANDARD if (folder / name).is_file()), None)
    indexed: frozenset[str] = frozenset()
    if chosen is None:
        names = _numbered(folder)
        if not names:
            return None
    elif chosen.endswith(".index.json"):
        weight_map = _read_index(folder / chosen)
        names, indexed = sorted(set(weight_map.values())), frozenset(weight_map)
    else:
        names = [chosen]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        more = f", and so are {len(missing) - 1} more of {len(names)} files" if missing[1:] else ""
        raise UserError(
            f"{folder / missing[0]} is missing or not a file{more}:"
            f" {chosen or names[-1]} says that the weights are in {len(names)}. Download it again."
        )
    unread = [name for name in _weights_in(folder) if name not in (*names, chosen)]
    return WeightFiles(folder, [folder / name for name in names], indexed, unread)


def is_plain_name(name: str) -> bool:
    """Whether a name read from a file is a plain file name: no path, not hidden, no control characters."""
    return not (
        name in ("", ".", "..") or name.startswith(".") or has_control(name) or set(name) & set("/\\")
    )


def has_control(name: str) -> bool:
    """Whether a name has characters that belong in no name."""
    return name != printable_name(name)


def _explicit(folder: Path) -> str | None:
    """The file that config.json names, if it names one."""
    path = folder / "config.json"
    try:
        named = json.loads(path.read_text("utf-8")).get("transformers_weights")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None  # whoever needs the configuration complains
    if named is None:
        return None
    if not isinstance(named, str) or not is_plain_name(named) or ".safetensors" not in named:
        raise UserError(f"{path}: transformers_weights={named!r} is not the name of a file of weights.")
    return named


def _read_index(index: Path) -> dict[str, str]:
    try:
        weight_map: dict[Any, Any] = json.loads(index.read_text("utf-8"))["weight_map"]
        odd = [name for name in weight_map.values() if not is_plain_name(name)]
        if any(has_control(name) for name in weight_map):
            raise ValueError("a tensor's name has control characters")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index} is damaged ({error!r}). Download it again.") from None
    if odd:
        raise UserError(f"{index}: {odd[0]!r} is not a valid file name.")
    if not weight_map:
        raise UserError(f"{index} is damaged: it names no tensors. Download it again.")
    return weight_map


def _numbered(folder: Path) -> list[str]:
    """Every name of a numbered set of which at least one file is there; empty if there is no such file."""
    found = [match for name in _weights_in(folder) if (match := NUMBERED.fullmatch(name))]
    sets = {(match[1], match[3]): int(match[4]) for match in found}
    for ending in ("safetensors", "bin"):
        of_kind = sorted(each for each in sets if each[1].endswith(ending))
        if len(of_kind) > 1:
            names = " and ".join(f"{start}…{end}" for start, end in of_kind)
            raise UserError(f"{folder}: {names} are two sets of weights, and no index says which to load.")
        for start, end in of_kind:
            return [f"{start}{number:05d}{end}" for number in range(1, sets[start, end] + 1)]
    return []


def _weights_in(folder: Path) -> list[str]:
    """The files that hold weights or list them, by name."""
    return sorted(
        file.name
        for file in folder.iterdir()
        if file.name.endswith((".safetensors", ".bin", ".safetensors.index.json", ".bin.index.json"))
        and file.name not in ("training_args.bin", "optimizer.bin", "scheduler.bin")
    )
