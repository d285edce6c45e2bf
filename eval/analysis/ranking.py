"""Score what a search found: files of `python -m serve search --queries` as samples of the metric `ranking`.

    {"id", "question", "relevant": […], "groups", "hits": [{"id", "invention", "score"}, …]} ──▶ EvalSample

An entry of `relevant` is a publication, as a text or an object with `id`, `invention` and `grade` (1 if it
has none). A hit is that document if their publication numbers are the same, whatever the spelling and the
kind code, or if their inventions are. Entries that share a number or an invention are one document, with the
highest grade.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import UserError
from data.patent_numbers import publication_key
from eval.metrics.metrics import METRICS
from eval.metrics.ranking import DEPTHS, Gain
from eval.sample import EvalSample, read_jsonl

TASK = "ranking"


class Found(NamedTuple):
    """A file of hits: its samples, and what its reader should know of it."""

    samples: list[EvalSample]
    notes: list[str]


def read_found(file: Path, gain: Gain = "linear") -> Found:
    """The samples of a file of hits; UserError gives file and line, or says that no question has `relevant`
    documents."""
    metric = "ranking" if gain == "linear" else f"ranking-{gain}"
    assert metric in METRICS
    samples: dict[str, EvalSample] = {}
    unjudged = empty = tied = deepest = 0
    for number, (location, tree) in enumerate(read_jsonl(file), 1):
        name = str(tree.get("id", f"question {number}"))
        if name in samples:
            raise UserError(f"{location}: the id `{name}` is there twice. Give each question its own.")
        hits = tree.get("hits")
        if not isinstance(hits, list) or not all(isinstance(hit, dict) and "id" in hit for hit in hits):
            raise UserError(
                f"{location}: no list of `hits` with an `id` each. Make the file with `python -m serve search"
                " INDEX --queries FILE`."
            )
        documents = _documents(tree.get("relevant") or [], location)
        if not documents:
            unjudged += 1
            continue
        groups = tree.get("groups") or {}
        if not isinstance(groups, dict):
            raise UserError(f"{location}: `groups` is no object such as {{'languages': 'zh-en'}}.")
        scores = [hit["score"] for hit in hits if "score" in hit]
        empty, tied, deepest = empty + (not hits), tied + _has_ties(scores), max(deepest, len(hits))
        samples[name] = EvalSample(
            task=TASK,
            id=name,
            prediction=json.dumps([_document_of(hit, documents) for hit in hits], ensure_ascii=False),
            reference=json.dumps({name: each.grade for name, each in documents.items()}, ensure_ascii=False),
            metrics=(metric,),
            groups={str(group): str(value) for group, value in groups.items()},
        )
    if not samples:
        raise UserError(
            f"{file}: no question has `relevant` documents. `python -m serve queries` writes such questions."
        )
    notes = [f"{unjudged:,} questions without relevant documents are left out"] if unjudged else []
    notes += [f"{empty:,} questions without a hit count as 0"] if empty else []
    notes += [f"{tied:,} questions have hits of equal score: the file's order counts"] if tied else []
    if deepest < max(DEPTHS):
        shallow = ", ".join(f"recall@{k}" for k in DEPTHS if k > deepest)
        notes.append(
            f"no question has more than {deepest} hits, which bounds {shallow}: search with --hits 100"
        )
    return Found(list(samples.values()), [f"{file}: {note}" for note in notes])


def unpaired(a: Sequence[EvalSample], b: Sequence[EvalSample]) -> int:
    """The number of questions that only one of two files has."""
    return len({s.id for s in a} ^ {s.id for s in b})


class _Document(NamedTuple):
    """A relevant document: its numbers and its inventions, and its grade."""

    numbers: frozenset[str]
    inventions: frozenset[str]
    grade: float


def _documents(entries: Any, location: str) -> dict[str, _Document]:
    """The relevant documents by name, that of their first entry; UserError for an entry that is none."""
    found: dict[str, _Document] = {}
    if isinstance(entries, dict):
        entries = [{"id": name, "grade": grade} for name, grade in entries.items()]
    if not isinstance(entries, list):
        raise UserError(f"{location}: `relevant` is no list of publication numbers or objects with an `id`.")
    for entry in entries:
        given: Any = entry if isinstance(entry, dict) else {"id": entry}
        name, kind, grade = given.get("id"), given.get("invention"), given.get("grade", 1)
        is_number = isinstance(grade, int | float) and not isinstance(grade, bool) and 0 <= grade <= 1000
        if not isinstance(name, str) or not (kind is None or isinstance(kind, str)) or not is_number:
            raise UserError(
                f"{location}: `relevant` has {json.dumps(entry, ensure_ascii=False)[:80]}. Write a"
                ' publication number, or {"id": …, "invention": …, "grade": from 0}.'
            )
        if not grade:
            continue
        document = _Document(frozenset({_key(name)}), frozenset({kind} if kind else ()), float(grade))
        same = [each for each, other in found.items() if _meet(document, other)]
        for each in same:
            other = found[each]
            document = _Document(
                document.numbers | other.numbers,
                document.inventions | other.inventions,
                max(document.grade, other.grade),
            )
        kept = same[0] if same else _key(name)
        for each in same[1:]:
            del found[each]
        found[kept] = document
    return found


def _meet(a: _Document, b: _Document) -> bool:
    return bool(a.numbers & b.numbers or a.inventions & b.inventions)


def _document_of(hit: Mapping[str, Any], documents: Mapping[str, _Document]) -> str:
    """The name of the relevant document that a hit is, else the hit's own number."""
    number, kind = _key(str(hit["id"])), hit.get("invention")
    for name, document in documents.items():
        if number in document.numbers or kind in document.inventions:
            return name
    return number


def _key(number: str) -> str:
    return publication_key(number) or number.strip()


def _has_ties(scores: Sequence[Any]) -> bool:
    return len(set(scores)) < len(scores)
