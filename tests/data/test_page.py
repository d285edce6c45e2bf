"""docs/data.md lists every format, reason, rule and key; and its examples can be run."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from core.config.loader import Config, _keys
from data import __main__ as command
from data.chat.config import ChatDataConfig
from data.chat.from_patents import BuildConfig
from data.chat.generate_with_llm import GenerateConfig
from data.cleaning.record_cleaner import CleanConfig, steps
from data.corpus_report import STEPS
from data.dedup import dedup, ngram_index
from data.dedup.decontaminate import EvaluationSet
from data.pipeline import DataConfig
from data.readers import formats, rows
from data.readers.source import Source
from data.record import Record
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "data.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """A chapter of the page, to the next one."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def code(text: str) -> str:
    """What stands in code spans and blocks of a text."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def names(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", code(text)) is not None


def strings(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def reasons() -> set[str]:
    """The reasons of rejections, read from the readers' source."""
    found: set[str] = set()
    for path in [ROOT / "data" / "stream.py", *(ROOT / "data" / "readers").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            raised = isinstance(node, ast.Call) and {"Rejected", "Unreadable"} & {
                each.id for each in (node.func, *node.args) if isinstance(each, ast.Name)
            }
            named = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "reason"
            if raised or named:
                found |= {text for text in strings(node) if re.fullmatch(r"[a-z]+(-[a-z]+)+", text)}
    return found


def test_every_format_stands_in_the_page() -> None:
    tree = ast.parse(Path(formats.__file__).read_text("utf-8"))
    cases = [node for node in ast.walk(tree) if isinstance(node, ast.MatchValue)]
    known = {text for case in cases for text in strings(case)} - {"nothing"} | {*rows.CONTAINERS}
    assert len(known) > 25
    assert not [name for name in known if not names(name, section("Formats"))]


def test_every_reason_of_a_rejection_stands_in_the_page() -> None:
    known = reasons()
    assert len(known) > 20
    assert not [reason for reason in known if not names(reason, section("Rejected documents"))]


def test_every_rule_stands_in_the_page() -> None:
    text = "一种离心泵，其壳体与轴之间通过橡胶圈密封。"
    fields = {"id": "CN-1-A", "language": "zh", "claims": [text], "description": f"{text} " * 9}
    record = cast(Record, dict.fromkeys(Record.__annotations__) | fields)
    config = CleanConfig(
        convert="simplified", max_characters=10_000, max_repeated_lines=1, max_repeated_ngrams=1
    )
    cleaning = {rule for rule, _ in steps(config, record, frozenset(["x"]), {})} | {"error"}
    assert len(cleaning) > 15
    selecting = ("office", "kind", "language", "date", "ipc")
    for title, rules in (
        ("Selection", selecting),
        ("Cleaning", cleaning),
        ("Duplicates", dedup.RULES),
        ("Contamination", ngram_index.RULES),
    ):
        rows = {row.split("`")[1] for row in section(title).splitlines() if row.startswith("| `")}
        assert {*rules} <= rows, title


CHAPTERS = {
    "select": "Selection", "clean": "Cleaning", "dedup": "Duplicates", "decontaminate": "Contamination",
    "tokenizer": "Tokenizer", "pack": "Tokenise and pack", "engine": "SLURM and dask",
}  # fmt: skip


def test_every_key_of_the_configuration_stands_in_the_page() -> None:
    keys = [key for key in _keys(DataConfig, "") if key not in CHAPTERS]
    assert len(keys) > 60
    absent = []
    for key in keys:
        head, _, leaf = key.rpartition(".")
        chapter = CHAPTERS.get(head.partition(".")[0])
        if not names(key, PAGE) and not (chapter and names(leaf, section(chapter))):
            absent.append(key)
    assert not absent
    for schema, title in ((Source, "Sources"), (EvaluationSet, "Contamination")):
        assert not [key for key in schema.model_fields if not names(key, section(title))]


def test_every_command_and_step_stands_in_the_page() -> None:
    actions = command.command_line()._actions
    commands = [name for action in actions for name in action.choices or ()]
    assert {"run", "inspect", "stats", "show"} <= {*commands}
    assert not [name for name in commands if f"python -m data {name} " not in PAGE]
    assert not [step for step in STEPS if step not in PAGE]


LINES = [re.split(" #| > ", line)[0] for _, block in BLOCKS for line in block.splitlines()]


@pytest.mark.parametrize("line", [line.strip() for line in LINES if line.startswith("python -m data ")])
def test_the_commands_of_the_page_parse(line: str) -> None:
    arguments, rest = command.command_line().parse_known_args(shlex.split(line)[3:])
    assert not rest
    schemas: dict[str, type[Config]] = {
        "chats": ChatDataConfig, "build": BuildConfig, "generate": GenerateConfig,
    }  # fmt: skip
    known = {*_keys(schemas.get(line.split()[3], DataConfig), "")}
    given = [each.partition("=")[0] for each in getattr(arguments, "overrides", ())]
    assert not [key for key in given if key not in known]
    if (config := getattr(arguments, "config", None)) and config != Path("mine.yaml"):
        assert (ROOT / config).is_file()


def test_what_else_the_page_tells_to_run_is_there() -> None:
    targets = re.findall(r"^make (\w+) ", "\n".join(LINES), re.MULTILINE)
    scripts = re.findall(r"(?:configs|benchmarks)[\w/.-]+\.(?:sbatch|yaml)", "\n".join(LINES))
    assert targets
    assert scripts
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for script in scripts:
        assert (ROOT / script).is_file()


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "yaml"])
def test_the_configurations_of_the_page_are_valid(block: str) -> None:
    least: dict[str, Any] = {"output_dir": "corpora/x", "tokenizer": {"vocabulary_size": 300}}
    DataConfig.model_validate(least | yaml.safe_load(block))
