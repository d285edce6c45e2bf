"""Load a configuration: defaults from a pydantic schema, then a YAML file, then `key.path=value` overrides.

A YAML file contains only what differs from the defaults. A section of the schema may be given as the path of
a YAML file with that section (`model: configs/model/tiny.yaml`). All errors are reported at once, before any
work starts, each with its key, where it was set, what is allowed and the closest valid key. `dump` writes the
resolved configuration, which can be run again unchanged.
"""

import argparse
import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from core.errors import UserError

Tree = dict[str, Any]
Origins = dict[str, str]
"""Dotted key to where it was set: `FILE:LINE` or `command line`."""


class Config(BaseModel):
    """Base class of every configuration section: frozen, no unknown keys, a docstring under each field."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )


C = TypeVar("C", bound=Config)


def load(schema: type[C], file: Path | None, overrides: Sequence[str] = ()) -> C:
    """Read `file`, apply the overrides in order and validate; UserError lists all errors."""
    origins: Origins = {}
    tree = _read_yaml(file, "", origins) if file else {}
    _open_sections(schema, tree, "", origins)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise UserError(f"`{override}` is not of the form key.path=value.")
        found: Origins = {}
        _assign(tree, key.split("."), _parse_value(key, value, found), origins)
        origins |= dict.fromkeys(found, "command line")
        _open_sections(schema, tree, "", origins)
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(schema, item, origins) for item in error.errors(include_url=False))
        listed = "\n".join(f"  {line}" for line in lines)
        raise UserError(f"the configuration has {_count(len(lines), 'error')}:\n{listed}") from None


def places(file: Path) -> Origins:
    """Where each key of a YAML file and each item of its lists is set: `steps.0.name` to `FILE:LINE`."""
    origins: Origins = {}
    _read_yaml(file, "", origins)
    return origins


def dump(config: Config) -> str:
    """The resolved configuration as YAML."""
    tree = config.model_dump(mode="json")
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def add_arguments(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the arguments of a command with a configuration: `--config FILE`, `--keys`, `key.path=value …`."""
    parser.add_argument(
        "--config", type=Path, default=default, metavar="FILE", help=f"YAML file (default: {default})"
    )
    parser.add_argument(
        "--keys", action="store_true", help="print every key with its default and meaning, and exit"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="override a key of the file")


def from_arguments(schema: type[C], arguments: argparse.Namespace) -> C | None:
    """The configuration given by the arguments; with `--keys`, print all keys and return None."""
    if arguments.keys:
        print("\n".join(_describe(schema, "")))
        return None
    return load(schema, arguments.config, arguments.overrides)


# Reading


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core schema: `1e-5` is a number; `no`, `010`, `12:30` and `2024-02-30` are
    strings."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes strings which `_Loader` would not read as strings."""


_FLOAT = r"[-+]?(\.\d+|\d+\.\d*)([eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_SCALARS = {"bool": "true|True|TRUE|false|False|FALSE", "int": r"[-+]?(0|[1-9]\d*)", "float": _FLOAT}
for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in _class.yaml_implicit_resolvers.items()
    }
    for _name, _pattern in _SCALARS.items():
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^({_pattern})$"), None)


def _read_yaml(file: Path, prefix: str, origins: Origins) -> Tree:
    """The mapping in a YAML file. Records the line of each key in `origins`; UserError for a duplicate
    key."""
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(
            str(file), [str(path) for path in Path("configs").rglob("*.yaml")], 1
        )
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"{file}: configuration file not found.{hint}") from None
    except IsADirectoryError:
        raise UserError(f"{file}: a folder. Give a YAML file.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 (at byte {error.start}). Save the file as UTF-8.") from None
    tree = _parse_yaml(text, str(file), prefix, origins)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{file}: expected `key: value` lines, found {_kind(tree)}.")
    return tree


def _parse_yaml(text: str, name: str, prefix: str, origins: Origins) -> Any:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _build(loader, node, name, prefix, origins)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{name}{line}: not valid YAML: {error.problem}.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist, e.g. 2024-02-30
        raise UserError(f"{name}: not valid YAML: {error}.") from None
    except RecursionError:
        raise UserError(f"{name}: not valid YAML: an alias refers to itself.") from None


def _build(loader: yaml.SafeLoader, node: yaml.Node, name: str, key: str, origins: Origins) -> Any:
    match node:
        case yaml.MappingNode():
            tree: Tree = {}
            for key_node, value_node in node.value:
                part = str(loader.construct_object(key_node))
                where = f"{name}:{key_node.start_mark.line + 1}"
                path = f"{key}.{part}" if key else part
                if part in tree:
                    raise UserError(
                        f"{where}: duplicate key `{path}`, already set at {origins[path]}. Keep one."
                    )
                origins[path] = where
                tree[part] = _build(loader, value_node, name, path, origins)
            return tree
        case yaml.SequenceNode():
            items = []
            for i, item in enumerate(node.value):
                origins[f"{key}.{i}"] = f"{name}:{item.start_mark.line + 1}"
                items.append(_build(loader, item, name, f"{key}.{i}", origins))
            return items
        case _:
            return loader.construct_object(node)


def _parse_value(key: str, value: str, origins: Origins) -> Any:
    return _parse_yaml(value, f"the value of `{key}`", key, origins) if value else None


def _assign(tree: Tree, path: list[str], value: Any, origins: Origins) -> None:
    node = tree
    for depth, part in enumerate(path[:-1]):
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise UserError(
                f"`{'.'.join(path)}`: `{'.'.join(path[: depth + 1])}` is {_shown(child)}, not a section."
            )
        node = child
        origins.setdefault(".".join(path[: depth + 1]), "command line")
    node[path[-1]] = value
    origins[".".join(path)] = "command line"


def _open_sections(schema: type[Config], tree: Tree, prefix: str, origins: Origins) -> None:
    """Replace a path given for a section by the contents of that YAML file."""
    for name, field in schema.model_fields.items():
        section = _section(field.annotation)
        if section is None or name not in tree:
            continue
        key = f"{prefix}{name}"
        if tree[name] is None and not _is_optional(field.annotation):
            tree[name] = {}  # `pack:` with nothing below it
        if isinstance(tree[name], str):
            tree[name] = _read_yaml(Path(tree[name]), key, origins)
        if isinstance(tree[name], dict):
            _open_sections(section, tree[name], f"{key}.", origins)


def _section(annotation: Any) -> type[Config] | None:
    """The schema of a field that is a section (or an optional one); otherwise None."""
    options = [kind for kind in (typing.get_args(annotation) or (annotation,)) if kind is not type(None)]
    if len(options) == 1 and isinstance(options[0], type) and issubclass(options[0], Config):
        return options[0]
    return None


def _is_optional(annotation: Any) -> bool:
    return type(None) in typing.get_args(annotation)


# Explaining


def _explain(schema: type[Config], item: ErrorDetails, origins: Origins) -> str:
    key = ""
    for i, part in enumerate(item["loc"], 1):
        longer = f"{key}.{part}" if key else str(part)
        # The location of an error in a union also contains the alternative's name, which is not a key.
        if longer in origins or (item["type"] == "missing" and i == len(item["loc"])):
            key = longer
    where = f" ({origins[key]})" if key in origins else ""
    match item["type"]:
        case "extra_forbidden":
            known = [name for name in _keys(schema, "") if not key.startswith(f"{name}.")]
            near = difflib.get_close_matches(key, known, 1, 0.6) or [
                name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]
            ]
            hint = f"did you mean `{near[0]}`?" if near else "--keys lists all keys."
            return f"`{key}`{where}: unknown key; {hint}"
        case "missing":
            return f"`{key}`: required, but not set."
        case _:
            message = item["msg"].removeprefix("Value error, ")
            message = message.replace("Input should be", "must be", 1)
            if item["type"] == "model_type":
                message = "must be a section, or the path of a YAML file with that section"
            subject = f"`{key}` = {_shown(item['input'])}{where}" if key else "the configuration"
            return f"{subject}: {message[:1].lower()}{message[1:]}."


def _keys(schema: type[Config], prefix: str) -> Iterator[str]:
    for name, field in schema.model_fields.items():
        yield f"{prefix}{name}"
        if section := _section(field.annotation):
            yield from _keys(section, f"{prefix}{name}.")


def _describe(schema: type[Config], prefix: str) -> Iterator[str]:
    """`key = default`, then its meaning, for every key."""
    for name, field in schema.model_fields.items():
        section = _section(field.annotation)
        default = "" if section else " (required)"
        if not section and not field.is_required():
            default = f" = {_plain(field.get_default(call_default_factory=True))}"
        yield f"{prefix}{name}{default}"
        for line in (field.description or "").splitlines():
            yield f"    {line}"
        if section:
            yield from _describe(section, f"{prefix}{name}.")


def _kind(value: Any) -> str:
    """What YAML calls a value that is not a mapping."""
    return "a list" if isinstance(value, list) else f"only {_shown(value)}"


def _shown(value: Any) -> str:
    """A value as in YAML, shortened to fit a message."""
    text = str(value).lower() if isinstance(value, bool) else "null" if value is None else repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple | str) or value is None:
        return yaml.safe_dump(value, default_flow_style=True, width=10_000).splitlines()[0]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
