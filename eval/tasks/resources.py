"""Glossaries and laws of a task. Each sample carries the part that its metrics need.

terms.csv ──read_glossary──▶ terms_of(text) ──▶ sample.glossary    laws.jsonl ──read_laws──▶ sample.laws
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from core.errors import UserError
from data.law_citations import article_number
from eval.metrics.terminology import occurrences
from eval.sample import missing_field, read_jsonl


def read_glossary(file: Path) -> dict[str, list[str]]:
    """Source terms and their accepted translations, from CSV rows `term,translation,…`."""
    if not file.exists():
        raise UserError(f"{file}: glossary file not found.")
    glossary: dict[str, list[str]] = {}
    with file.open(encoding="utf-8-sig", newline="") as opened:
        for number, row in enumerate(csv.reader(opened), 1):
            cells = [cell.strip() for cell in row if cell.strip()]
            if len(cells) == 1:
                raise UserError(
                    f"{file}: row {number}: `{cells[0]}` has no translation. Write term,translation,…"
                )
            if cells:
                glossary.setdefault(cells[0], []).extend(cells[1:])
    return glossary


def terms_of(text: str, glossary: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The part of a glossary whose terms occur in the text."""
    return {term: glossary[term] for term in sorted(occurrences(text, glossary))}


def read_laws(file: Path) -> dict[str, str]:
    """Name of each law to its articles, from JSONL of `law`, `article` and optionally `law_en`."""
    articles: dict[str, list[str]] = {}
    for location, tree in read_jsonl(file):
        for key in ("law", "article"):
            if key not in tree:
                raise missing_field(location, key, tree)
        for key in ("law", "law_en"):
            if tree.get(key):
                articles.setdefault(str(tree[key]), []).append(article_number(str(tree["article"])))
    return {law: _ranges(numbers) for law, numbers in articles.items()}


def _ranges(articles: Iterable[str]) -> str:
    """Abbreviate `1 2 3 106-1` to `1..3 106-1`."""
    whole = sorted({int(number) for number in articles if number.isdigit()})
    begins = [n for n in whole if n - 1 not in set(whole)]
    ends = [n for n in whole if n + 1 not in set(whole)]
    parts = [f"{a}..{b}" if a != b else str(a) for a, b in zip(begins, ends, strict=True)]
    return " ".join([*parts, *sorted({number for number in articles if not number.isdigit()})])
