"""Commands have the options, and configurations the keys and defaults, that they had when they were frozen.

Words that explain are not frozen. Commands that may move are found through their make target.
"""

import re

import pytest

from tests.conftest import ROOT
from tests.frozen.commands import keys, kinds, options, output, planned, positionals
from tests.frozen.pinned import check

COMMANDS = [
    "pretrain", "pretrain estimate", "pretrain smoke", "sft", "sft preview", "sft dpo", "sft merge",
    "sft chat", "sft card", "data run", "data stats", "data inspect", "data tokenizer",
    "data tokenizer extend", "data synthesize", "data everyday", "data show", "data texts", "data chats",
    "data build",
    "data generate", "data preview", "delta make", "delta apply", "delta verify", "delta info",
    "delta convert", "delta gguf", "eval run", "eval score", "eval contamination", "eval compare",
    "eval report", "eval export", "eval sheet", "eval judge", "eval comet", "eval submission",
    "serve index", "serve embed", "serve search", "serve gate", "serve run", "serve pairs",
    "serve ground", "serve queries", "eval ranking", "eval trainings",
]  # fmt: skip
MAKE_ONLY = ["doctor", "plan", "study", "real-model", "lineage", "refresh"]
"""Targets whose command has no room of its own."""
WITH_KEYS = ["pretrain", "sft", "sft dpo", "data run", "data chats", "data build", "data generate",
             "make plan"]  # fmt: skip
MORE = {"data chats": ["--tokenizer", "t"], "pretrain estimate": ["--gpus", "1"]}
"""Arguments that must be given."""
VARIABLES = ["ADAPTER", "ARGS", "AT_ONCE", "BASE", "CONFIG", "DELTA", "ENDPOINT", "EVALDATA", "GATE", "GPUS",
             "HOSTFILE", "INDEX", "KILLS", "LOAD_IN_4BIT", "MODEL", "NAME", "OUTPUT", "PYTHON", "REAL", "RUN",
             "SEEDS", "SLURM", "STUDY", "TARGET", "TASKS", "TESTS", "VENV", "VERIFY"]  # fmt: skip


@pytest.mark.parametrize("command", [*COMMANDS, *(f"make {target}" for target in MAKE_ONLY)])
def test_a_command_has_its_options(command: str) -> None:
    text = output(command, "--help")
    assert text.startswith("usage:")
    found = {"options": options(text), "arguments": positionals(text)}
    check("interface.json", f"options of {command}", found)


@pytest.mark.parametrize("room", ["data", "delta", "eval", "serve"])
def test_a_room_has_its_commands(room: str) -> None:
    text = output(room, "--help").partition("positional arguments:\n  COMMAND\n")[2].partition("\n\n")[0]
    listed = re.findall(r"^    (\w+)", text, re.MULTILINE)
    assert listed
    check("interface.json", f"commands of {room}", sorted(listed))


@pytest.mark.parametrize("command", WITH_KEYS)
def test_a_configuration_has_its_keys_kinds_and_defaults(command: str) -> None:
    found = keys(output(command, *MORE.get(command, []), "--keys"))
    assert found
    leaves = [name for name in found if not any(other.startswith(f"{name}.") for other in found)]
    check("interface.json", f"keys of {command}", found)
    check("interface.json", f"kinds of {command}", kinds(command, leaves, *MORE.get(command, [])))


@pytest.mark.parametrize("command", ["pretrain estimate", "sft preview"])
def test_a_command_of_a_room_reads_the_same_configuration(command: str) -> None:
    found = keys(output(command, *MORE.get(command, []), "--keys"))
    check("interface.json", f"keys of {command.partition(' ')[0]}", found)


def test_make_has_its_targets_and_each_heeds_its_variables() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    found = {}
    for target in sorted(phony[1].split()):
        plain = planned(target)
        heeded = [name for name in VARIABLES if planned(target, f"{name}=7") != plain]
        found[target] = [name for name in heeded if name not in ("PYTHON", "VENV")]
        assert target in ("help", "constraints", "clean") or "VENV" in heeded, target
    check("interface.json", "make", found)


def test_make_starts_as_many_processes_as_asked_for_and_on_the_hosts_named() -> None:
    for target in ("pretrain", "sft", "eval"):
        assert "--processes '8' -m" in planned(target, "GPUS=8")
        assert "--hostfile hosts -m" in planned(target, "HOSTFILE=hosts")
