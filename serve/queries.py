"""Questions whose answers a corpus knows, to evaluate an index: its citations, or its families.

    record with `cites` ──▶ {"id", "question": claim 1 or the abstract, "before": its number, "relevant": […]}
    record of a family  ──▶ {"id", "question": the abstract, "language": another, "relevant": [its family]}
    python -m serve search INDEX --queries FILE --hits 100 --output found.jsonl
    python -m eval ranking found.jsonl

`relevant` has the cited publications that are in the index and were published before the question's priority
date, one an invention: what else was cited cannot be found. A search with `before` leaves out the invention
that is asked about. Questions of families cross languages: the abstract in one is to find the publication in
another. One question an invention (and pair of languages); those with the lowest draws by the seed are taken.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import xxhash

from core.errors import UserError
from core.provenance import atomic_io
from data.language import base
from data.record import Record, invention
from data.record_store import read_records
from serve.retrieval.index import records_folder
from serve.retrieval.search import LONGEST_QUESTION, Index

Kind = Literal["citations", "families"]


def write_queries(
    corpora: Sequence[Path],
    index: Path,
    output: Path,
    number: int | None = None,
    seed: int = 0,
    *,
    kind: Kind = "citations",
    force: bool = False,
) -> dict[str, int]:
    """Write the questions and return counts; UserError if the file exists, or there is no question."""
    if output.exists() and not force:
        raise UserError(f"{output} exists. Choose another file, or pass --force to replace it.")
    if number is not None and number < 1:
        raise UserError(f"--number {number}: at least 1.")
    opened, counts = Index(index), Counter[str]()
    drawn: list[tuple[int, str, dict[str, Any]]] = []
    seen: set[str] = set()
    asked = partial(_across, languages=_languages(corpora)) if kind == "families" else _cited
    for record in _records(corpora):
        for key, query in asked(record, opened, counts):
            if key not in seen:
                seen.add(key)
                drawn.append((xxhash.xxh3_64_intdigest(f"{seed} {key}".encode()), key, query))
    if not drawn:
        missing = {
            "families": f"no invention that is in {index} has an abstract, and another language.",
            "citations": f"of {counts['records']:,} records with citations, none is in {index} with an"
            " earlier publication that it cites. Index the cited publications, too.",
        }
        raise UserError(f"{', '.join(map(str, corpora))}: {missing[kind]}")
    chosen = [query for _, _, query in sorted(drawn, key=lambda each: each[:2])[:number]]
    lines = (json.dumps(query, ensure_ascii=False) + "\n" for query in chosen)
    output.parent.mkdir(parents=True, exist_ok=True)
    atomic_io.write_text(output, "".join(lines))
    relevant = sum(len(query["relevant"]) for query in chosen)
    return {**counts, "questions": len(chosen), "relevant": relevant}


def _records(corpora: Sequence[Path]) -> Iterator[Record]:
    for corpus in corpora:
        yield from read_records(records_folder(corpus))


def _languages(corpora: Sequence[Path]) -> dict[str, set[str]]:
    """The languages of each invention."""
    found: dict[str, set[str]] = defaultdict(set)
    for record in _records(corpora):
        found[invention(record)].add(base(record["language"] or "?"))
    return found


def _across(
    record: Record, index: Index, counts: Counter[str], languages: dict[str, set[str]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A question for each other language of the record's invention."""
    own, question, key = base(record["language"] or "?"), record["abstract"] or "", invention(record)
    others = sorted(languages[key] - {own, "?"})
    counts["records"] += bool(others)
    if not question.strip() or not others or index.publication(record["id"]) is None:
        return
    for other in others:
        pair = f"{own}-{other}"
        query = {"id": f"{record['id']} {pair}", "question": question, "language": other}
        relevant = [{"id": record["id"], "invention": key}]
        yield f"{key} {pair}", query | {"relevant": relevant, "groups": {"languages": pair}}


def _cited(record: Record, index: Index, counts: Counter[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The question about a record with the key of its invention, if it cites what can be found."""
    claims, cites = record["claims"] or [], record["cites"] or []
    question = (claims[0] if claims else record["abstract"]) or ""
    counts["records"] += bool(cites)
    if not cites or not question.strip() or len(question) > LONGEST_QUESTION:
        return
    own = index.publication(record["id"])
    day = own and (own["priority"] or own["date"])
    if own is None or day is None:
        return
    relevant: dict[str, dict[str, str]] = {}
    languages: set[str] = set()
    for number in cites:
        cited = index.publication(number)
        if cited is None or cited["invention"] == own["invention"]:
            continue
        if cited["date"] is None or cited["date"] >= day:
            counts["cited_later"] += 1
            continue
        relevant.setdefault(cited["invention"], {"id": cited["id"], "invention": cited["invention"]})
        languages.add(base(cited["language"] or "?"))
    if relevant:
        language = base(record["language"] or "?")
        pair = f"{language}-{languages.pop() if len(languages) == 1 else 'several'}"
        query = {"id": record["id"], "question": question, "before": record["id"]}
        found = {"relevant": list(relevant.values()), "groups": {"languages": pair}}
        yield own["invention"], query | found
