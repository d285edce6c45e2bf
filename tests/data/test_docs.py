"""docs/data.md names what there is: every format, reason, rule and key, so that it cannot go stale."""

import re
import shlex

import pytest

from core.config import Config
from data.clean import CleanConfig
from data.decontaminate import DecontaminateConfig
from data.dedup import RULES, DedupConfig
from data.engine import EngineConfig
from data.layout import LayoutConfig
from data.pack import PackConfig
from data.select import SelectConfig
from data.source import Source
from tests.conftest import ROOT, run

PAGE = (ROOT / "docs" / "data.md").read_text("utf-8")
READERS = sorted((ROOT / "data" / "formats").glob("*.py"))


def says(word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", PAGE) is not None


def test_every_reason_of_a_rejection_is_explained() -> None:
    code = "".join(path.read_text("utf-8") for path in READERS)
    found = set(
        re.findall(r'(?:Rejected|Unreadable)\(\s*(?:[^"()]*(?:\([^()]*\))?,\s*)?"([a-z]+-[a-z-]+)"', code)
    )
    assert len(found) > 15
    assert [reason for reason in sorted(found) if f"`{reason}`" not in PAGE] == []


def test_every_root_element_is_named() -> None:
    code = (ROOT / "data" / "formats" / "__init__.py").read_text("utf-8")
    cases = re.findall(r"^        case (.*):$", code.partition("def _vocabulary")[2], re.MULTILINE)
    roots = {name for case in cases for name in re.findall(r'"([\w-]+)"', case)}
    assert len(roots) > 10
    assert [root for root in sorted(roots) if f"`XML {root}`" not in PAGE] == []


@pytest.mark.parametrize(
    "config", [CleanConfig, DecontaminateConfig, DedupConfig, LayoutConfig, PackConfig, SelectConfig]
)
def test_every_key_that_decides_a_corpus_is_explained(config: type[Config]) -> None:
    left = {"bucket_cap", "seed", "scripts"}
    missing = [key for key in config.model_fields if not says(key) and key not in left]
    assert missing == []


def test_every_rule_of_deduplication_and_every_place_to_read_from_is_named() -> None:
    assert all(f"`{rule}`" in PAGE for rule in RULES)
    assert all(
        says(key) for key in ("dataset", "revision", "columns", "text_field", "layout", "licence", "use")
    )
    assert set(Source.model_fields) >= {"dataset", "revision", "columns", "text_field", "layout"}
    assert all(says(key) for key in EngineConfig.model_fields)


@pytest.mark.parametrize("line", re.findall(r"^python -m data (.*?)(?:  .*)?$", PAGE, re.MULTILINE))
def test_every_command_is_one(line: str) -> None:
    words = [word for word in shlex.split(line, comments=True) if word != ">"]
    done = run("data", words[0], "--help")
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in words if word.startswith("--"))
