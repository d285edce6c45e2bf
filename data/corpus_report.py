"""The report on a corpus: what was read, what each step removed and why, document lengths, and 20 examples.

CORPUS/*/manifest.json, pack/*.idx, a sample of records ──▶ CORPUS/report.html
"""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core import html_report
from core.errors import UserError
from core.provenance import atomic_io, manifest
from data.language import base
from data.packing.document_text import LayoutConfig, layout
from data.packing.indexed_dataset import Documents
from data.packing.train_val_split import SPLITS
from data.record import Record
from data.record_store import read_shard

STEPS = ("synthetic", "ingest", "clean", "dedup", "decontaminate", "tokenizer", "pack")
NOTED = {
    "guessed-column": "tables whose longest column was taken for the text",
    "attachment": "drawings, structures, styles and schemas, which are no documents",
    "bad-bytes": "documents with unreadable bytes or characters, which are U+FFFD in the text",
    "unknown-entity": "unknown entities, which stay in the text as they are written (&name;)",
    "table-row": "rows of tables that hold parts of patents, joined to one document a patent",
    "unknown-field": "unknown field codes whose lines are kept as text",
}
"""What is counted beside the documents."""
SAMPLE = 20
SHOWN = LayoutConfig(headings=False)


def write_report(root: Path, steps: Mapping[str, Mapping[str, Any]], seed: int = 0) -> Path:
    """Write `report.html` for the corpus in `root`; `steps` are the counts of its steps, in their order."""
    header, rows = stages(steps)
    pairs = [html_report.pair(*shown) for shown in sample(root, seed)]
    sections = [
        html_report.section("Documents and tokens", html_report.table(header, rows)),
        html_report.section("What was removed", _removed(removals(steps)), *_left_out(steps.get("pack", {}))),
        html_report.section(
            "Length of documents",
            html_report.paragraph("tokens per document"),
            html_report.bars(lengths(root)),
        ),
        html_report.section(f"{len(pairs)} records before and after cleaning", *pairs),
        html_report.section(
            "Provenance",
            html_report.table(("step", "command", "commit", "created"), _origins(root, steps)),
        ),
    ]
    file = root / "report.html"
    atomic_io.write_text(file, html_report.page(f"Corpus {root.name}", sections))
    return file


def finished_steps(root: Path) -> dict[str, Any]:
    """The counts of the finished steps of a corpus, in order; UserError if there is none."""
    done = [step for step in STEPS if (root / step / manifest.NAME).exists()]
    if not done:
        raise UserError(f"{root}: no corpus found. Make one with `python -m data run`.")
    return {step: manifest.read(root / step)["counts"] for step in done}


def describe(step: str, counts: Mapping[str, Any]) -> list[str]:
    """A step's counts in a few lines: records in and out, and what was removed and why."""
    lines: list[str] = []
    match step:
        case "ingest":
            lines.append(f"{counts['documents']:,} documents read, {counts['records']:,} records")
            lines += [f"rejected: {n:,} {reason}" for reason, n in counts["rejected"]["by_reason"].items()]
            if counts["rejected"]["total"]:
                lines.append("rejected.jsonl lists each rejected document with its reason")
            lines += [f"{NOTED[reason]}: {n:,}" for reason, n in counts.get("noted", {}).items()]
            lines += [f"not selected: {n:,} {rule}" for rule, n in counts["dropped"].items()]
        case "clean":
            lines.append(f"{counts['records_in']:,} records in, {counts['records_out']:,} out")
            lines += [f"dropped: {n:,} {rule}" for rule, n in counts["dropped"].items()]
            for rule, n in counts.get("changed", {}).items():
                lines.append(f"{rule}: {n['characters']:,} characters removed in {n['records']:,} records")
        case "dedup":
            lines.append(f"{counts['records']:,} records in, {counts['kept']:,} out")
            lines += [f"dropped: {n:,} {rule}" for rule, n in counts["dropped"].items() if n]
            lines.append(f"{counts['families']:,} families in several languages or offices")
        case "decontaminate":
            lines.append(f"{counts['records']:,} records in, {counts['kept']:,} out")
            lines += [f"contaminated: {n:,} by {rule}" for rule, n in counts["contaminated"].items() if n]
            for name, n in counts["samples"].items():
                lines.append(
                    f"{name}: {counts['samples_in_corpus'].get(name, 0):,} of {n:,} samples in the corpus"
                )
        case "tokenizer":
            lines.append(f"{counts['vocabulary']:,} tokens in the vocabulary")
        case "pack":
            lines += [f"{split}: {_amount(counts[split])}" for split in SPLITS]
            for language, amounts in counts["by_language"].items():
                lines.append(f"{language}: {amounts['tokens_per_character']:.3f} tokens per character")
            lines.append(f"tokenised with {counts['encoder']}")
            lines += [f"dropped: {n:,} {rule}" for rule, n in counts["dropped"].items()]
            for section, n in counts.get("left_out", {}).items():
                lines.append(f"left out: {n:,} characters of the section {section}")
            for language, n in counts.get("repeated_claims", {}).items():
                share = n / (n + counts["by_language"].get(language, {}).get("characters", 0))
                lines.append(
                    f"{language}: {n:,} characters ({share:.1%}) repeated the claims and were left out"
                )
            for source, found in counts.get("markup", {}).items():
                kinds = ", ".join(f"{n:,} {kind}" for kind, n in found.items())
                lines.append(f"looks like markup in {source}: {kinds}")
        case _:
            lines += [f"{value:,} {name}" for name, value in counts.items() if isinstance(value, int)]
    return [f"               {line}" for line in lines]


def _amount(counts: Mapping[str, int]) -> str:
    documents, tokens = counts.get("documents", 0), counts.get("tokens", 0)
    return f"{documents:,} documents, {tokens:,} tokens, {counts.get('bytes', 0):,} bytes of text"


def stages(steps: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """A row per office and language: records after each step that counts them, then documents and tokens, if
    the corpus is packed."""
    columns: dict[str, Mapping[str, Mapping[str, int]]] = {
        name: counts["by_office_language"] for name, counts in steps.items() if "by_office_language" in counts
    }
    if "pack" in steps:
        columns |= {name: steps["pack"][name] for name in ("documents", "tokens")}
    keys = sorted(
        {
            (office, language)
            for counts in columns.values()
            for office in counts
            for language in counts[office]
        }
    )
    rows: list[list[object]] = [
        [office, language, *(counts.get(office, {}).get(language, 0) for counts in columns.values())]
        for office, language in keys
    ]
    totals = [
        sum(n for languages in counts.values() for n in languages.values()) for counts in columns.values()
    ]
    return ["office", "language", *columns], [*rows, ["all", "", *totals]]


def removals(steps: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """Records removed by each step, by rule."""
    rows = []
    for name, counts in steps.items():
        left_out = {
            **counts.get("rejected", {}).get("by_reason", {}),
            **counts.get("dropped", {}),
            **counts.get("contaminated", {}),
        }
        rows += [(name, rule, n) for rule, n in left_out.items() if n]
    return rows


def _removed(rows: list[tuple[str, str, int]]) -> str:
    return html_report.table(("step", "rule", "number"), rows) if rows else html_report.paragraph("Nothing.")


def _left_out(packed: Mapping[str, Any]) -> Iterator[str]:
    """A table of what packing left out of descriptions, if it left out something."""
    rows = [(f"section {name}", n) for name, n in sorted(packed.get("left_out", {}).items())]
    rows += [(f"in the claims ({name})", n) for name, n in packed.get("repeated_claims", {}).items()]
    if rows:
        yield html_report.table(("left out of descriptions", "characters"), rows)


def lengths(root: Path) -> dict[str, int]:
    """Number of documents with a length between two powers of two, in tokens."""
    found = np.concatenate([Documents(root / "pack" / split).lengths for split in SPLITS])
    exponents = np.ceil(np.log2(np.maximum(found, 1))).astype(int)
    counts = np.bincount(exponents)
    return (
        {f"up to {2**i:,}": int(counts[i]) for i in range(int(exponents.min()), len(counts))}
        if len(found)
        else {}
    )


def sample(root: Path, seed: int) -> Iterator[tuple[str, str, str]]:
    """Some records, drawn by `seed` from at most four shards: a line about each, and its text before and
    after cleaning."""
    draw = random.Random(seed)
    shards = sorted(path.name for path in (root / "clean").glob("shard-*.parquet"))
    chosen = draw.sample(shards, min(4, len(shards)))
    for number, shard in enumerate(sorted(chosen)):
        share = SAMPLE // len(chosen) + (number < SAMPLE % len(chosen))
        kept = _reservoir(read_shard(root / "clean" / shard), share, draw)
        places = {place for record in kept for place in _places(record)}
        before = {
            _places(raw)[0]: raw for raw in read_shard(root / "ingest" / shard) if _places(raw)[0] in places
        }
        for record in kept:
            about = f"{record['id']} · {record['language'] or 'unknown'} · {record['title'] or 'no title'}"
            raw = next(before[place] for place in _places(record) if place in before)
            yield about, layout(raw, SHOWN), layout(record, SHOWN)


def _reservoir(records: Iterator[Record], size: int, draw: random.Random) -> list[Record]:
    kept: list[Record] = []
    for number, record in enumerate(records):
        if number < size:
            kept.append(record)
        elif (place := draw.randrange(number + 1)) < size:
            kept[place] = record
    return kept


def _places(record: Record) -> list[tuple[str, str, str]]:
    """The keys of a clean record among the raw ones; cleaning may have set its language or script."""
    return [(record["source"], record["id"], language) for language in (base(record["language"] or ""), "")]


def _origins(root: Path, steps: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    made = {name: manifest.read(root / name) for name in steps}
    return [(name, m["command"], m["git_commit"] or "", m["created"]) for name, m in made.items()]
