"""A JSON file of another program's settings, which a configuration names: read, flattened, merged."""

import json
from pathlib import Path
from typing import Any

from core.errors import UserError

Tree = dict[str, Any]


def read(file: Path, key: str) -> Tree:
    """The settings in `file`, which `key` names, without those that are "auto": in transformers' files these
    mean "as the command says". UserError if it is not one JSON object."""
    try:
        content = json.loads(file.read_text("utf-8"), object_pairs_hook=_object)
    except FileNotFoundError:
        raise UserError(f"{key}: {file}: no such file.") from None
    except OSError as error:
        raise UserError(f"{key}: {file} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"{key}: {file} is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{key}: {file}: expected a JSON object.")
    return _given(content)


def flat(tree: Tree, prefix: str = "") -> Tree:
    """Every value by its dotted key."""
    found: Tree = {}
    for key, value in tree.items():
        nested = isinstance(value, dict) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def merge(into: Tree, other: Tree) -> None:
    """Set the values of `other` in `into`, section by section."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def _object(pairs: list[tuple[str, Any]]) -> Tree:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'"{twice}" is set twice')
    return tree


def _given(tree: Tree) -> Tree:
    """`tree` without "auto", and without the sections in which nothing is left."""
    kept = {key: _given(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return {key: value for key, value in kept.items() if value not in ("auto", {})}
