"""The corpus pipeline: raw files in, a packed corpus out, each step a folder with its manifest.

    sources ──ingest──▶ records ──clean──▶ ──dedup──▶ ──decontaminate──▶ records ──tokenizer──▶ tokenizer
                                                                                 ──pack──▶ .bin, .idx

Without sources, synthetic bilingual patents are written first and used as the source. A step whose
configuration and inputs are unchanged is not repeated; if they changed, nothing is overwritten unless forced.

A corpus grows by a new one that `extends` it: the new one reads only new files, drops records that the
earlier corpora have, and uses their tokenizer. The earlier corpora stay unchanged, byte for byte, and models
can be trained on all of them together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from core import html_report
from core.config.loader import Config, dump
from core.errors import UserError
from core.provenance import atomic_io, manifest
from data.cleaning.clean import CleanConfig, clean
from data.corpus_report import describe, stages, write_report
from data.dedup.decontaminate import DecontaminateConfig, decontaminate
from data.dedup.dedup import DedupConfig, dedup
from data.executor import EngineConfig, open_executor
from data.incremental import check_split, earlier_corpora, new_inputs, outputs_of_step
from data.packing.pack import PackConfig, pack
from data.packing.tokenizer import TokenizerConfig, prepare_tokenizer, record_texts
from data.packing.train_val_split import SPLITS
from data.readers.ingest import SHARD_BYTES, ingest
from data.readers.record_filter import SelectConfig
from data.readers.source import Source, check_sources
from data.readers.source_files import input_hashes
from data.record_store import read_records, shard_files
from data.synthetic.patents import synthesize

LATER_KEYS = {"clean": ("hyphens",), "pack": ("claims", "leave_out", "repeated_claims")}
"""Keys that older corpora do not have. At their defaults they do not count, so that such a corpus is up to
date."""

CONFIG = "config.yaml"
"""In a corpus's folder: the whole configuration, which `pretrain data=CORPUS/config.yaml` trains on."""
ERRORS = 100
"""Up to this many bad documents never stop a run."""


class SyntheticConfig(Config):
    """The synthetic bilingual patents that are used if no sources are given."""

    inventions: int = Field(2000, ge=1)
    """Number of inventions; each gives a Chinese and an English record."""
    seed: int = Field(0, ge=0)
    """Seed of the generator: invention i of a seed is always the same."""
    fields: tuple[str, ...] = ()
    """Fields of data/synthetic/lexicon.yaml to use, e.g. [refrigeration], for a smaller vocabulary; empty for
    all."""


class DataConfig(Config):
    """From raw files to a packed corpus."""

    output_dir: str
    """The corpus's folder, with a subfolder for each step."""
    sources: tuple[str | Source, ...] = ()
    """Files and folders with patents: each a path, or a section with `path` and other keys. Empty for
    synthetic patents."""
    extends: tuple[str, ...] = ()
    """Folders of finished corpora to extend. Files they have read and records they already have are left out;
    their tokenizer is used."""
    select: SelectConfig = SelectConfig()
    require_use: Literal["commercial", "non-commercial", "research"] | None = None
    """The use that every source must permit; a source whose `use` forbids it or is unknown is an error."""
    error_budget: float | None = Field(0.1, ge=0, le=1)
    """Maximum share of documents without a record, and of records on which a cleaning rule fails. The run
    stops if there are more, and more than 100. null for no limit."""
    shard_bytes: int = Field(SHARD_BYTES, ge=1)
    """Input bytes per shard: the unit of work of one worker, and what a killed run loses. It determines which
    records are in which output file."""
    synthetic: SyntheticConfig = SyntheticConfig()
    clean: CleanConfig = CleanConfig()
    dedup: DedupConfig = DedupConfig()
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    tokenizer: TokenizerConfig
    pack: PackConfig = PackConfig()
    engine: EngineConfig = EngineConfig()


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
    """The corpus that `config` describes, or None if it does not exist yet; UserError if the folder holds
    another one."""
    corpus = Corpus(Path(config.output_dir))
    made = manifest.up_to_date(corpus.folder / "pack", config=_identity(config), inputs=None, advice=ADVICE)
    return corpus if made else None


ADVICE = (
    "Nothing was overwritten. Set another folder (data.output_dir=…, or output_dir=… for `python -m data`),"
    " or run with --force to overwrite this one."
)


def run(
    config: DataConfig, *, force: bool = False, until: str = "pack", say: Callable[[str], None] = print
) -> Corpus:
    """Run every step up to `until` that is not finished (all of them with `force`); `say` gets a few lines
    per step."""
    root = Path(config.output_dir)
    sources = [Source(path=source) if isinstance(source, str) else source for source in config.sources]
    if not sources:
        made_up = str(root / "synthetic" / "records.jsonl")
        sources = [Source(path=made_up, licence="made by this program", use="any")]
    check_sources(sources, config.require_use)
    terms = {source.name: source.terms for source in sources}
    steps = Steps(root, _identity(config), force, say, terms)
    with open_executor(config.engine) as executor:
        for step in _do_steps(config, sources, steps, executor):
            if step == until:
                break
    say("\n" + html_report.text_table(*stages(steps.counts)))
    if until == "pack":
        atomic_io.write_text(root / CONFIG, dump(config))
        say(f"\nreport         {write_report(root, steps.counts)}")
    return Corpus(root)


def _do_steps(
    config: DataConfig, sources: Sequence[Source], steps: "Steps", executor: Executor | None
) -> Iterator[str]:
    """Run the steps in order, and yield the name of each when it is finished."""
    root = steps.root
    if not config.sources:
        made = config.synthetic
        steps.do(
            "synthetic", {}, lambda to: synthesize(to, made.inventions, made.seed, made.fields), "synthetic"
        )

    earlier = earlier_corpora(config.extends)
    check_split(config.pack, earlier)
    known, new = new_inputs(input_hashes(sources), earlier)

    def make_records(to: Path) -> dict[str, Any]:
        return ingest(
            sources, to, executor, select=config.select, shard_bytes=config.shard_bytes, known=known
        )

    ingested = steps.do("ingest", new, make_records, "sources", "select", "extends", "shard_bytes")
    counts = steps.counts["ingest"]
    raw = root / "ingest"
    check_errors(config, counts["rejected"]["total"], counts["documents"], raw / "rejected.jsonl")
    yield "ingest"

    cleaned = steps.do("clean", ingested, lambda to: clean(config.clean, raw, to, executor), "clean")
    counts = steps.counts["clean"]
    dropped = root / "clean" / "dropped.jsonl"
    check_errors(config, counts["dropped"].get("error", 0), counts["records_in"], dropped)
    yield "clean"

    def make_unique(to: Path) -> dict[str, Any]:
        others = [corpus / "dedup" for corpus in earlier]
        return dedup(config.dedup, shard_files(root / "clean"), to, known=others, executor=executor)

    keys = outputs_of_step(earlier, "dedup", ".keys")
    unique = steps.do("dedup", cleaned | keys, make_unique, "dedup", "extends")
    yield "dedup"

    def make_uncontaminated(to: Path) -> dict[str, Any]:
        return decontaminate(config.decontaminate, shard_files(root / "dedup"), to, executor=executor)

    sets = manifest.hash_files(Path(known.path) for known in config.decontaminate.sets)
    final = steps.do("decontaminate", unique | sets, make_uncontaminated, "decontaminate")
    yield "decontaminate"

    wanted, seen = _tokenizer_of(config.tokenizer, earlier, final)

    def make_tokenizer(to: Path) -> dict[str, Any]:
        texts = record_texts(read_records(root / "decontaminate"))
        return {"vocabulary": len(prepare_tokenizer(wanted, texts, to))}

    tokenizer = steps.do("tokenizer", seen, make_tokenizer, "tokenizer", "extends")
    yield "tokenizer"

    folder, left = root / "tokenizer", shard_files(root / "decontaminate")
    origins = steps.counts["ingest"]["shards"]

    def make_pack(to: Path) -> dict[str, Any]:
        before = [shard_files(corpus / "decontaminate") for corpus in earlier]
        return pack(config.pack, folder, left, to, executor, origins, before)

    others = outputs_of_step(earlier, "decontaminate", ".parquet")
    steps.do("pack", final | tokenizer | others, make_pack)
    yield "pack"


def _tokenizer_of(
    wanted: TokenizerConfig, earlier: Sequence[Path], final: dict[str, str]
) -> tuple[TokenizerConfig, dict[str, str]]:
    """The tokenizer, that of the oldest earlier corpus if there is one, and the inputs it is made from."""
    if earlier:
        oldest = earlier[0] / "tokenizer"
        return TokenizerConfig(path=str(oldest)), manifest.outputs_of(oldest)
    return wanted, final if wanted.path is None else {}


@dataclass
class Steps:
    """The steps of one corpus, each run once."""

    root: Path
    settings: dict[str, Any]
    """The configuration that determines the result."""
    force: bool
    say: Callable[[str], None]
    sources: dict[str, dict[str, str]]
    """Licence and permitted use of each source, recorded in every manifest."""
    counts: dict[str, Any] = field(default_factory=dict)
    """The counts of every step, in order."""

    def do(
        self, name: str, inputs: Mapping[str, str], make: Callable[[Path], dict[str, Any]], *keys: str
    ) -> dict[str, str]:
        """Run a step unless it is up to date and return its outputs, the next step's inputs. `keys` are the
        settings it depends on."""
        folder = self.root / name
        settings = {key: self.settings[key] for key in keys} if keys else self.settings
        done = not self.force and manifest.up_to_date(folder, config=settings, inputs=inputs, advice=ADVICE)
        if not done:
            code = manifest.hash_code(Path(__file__).parent)
            with manifest.build_in_parts(
                folder, step=name, config=settings, inputs=inputs, code=code, force=self.force
            ) as built:
                built.counts, built.sources = make(built.path), self.sources
        self.counts[name] = manifest.read(folder)["counts"]
        lines = describe(name, self.counts[name])
        self.say("\n".join([f"{name:<15}{'up to date' if done else 'done'}: {folder}", *lines]))
        return manifest.outputs_of(folder)


def check_errors(config: DataConfig, errors: int, documents: int, file: Path) -> None:
    """UserError if more documents are bad than the budget allows; finished work is kept."""
    if config.error_budget is not None and errors > max(ERRORS, config.error_budget * documents):
        raise UserError(
            f"{errors:,} of {documents:,} documents could not be used, more than error_budget="
            f"{config.error_budget} allows. {file} lists each with its reason. Fix them or remove their"
            " source, or raise error_budget: the run then continues from here."
        )


def _identity(config: DataConfig) -> dict[str, Any]:
    """The part of the configuration that determines the result, without LATER_KEYS at their defaults."""
    unused = {"synthetic"} if config.sources else set()
    settings = config.model_dump(
        mode="json", exclude={"output_dir", "engine", "require_use", "error_budget"} | unused
    )
    for step, keys in LATER_KEYS.items():
        defaults = getattr(config, step).__class__().model_dump(mode="json")
        for key in keys:
            if settings[step][key] == defaults[key]:
                del settings[step][key]
    return settings
