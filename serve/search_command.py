"""What `python -m serve search` prints: the hits of a question for a person, or those of a file as JSON."""

import argparse
import json
import sys
from typing import Any

from core.errors import UserError, printable
from core.provenance import atomic_io
from serve.retrieval.opensearch import OpenSearch
from serve.retrieval.search import FIELDS, Hit, Index, filter_of, open_index


def search(arguments: argparse.Namespace) -> None:
    """Search an index for one question or for a file of them."""
    if (arguments.question is None) == (arguments.queries is None):
        raise UserError("give a question, or a file of them with --queries.")
    index = open_index(arguments.index)
    if arguments.queries is None:
        hits = index.search(arguments.question, arguments.hits, filter_of(index, _asked(vars(arguments))))
        print(_as_json({"hits": hits}) if arguments.json else "\n".join(_shown(hits)))
        return
    with arguments.queries.open(encoding="utf-8") as lines:
        answers = (
            _as_json(_answer(index, arguments, line, f"{arguments.queries}:{number}"))
            for number, line in enumerate(lines, 1)
            if line.strip()
        )
        if arguments.output is None:
            for answer in answers:
                print(answer)
        else:
            atomic_io.write_text(arguments.output, "".join(f"{answer}\n" for answer in answers))


def _answer(
    index: Index | OpenSearch, arguments: argparse.Namespace, line: str, place: str
) -> dict[str, Any]:
    """A line of --queries with its hits."""
    try:
        asked = json.loads(line)
        question = asked["question"]
        assert isinstance(question, str)
    except (ValueError, TypeError, KeyError, AssertionError):
        raise UserError(f'{place}: no JSON object with a text "question".') from None
    try:
        hits = index.search(question, arguments.hits, filter_of(index, _asked(vars(arguments) | asked)))
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    return {**asked, "hits": hits}


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """The filter of the command line or of a line of --queries."""
    return {name: given.get(name) for name in FIELDS}


def _as_json(answer: dict[str, Any]) -> str:
    return json.dumps(answer, ensure_ascii=False, default=vars)


def _shown(hits: list[Hit]) -> list[str]:
    """Hits for a person: a line each, and its passages below it."""
    if not hits:
        return ["nothing found"]
    lines = []
    for number, hit in enumerate(hits, 1):
        named = "  ".join(filter(None, (hit.id, hit.language, hit.date, hit.title)))
        lines.append(f"{number}. {printable(named)}  ({hit.score:.1f})")
        for passage in hit.passages:
            place = " ".join(dict.fromkeys(filter(None, (passage["part"], passage["label"]))))
            lines.append(f"   {place}: {_excerpt(passage['text'], passage['found'])}")
    return lines


def _excerpt(text: str, found: list[tuple[int, int]], length: int = 160) -> str:
    """The part of a passage around the first term that was found, in bold on a terminal, on one line."""
    start = max(0, (found[0][0] if found else 0) - 40)
    marks = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    shown, position = "…" if start else "", start
    for begin, end in found:
        if start <= begin and end <= start + length:
            shown += printable(text[position:begin]) + marks[0] + printable(text[begin:end]) + marks[1]
            position = end
    shown += printable(text[position : start + length]) + ("…" if len(text) > start + length else "")
    return " ".join(shown.split())
