"""Instruction data that a model writes from the user's own documents: `python -m data generate`.

    documents ──▶ passages ──prompts──▶ endpoint ──answers.jsonl──▶ pairs ──rules──▶ train.jsonl

Three kinds: `qa` (questions about a passage, with their answers), `summary` (of a passage) and `claim` (an
explanation of a claim). The model answers in JSON and quotes the sentence of the passage that supports its
answer; answers that the passage does not support (data/chat/grounding_check.py) and duplicate questions are
left out and counted. Every answer is saved on arrival: a run that was killed, or in which the endpoint
failed, continues where it stopped and pays for nothing twice.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import xxhash
from pydantic import Field

from core.config.loader import Config
from core.errors import UserError
from core.provenance import manifest
from data.chat.grounding_check import alike, letters, unsupported, words
from data.chat.llm_client import LlmClientConfig, ask
from data.readers import formats
from data.readers.source import Source
from data.readers.source_files import list_files
from data.record import Record, Rejected

Kind = Literal["qa", "summary", "claim"]
FORM = (
    'Answer with JSON only: {"pairs": [{"question": …, "answer": …, "evidence": …}]}. `evidence` is one'
    " sentence of the text, copied word by word, that the answer rests on. Write in the language of the text."
)
PROMPTS: dict[str, str] = {
    "qa": "Below is a passage of a legal or patent document. Write {pairs} questions that an expert may ask"
    " and that the passage answers, each understandable without the passage, and answer them from the passage"
    " alone.",
    "summary": "Below is a passage of a legal or patent document. Summarise it faithfully in a few sentences."
    " Give one pair: the question is a request to summarise the text, the answer your summary.",
    "claim": "Below is a patent claim. Explain it in plain words to somebody who is no expert, and add"
    " nothing that it does not say. Give one pair: the question is a request to explain the claim, the answer"
    " your explanation.",
}


class GenerateConfig(Config):
    """Which documents to use, what to ask, and what to keep."""

    output_dir: str
    """The output folder."""
    sources: tuple[str | Source, ...] = Field(min_length=1)
    """Files and folders of documents that `python -m data run` can read: patents, tables, plain text."""
    kinds: tuple[Kind, ...] = Field(("qa",), min_length=1)
    """What to write: `qa`, `summary`, `claim`."""
    pairs: int = Field(3, ge=1)
    """Questions per passage."""
    passage_characters: int = Field(2000, ge=100)
    """Maximum length of a passage; documents are split between paragraphs if possible."""
    max_passages: int | None = Field(None, ge=1)
    """Maximum number of passages, drawn by the seed; null for all."""
    least_share: float = Field(0.5, ge=0, le=1)
    """Minimum share of an answer's words that must be in the passage."""
    near: float = Field(0.8, gt=0, le=1)
    """A question is a duplicate if the Jaccard index of its words with an earlier one of its document is at
    least this."""
    seed: int = Field(0, ge=0)
    """Seed for drawing passages."""
    endpoint: LlmClientConfig


class Asked(NamedTuple):
    """A prompt and its origin."""

    kind: str
    source: str
    passage: str
    prompt: str

    @property
    def key(self) -> str:
        """The key of its answer in the journal."""
        return xxhash.xxh3_128_hexdigest(self.prompt.encode())


def generate(config: GenerateConfig, *, force: bool = False) -> dict[str, Any]:
    """Make the folder and return the manifest's counts.

    UserError if some requests failed: the answers received are kept for the next run.
    """
    sources = [Source(path=s) if isinstance(s, str) else s for s in config.sources]
    if hub := next((source.name for source in sources if source.path is None), None):
        raise UserError(f"source {hub}: only files are supported here. Set `path`.")
    files = [(source, path) for source in sources for path in list_files(Path(str(source.path)))]
    prompts = list(plan(config, files))
    settings = config.model_dump(mode="json", exclude={"output_dir", "endpoint"})
    settings["model"] = config.endpoint.model
    with manifest.build_in_parts(
        Path(config.output_dir), step="generate", config=settings, code="", force=force,
        inputs=manifest.hash_files(path for _, path in files),
    ) as built:  # fmt: skip
        answers = collect(config.endpoint, prompts, built.path / "answers.jsonl")
        built.counts = write_pairs(config, prompts, answers, built.path)
        built.sources = {source.name: source.terms for source in sources}
    return built.counts


def plan(config: GenerateConfig, files: list[tuple[Source, Path]]) -> Iterator[Asked]:
    """The prompts of all passages, or of those drawn by the seed."""
    asked: dict[str, Asked] = {}
    for source, path in files:
        for outcome in formats.read(path, source.options()):
            if isinstance(outcome, Rejected):
                continue
            for record in outcome:
                for kind in config.kinds:
                    for passage in _passages(record, kind, config.passage_characters):
                        text = PROMPTS[kind].replace("{pairs}", str(config.pairs))
                        each = Asked(kind, record["source"], passage, f"{text} {FORM}\n\n{passage}")
                        asked.setdefault(each.key, each)
    if not asked:
        raise UserError("sources: no document has a text to ask about.")
    drawn = sorted(asked, key=lambda key: xxhash.xxh3_64_intdigest(key.encode(), config.seed))
    yield from (asked[key] for key in drawn[: config.max_passages])


def _passages(record: Record, kind: str, most: int) -> Iterator[str]:
    """The passages of a record's text, or its first claim."""
    if kind == "claim":
        yield from [claim for claim in (record["claims"] or [])[:1] if len(claim) <= most]
        return
    whole = record["description"] or record["abstract"] or ""
    passage = ""
    pieces = (line[at : at + most] for line in whole.split("\n") for at in range(0, len(line), most))
    for paragraph in pieces:
        if passage and len(passage) + len(paragraph) >= most:
            yield passage
            passage = ""
        passage = f"{passage}\n{paragraph}".strip()
    if len(passage) >= min(100, most):
        yield passage


def collect(config: LlmClientConfig, prompts: list[Asked], journal: Path) -> dict[str, dict[str, Any]]:
    """The answers by key, from the journal and the endpoint; UserError if some are missing."""
    answers = {row["key"]: row for row in _read_journal(journal)}
    open_prompts = [asked for asked in prompts if asked.key not in answers]
    failed: list[Exception] = []
    with journal.open("a", encoding="utf-8") as file:
        for index, answer in ask(config, [asked.prompt for asked in open_prompts]):
            if isinstance(answer, Exception):
                failed.append(answer)
                continue
            row = {"key": open_prompts[index].key, **answer._asdict()}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            answers[row["key"]] = row
        os.fsync(file.fileno())
    if failed:
        raise UserError(
            f"{config.url}: {len(failed):,} of {len(open_prompts):,} requests failed (last error:"
            f" {failed[-1]}). The answers received are kept: run the same command again."
        )
    return answers


def _read_journal(journal: Path) -> Iterator[dict[str, Any]]:
    """The complete answers; an incomplete last line, from a killed run, is requested again."""
    if not journal.exists():
        return
    data = journal.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        journal.write_bytes(whole)
    yield from map(json.loads, whole.decode("utf-8").splitlines())


def write_pairs(
    config: GenerateConfig, prompts: list[Asked], answers: dict[str, dict[str, Any]], folder: Path
) -> dict[str, Any]:
    """Write the kept and the dropped pairs; returns the counts, with tokens and cost."""
    dropped: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    before: dict[str, list[set[str]]] = {}
    seen: set[str] = set()
    with (
        (folder / "train.jsonl").open("w", encoding="utf-8") as train,
        (folder / "dropped.jsonl").open("w", encoding="utf-8") as rest,
    ):
        for asked in prompts:
            for pair in _pairs(answers[asked.key]["text"]):
                reason = _problem(config, asked, pair, seen, before)
                row = {
                    "instruction": pair.get("question", ""),
                    "input": "" if asked.kind == "qa" else asked.passage,
                    "output": pair.get("answer", ""), "task": asked.kind,
                    "evidence": pair.get("evidence", ""), "passage": asked.passage, "source": asked.source,
                }  # fmt: skip
                file = rest if reason else train
                file.write(
                    json.dumps(row | ({"reason": reason} if reason else {}), ensure_ascii=False) + "\n"
                )
                if reason:
                    dropped[reason] += 1
                else:
                    kept[asked.kind] += 1
    mine = [answers[asked.key] for asked in prompts]
    tokens = {name: sum(row[name] for row in mine) for name in ("prompt_tokens", "completion_tokens")}
    prices = config.endpoint
    cost = tokens["prompt_tokens"] * prices.price_per_million_prompt_tokens
    cost += tokens["completion_tokens"] * prices.price_per_million_completion_tokens
    return {
        "requests": len(mine), "kept": dict(kept), "dropped": dict(dropped), **tokens, "cost": cost / 1e6,
    }  # fmt: skip


def _pairs(text: str) -> Iterator[dict[str, Any]]:
    """The pairs of an answer, which may be in a code fence or after an introduction; an empty pair if there
    is none."""
    start, stop = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : stop + 1])["pairs"]
        assert isinstance(found, list)
        yield from (pair if isinstance(pair, dict) else {} for pair in found)
    except (ValueError, KeyError, TypeError, AssertionError):
        yield {}


def _problem(
    config: GenerateConfig,
    asked: Asked,
    pair: dict[str, Any],
    seen: set[str],
    before: dict[str, list[set[str]]],
) -> str | None:
    """Why a pair is dropped, or None; a kept pair is remembered."""
    texts = [pair.get(name) for name in ("question", "answer", "evidence")]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return "not-a-pair"
    question, answer, evidence = map(str, texts)
    if wrong := unsupported(answer, evidence, asked.passage, question, config.least_share):
        return wrong
    key = letters(question) + (letters(asked.passage) if asked.kind != "qa" else "")
    others = before.setdefault(asked.source, [])
    if key in seen or (asked.kind == "qa" and any(alike(words(question), o) >= config.near for o in others)):
        return "duplicate"
    seen.add(key)
    others.append(words(question))
    return None
