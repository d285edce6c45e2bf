"""What a command says of itself: its options, its configuration's keys, what they may be."""

import re
import subprocess
from typing import Any

from tests.conftest import ROOT, run


def planned(target: str, *variables: str) -> str:
    """The commands that `make TARGET` would run, were nothing set up yet."""
    command = ["make", "-n", "-B", target, *variables]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def arguments_of(command: str) -> list[str]:
    """Module and arguments; those of `make TARGET` are read from the Makefile."""
    if not command.startswith("make "):
        return command.split()
    plan = planned(command.removeprefix("make "))
    found = re.search(r"\S*/python -m (?!tools\.newest)(\S+)", plan)
    assert found, command
    return [found[1]]


def output(command: str, *more: str) -> str:
    """What a command prints."""
    done = run(*arguments_of(command), *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def options(text: str) -> dict[str, Any]:
    """Names, value placeholder and choices of each option in a help text, and whether it is required."""
    usage = re.sub(r"\s+", " ", text.partition("\n\n")[0])
    while "[" in usage:
        usage = re.sub(r"\[[^\[\]]*\]", "", usage)
    found = {}
    for line in re.findall(r"^  (\S.*)$", text[text.index("\n\n") :], re.MULTILINE):
        if not line.startswith("-"):
            continue
        names = re.split(r"\s{2,}", line)[0]
        spelled = re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", names)
        value = re.sub(r"(?<![\w-])--?[a-zA-Z][\w-]*", "", names.rpartition(", ")[2]).strip()
        needed = any(f" {name} " in f"{usage} " for name in spelled)
        found[" ".join(spelled)] = {"value": value} | ({"required": True} if needed else {})
    return found


def positionals(text: str) -> list[str]:
    """The arguments without a dash."""
    part = re.search(r"^positional arguments:\n(.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^  (\S+(?: \S+)*)", part[1], re.MULTILINE) if part else []


def keys(text: str) -> dict[str, str]:
    """Key to default of a `--keys` list; a section has none."""
    lines = [line for line in text.splitlines() if re.match(r"[a-z]", line)]
    matched = [re.fullmatch(r"([\w.]+)(?: = (.*)| \((required)\))?", line) for line in lines]
    return {each[1]: each[2] or each[3] or "" for each in matched if each}


def kinds(command: str, names: list[str], *more: str) -> dict[str, str]:
    """What each key may be, as the refusal of a wrong value says it."""
    wrong = [f"{name}={{frozen: {{}}}}" for name in names]
    done = run(*arguments_of(command), *more, *wrong)
    assert done.returncode == 2, done.stdout + done.stderr
    told = re.findall(r"`([\w.]+)`.*?(?:[Ii]nput should|must) be (.*)$", done.stderr, re.MULTILINE)
    found: dict[str, list[str]] = {}
    for name, kind in told:
        found.setdefault(name, []).append(kind.rstrip("."))
    return {name: " | ".join(each) for name, each in found.items()}
