"""The corpus pipeline: raw files in, a packed corpus out, each step a folder with its manifest.

    sources ──ingest──▶ records ──clean──▶ records ──tokenizer──▶ tokenizer folder
                                                   ──pack──▶ train, validation (.bin, .idx)

Without sources, a synthetic corpus of made-up bilingual patents is written first and taken as the source. A
step whose configuration and inputs are as they were is not done again; where they changed, nothing is
overwritten unless forced.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from core import manifest
from core.config import Config
from data.clean import CleanConfig, clean
from data.ingest import Source, ingest, list_files, read_records
from data.pack import SPLITS, PackConfig, pack
from data.record import Record
from data.synthesize import synthesize
from data.tokenizer import TokenizerConfig, prepare_tokenizer, record_texts

STEPS = ("synthetic", "ingest", "clean", "tokenizer", "pack")


class SyntheticConfig(Config):
    """The made-up bilingual patents that stand in where no sources are given."""

    inventions: int = Field(2000, ge=1)
    """How many; each gives a Chinese and an English record."""
    seed: int = Field(0, ge=0)
    """Invention i of a seed is always the same."""


class DataConfig(Config):
    """From raw files to a packed corpus."""

    output_dir: str
    """The corpus's folder; every step has its own inside it."""
    sources: tuple[str | Source, ...] = ()
    """Files and folders with patents, each a path or a section with `path` and more; empty for synthetic
    ones."""
    synthetic: SyntheticConfig = SyntheticConfig()
    clean: CleanConfig = CleanConfig()
    tokenizer: TokenizerConfig
    pack: PackConfig = PackConfig()
    workers: int | None = Field(None, ge=1)
    """Processes for reading; null for all cores. The result does not depend on it."""


@dataclass(frozen=True)
class Corpus:
    """A finished packed corpus on disk."""

    folder: Path

    @property
    def tokenizer(self) -> Path:
        """The folder of its tokenizer."""
        return self.folder / "tokenizer"

    def split(self, name: str) -> Path:
        """A split's path without suffix: `.bin`, `.idx` and `.bytes.npy` belong to it."""
        assert name in SPLITS
        return self.folder / "pack" / name


def find_corpus(config: DataConfig) -> Corpus | None:
    """The corpus that `config` describes, or None where it is not made yet; UserError where another stands
    there."""
    corpus = Corpus(Path(config.output_dir))
    made = manifest.up_to_date(corpus.folder / "pack", config=_identity(config), inputs=None, advice=ADVICE)
    return corpus if made else None


ADVICE = (
    "Nothing was overwritten. Give another folder (data.output_dir=…, or output_dir=… for `python -m data`),"
    " or run with --force to make this one again."
)


def run(config: DataConfig, *, force: bool = False, say: Callable[[str], None] = print) -> Corpus:
    """Do every step that is not done yet (all of them with `force`); `say` gets a line or a few a step."""
    root = Path(config.output_dir)
    workers = config.workers or len(os.sched_getaffinity(0))
    everything = _identity(config)

    def step(
        name: str, inputs: Mapping[str, str], make: Callable[[Path], dict[str, Any]], *keys: str
    ) -> dict[str, str]:
        """Do one step unless it is done; returns its outputs, the inputs of the next. `keys` are what it
        depends on."""
        folder = root / name
        settings = {key: everything[key] for key in keys} if keys else everything
        done = not force and manifest.up_to_date(folder, config=settings, inputs=inputs, advice=ADVICE)
        if not done:
            with manifest.build(folder, step=name, config=settings, inputs=inputs, force=force) as built:
                built.counts = make(built.path)
        counts = manifest.read(folder)["counts"]
        say("\n".join([f"{name:<10}{'up to date' if done else 'done'}: {folder}", *describe(name, counts)]))
        return manifest.outputs_of(folder)

    sources = [Source(path=source) if isinstance(source, str) else source for source in config.sources]
    if not sources:
        made = config.synthetic
        step("synthetic", {}, lambda folder: synthesize(folder, made.inventions, made.seed), "synthetic")
        sources = [Source(path=str(root / "synthetic" / "records.jsonl"))]
    raw = manifest.hash_files(file for source in sources for file in list_files(Path(source.path)))
    ingested = step("ingest", raw, lambda folder: ingest(sources, folder, workers), "sources")
    cleaned = step(
        "clean", ingested, lambda folder: clean(config.clean, root / "ingest", folder, workers), "clean"
    )

    def records() -> Iterator[Record]:
        return read_records(root / "clean")

    def make_tokenizer(folder: Path) -> dict[str, Any]:
        return {"vocabulary": len(prepare_tokenizer(config.tokenizer, record_texts(records()), folder))}

    seen = cleaned if config.tokenizer.path is None else {}
    tokenizer = step("tokenizer", seen, make_tokenizer, "tokenizer")

    def make_pack(folder: Path) -> dict[str, Any]:
        from core.model import load_tokenizer

        return pack(config.pack, load_tokenizer(str(root / "tokenizer")), records(), folder)

    step("pack", cleaned | tokenizer, make_pack)
    return Corpus(root)


def describe(step: str, counts: Mapping[str, Any]) -> list[str]:
    """A step's counts in a few lines for people: what came in, what left and why, what is there."""
    lines: list[str] = []
    match step:
        case "ingest":
            lines.append(f"{counts['documents']:,} documents read, {counts['records']:,} records")
            lines += [f"rejected: {n:,} {reason}" for reason, n in counts["rejected"]["by_reason"].items()]
            if counts["rejected"]["total"]:
                lines.append("rejected.jsonl names each rejected document with its reason")
        case "clean":
            lines.append(f"{counts['records_in']:,} records in, {counts['records_out']:,} out")
            lines += [f"dropped: {n:,} {rule}" for rule, n in counts["dropped"].items()]
            for rule, n in counts.get("changed", {}).items():
                lines.append(f"{rule}: {n['characters']:,} characters removed in {n['records']:,} records")
        case "tokenizer":
            lines.append(f"{counts['vocabulary']:,} tokens in the vocabulary")
        case "pack":
            lines += [f"{split}: {_amount(counts[split])}" for split in SPLITS]
            lines += [f"dropped: {n:,} {rule}" for rule, n in counts["dropped"].items()]
            for office, languages in counts["documents"].items():
                for language, n in languages.items():
                    tokens = counts["tokens"][office][language]
                    lines.append(f"{office} {language}: {n:,} documents, {tokens:,} tokens")
        case _:
            lines += [f"{value:,} {name}" for name, value in counts.items() if isinstance(value, int)]
    return [f"          {line}" for line in lines]


def _amount(counts: Mapping[str, int]) -> str:
    documents, tokens = counts.get("documents", 0), counts.get("tokens", 0)
    return f"{documents:,} documents, {tokens:,} tokens, {counts.get('bytes', 0):,} bytes of text"


def _identity(config: DataConfig) -> dict[str, Any]:
    """The part of the configuration that decides the result."""
    unused = {"synthetic"} if config.sources else set()
    return config.model_dump(mode="json", exclude={"output_dir", "workers"} | unused)
