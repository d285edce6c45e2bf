"""Chats that teach a model to cite: questions about inventions of a corpus, with sources that an index finds.

    records ──▶ questions ──by invention──▶ train | validation ──near──▶ with sources ──▶ two JSONL files

Each chat has the question, as `input` the sources as the assistant shows them (data/chat/grounded.py), and an
answer word for word from the right sources, with their numbers. The other sources are what the index finds
for the question: passages of other inventions in its language. Some chats lack the right sources; their
answer says so. It is in this room because it needs the index. Lines have Alpaca's keys, `task` and `id`, and
for evaluation `reference`, `sources`, `relevant_sources`, `answerable`, `language`, `publication`.

The inventions that `python -m data build` holds out with the same share and seed are in validation.jsonl, and
no source of a training chat is one of theirs. Memory holds the chosen questions and a number an invention.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from core.errors import UserError
from core.provenance import manifest
from data.chat.from_patents import remove_near
from data.chat.grounded import Source, source_material, source_name
from data.chat.patent_tasks import TaskSample
from data.packing.train_val_split import Families, SplitConfig, link_families, representative, side_of
from data.record import invention
from data.record_store import read_shard, shard_files, shard_hashes
from serve.record_questions import KINDS, Question, questions_of, wordings
from serve.retrieval.index import records_folder
from serve.retrieval.search import Filter, Index
from serve.service.assistant import PROMPT_BYTES, SOURCES

TRAINED = "decontaminate"
"""The step of a corpus that training reads."""
NEAR_SHARE = 0.5
"""A training question whose passages share at least this much with those of a validation question is removed,
as by `python -m data build`."""
MORE_HITS = 10
"""Hits that are asked for beyond twice the sources, because some cannot be used."""


@dataclass(frozen=True)
class Settings:
    """What chats are made. Raises UserError for numbers that mean nothing."""

    number: int = 2000
    """Chats in each of the two files at most."""
    unanswerable: float = 0.15
    """Share of the chats without the right sources."""
    sources: int = SOURCES
    validation_share: float = 0.01
    """Share of the inventions that are held out."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("unanswerable", "validation_share"):
            if not 0 <= getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise UserError(f"--{option} {getattr(self, name)}: a share, at least 0 and less than 1.")
        for name, least in (("number", 1), ("sources", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)}: at least {least}.")


class Asked(NamedTuple):
    """A question that was chosen, and about which record."""

    question: Question
    id: str
    """The publication's."""
    language: str
    invention: int
    """Its `representative`."""
    draw: int
    """64 bits, by the seed: if there are too many questions, the lowest are taken."""

    @property
    def name(self) -> str:
        """The chat's id."""
        return f"{self.id} {self.language} {self.question.kind}"


def ground(
    corpora: Sequence[Path], index: Path, output: Path, settings: Settings, *, force: bool = False
) -> dict[str, Any]:
    """Write the chats in a new folder; returns its manifest's counts. Raises UserError if no question can be
    made, or the index finds none of the questions' inventions."""
    opened = Index(index)
    folders = [trained_folder(corpus) for corpus in corpora]
    inputs = manifest.outputs_of(index)
    for folder in folders:
        inputs |= shard_hashes(folder)
    with manifest.build(output, step="ground", config=vars(settings), inputs=inputs, force=force) as made:
        shards = [shard_files(folder) for folder in folders]
        families = link_families(shards, None)
        counts: Counter[str] = Counter()
        known: dict[int, str] = {}
        sides = _choose([shard for each in shards for shard in each], settings, families, known, counts)
        if not any(sides.values()):
            raise UserError(
                f"{', '.join(map(str, folders))}: no question can be made of {counts['records']:,} records."
                " They need a title, and an abstract or claims, in English, Chinese, Korean or Japanese."
            )
        removed = _remove_near(sides)
        finder = _Finder(opened, settings, families, known, counts)
        for side, asked in sides.items():
            with (made.path / f"{side}.jsonl").open("w", encoding="utf-8") as file:
                for row in finder.chats(asked, side):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if not counts["found"]:
            raise UserError(
                f"{index}: no question about {', '.join(map(str, folders))} finds its own invention there."
                " Give the index of this corpus (`python -m serve index`)."
            )
        made.counts |= finder.written | dict(counts) | {"near_duplicates_removed": removed}
    return made.counts


def trained_folder(corpus: Path) -> Path:
    """The folder with the records of a corpus that are trained on: without those of evaluation sets, if
    they were taken out."""
    known = (corpus / TRAINED / manifest.NAME).exists() and not any(corpus.glob("shard-*.parquet"))
    return corpus / TRAINED if known else records_folder(corpus)


def _choose(
    shards: Sequence[Path],
    settings: Settings,
    families: Families,
    known: dict[int, str],
    counts: Counter[str],
) -> dict[str, list[Asked]]:
    """The questions of both sides: of each kind those with the lowest draws, the kinds in turn. An invention
    is asked about once a kind and language. `known` gets the side of every invention."""
    config = SplitConfig(validation_share=settings.validation_share, seed=settings.seed)
    lowest: dict[tuple[str, str], dict[int, Asked]] = {}
    for record in (record for shard in shards for record in read_shard(shard)):
        counts["records"] += 1
        label = representative(invention(record), families)
        side = known.setdefault(label, side_of(label, config))
        language = (record["language"] or "").lower()
        for question in questions_of(record):
            draw = _hash(settings.seed, label, language, question.kind)
            kept = lowest.setdefault((side, question.kind), {})
            kept.setdefault(draw, Asked(question, record["id"], language, label, draw))
            if len(kept) > 2 * settings.number:
                lowest[side, question.kind] = dict(sorted(kept.items())[: settings.number])
    sides: dict[str, list[Asked]] = {}
    for side in ("train", "validation"):
        by_kind = [sorted(lowest.get((side, kind), {}).items()) for kind in KINDS]
        ranked = [(rank, draw, asked) for kind in by_kind for rank, (draw, asked) in enumerate(kind)]
        chosen = sorted(ranked, key=lambda each: each[:2])[: settings.number]
        sides[side] = sorted((asked for _, _, asked in chosen), key=lambda asked: asked.draw)
    return sides


def _remove_near(sides: dict[str, list[Asked]]) -> int:
    """Remove the training questions about what is nearly the text of a validation question."""
    samples = {
        side: [
            TaskSample(
                asked.question.kind,
                asked.name,
                "",
                "\n".join(passage.text for passage in asked.question.passages),
                asked.question.answer,
                asked.draw,
            )
            for asked in each
        ]
        for side, each in sides.items()
    }
    removed = remove_near(samples, NEAR_SHARE)
    left = {sample.id for sample in samples["train"]}
    sides["train"] = [asked for asked in sides["train"] if asked.name in left]
    return removed


class _Finder:
    """Finds the sources of questions, and makes chats of them."""

    def __init__(
        self,
        index: Index,
        settings: Settings,
        families: Families,
        known: dict[int, str],
        counts: Counter[str],
    ) -> None:
        self.index, self.settings, self.families = index, settings, families
        self.known, self.counts = known, counts
        self.written: dict[str, dict[str, int]] = {}

    def chats(self, asked: Sequence[Asked], side: str) -> Iterator[dict[str, Any]]:
        """The chats of a side, as lines of its file."""
        seed = self.settings.seed
        refused = round(self.settings.unanswerable * len(asked))
        drawn = sorted(asked, key=lambda each: (_hash(seed, each.name, "unanswerable"), each.name))
        without = {each.name for each in drawn[:refused]}
        counted: Counter[str] = Counter()
        self.written[side] = counted
        for each in asked:
            if row := self._chat(each, side, answerable=each.name not in without):
                counted[row["task"]] += 1
                yield row

    def _chat(self, asked: Asked, side: str, *, answerable: bool) -> dict[str, Any] | None:
        """The chat of a question; None if it should have no right source and no other is found."""
        draw = random.Random(f"{self.settings.seed} {asked.name}")
        said, language, question = wordings(), asked.language, asked.question
        instruction = draw.choice(said["questions"][question.kind][language]).format_map(question.slots)
        title = question.slots["title"]
        right = [Source(_name(asked, passage, title), passage.text) for passage in question.passages]
        right = right[: max(1, self.settings.sources - 1)] if answerable else []
        others = self._others(instruction, asked, side, right)
        if not right and not others:
            self.counts["without_sources"] += 1
            return None
        shown = [*others]
        for source in right:
            shown.insert(draw.randint(0, len(shown)), source)
        relevant = [number for number, source in enumerate(shown, 1) if source in right]
        if answerable:
            cited = " ".join(f"[{number}]" for number in relevant)
            slots = {"answer": question.answer, "cited": cited}
            answer = draw.choice(said["answers"][language]).format_map(slots)
        else:
            answer = draw.choice(said["refusals"][language])
        return {
            "instruction": instruction,
            "input": source_material(shown, language),
            "output": answer,
            "task": f"grounded-{question.kind}" if answerable else "grounded-unanswerable",
            "id": asked.name,
            "reference": question.answer if answerable else answer,
            "sources": len(shown),
            "relevant_sources": relevant,
            "answerable": "yes" if answerable else "no",
            "language": language,
            "publication": asked.id,
        }

    def _others(self, question: str, asked: Asked, side: str, right: Sequence[Source]) -> list[Source]:
        """The best passages of other inventions that the index finds, in its order, as many as fit beside
        the right ones. None has the answer, the text of another source or the question's title, or is of a
        held-out invention if this one is not held out."""
        wanted = Filter(languages=(asked.language,))
        hits = self.index.search(question, 2 * self.settings.sources + MORE_HITS, wanted, mark=False)
        answer, title = _folded(asked.question.answer), _folded(asked.question.slots["title"])
        left = PROMPT_BYTES - sum(len(source.text.encode()) for source in right)
        found: list[Source] = []
        own, texts = False, {_folded(source.text) for source in right}
        for hit in hits:
            label = representative(hit.invention, self.families)
            own = own or label == asked.invention
            if label == asked.invention or self.known.get(label) not in (side, "train"):
                continue
            passage = hit.passages[0]
            text, size = _folded(passage["text"]), len(passage["text"].encode())
            misleads = answer in text or text in texts or _folded(hit.title or "") == title
            if not misleads and size <= left and len(found) + len(right) < self.settings.sources:
                found.append(Source(source_name(passage | {"title": hit.title}), passage["text"]))
                left -= size
                texts.add(text)
        self.counts["searched"] += 1
        self.counts["found"] += own
        return found


def _name(asked: Asked, passage: Any, title: str) -> str:
    return source_name({"id": asked.id, "title": title, "part": passage.part, "label": passage.label})


def _folded(text: str) -> str:
    return "".join(text.split()).casefold()


def _hash(*parts: Any) -> int:
    return xxhash.xxh3_64_intdigest(" ".join(map(str, parts)).encode())
