"""Patent records as instruction samples: the question of each task, and the answer from the record.

title            the title, from the abstract
abstract         the abstract, from the claims
next-claim       a dependent claim, from the claims before it
ipc              the section of the main IPC symbol, a letter, from title and abstract
extract          phrases of the abstract by type, if they are labelled, in the form that evaluation reads:
                 `解决问题:…;技术手段:…,…;实施效果:;`; no sample if a phrase contains a separator
translate-zh-en  a claim in the other language, if an invention has both languages: the same claim
translate-en-zh  of two lists with the same numbers
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from data import claim_numbers
from data.claim_numbers import Claims
from data.claims import dependencies
from data.language import base
from data.record import Record

TASKS = ("title", "abstract", "translate-zh-en", "translate-en-zh", "next-claim", "ipc", "extract")
SEPARATORS = frozenset(",;:，；：")
"""Separators in an answer to `extract`."""
Labels = Mapping[str, list[str]]


class TaskSample(NamedTuple):
    """One instruction with its answer."""

    task: str
    id: str
    """The record's id, with the language if the sample is in one language."""
    instruction: str
    input: str
    output: str
    draw: int
    """64 bits, by the seed: if there are too many samples, the lowest are taken."""

    @property
    def text(self) -> str:
        """The text from its record."""
        return f"{self.input}\n{self.output}"


def samples_of(record: Record, labels: Labels | None, seed: int) -> Iterator[TaskSample]:
    """The samples of one record for all tasks except translation."""
    language = base(record["language"] or "")
    title, abstract, claims = record["title"], record["abstract"], claim_numbers.of_record(record)
    made: list[tuple[str, str, str, dict[str, Any]]] = []
    if title and abstract:
        made.append(("title", abstract, title, {}))
    if abstract and claims:
        made.append(("abstract", claim_numbers.printed(claims), abstract, {}))
    if abstract and record["ipc"] and record["ipc"][0][:1] in set("ABCDEFGH"):
        made.append(("ipc", "\n".join(filter(None, (title, abstract))), record["ipc"][0][0], {}))
    if abstract and labels:
        found = {kind: [p for p in phrases if p in abstract] for kind, phrases in labels.items()}
        phrases = [phrase for each in found.values() for phrase in each]
        if phrases and not SEPARATORS & set("".join(phrases)):
            answer = "".join(f"{kind}:{','.join(each)};" for kind, each in found.items())
            made.append(("extract", abstract, answer, {}))
    parents = {number: dependencies(claim, language, number, claims) for number, claim in claims.items()}
    dependent = [number for number, on in parents.items() if on]
    if dependent:
        number = dependent[_hash(seed, record["id"], "claim") % len(dependent)]
        before = {n: claim for n, claim in claims.items() if n < number}
        question = {"claim": parents[number][0], "number": number}
        made.append(("next-claim", claim_numbers.printed(before), claims[number], question))
    for task, text, answer, slots in made:
        if instruction := instruct(task, language, f"{record['id']} {language}", seed, slots):
            made_of = _sample(task, record["id"], instruction, text, answer, language, seed)
            yield made_of._replace(id=f"{record['id']} {language}")


def translations(chinese: Claims, english: Claims, record_id: str, seed: int) -> list[TaskSample]:
    """A claim in both directions, of an invention's claims in both languages; none if they do not have the
    same numbers."""
    if not chinese or chinese.keys() != english.keys():
        return []
    number = list(chinese)[_hash(seed, record_id, "translate") % len(chinese)]
    pair = chinese[number], english[number]
    found = []
    for task, (text, answer) in (("translate-zh-en", pair), ("translate-en-zh", pair[::-1])):
        language = ("zh", "en")[_hash(seed, record_id, task) % 2]
        instruction = instruct(task, language, record_id, seed, {})
        if instruction and text != answer:
            found.append(_sample(task, record_id, instruction, text, answer, language, seed))
    return found


def instruct(task: str, language: str, key: str, seed: int, slots: Mapping[str, Any]) -> str | None:
    """One wording of a task in a language, drawn by the seed; None if it has none."""
    wordings = _wordings()[task].get(language)
    if not wordings:
        return None
    return wordings[_hash(seed, key, task, "wording") % len(wordings)].format_map(slots)


def _sample(
    task: str, record_id: str, instruction: str, text: str, answer: str, language: str, seed: int
) -> TaskSample:
    draw = _hash(seed, record_id, language, task)
    return TaskSample(task, record_id, instruction, text.strip(), answer.strip(), draw)


@lru_cache(maxsize=1)
def _wordings() -> dict[str, dict[str, list[str]]]:
    import yaml

    read: dict[str, dict[str, list[str]]] = yaml.safe_load(
        Path(__file__).with_name("wordings.yaml").read_text("utf-8")
    )
    return read


def _hash(*parts: Any) -> int:
    return xxhash.xxh3_64_intdigest(" ".join(map(str, parts)).encode())
