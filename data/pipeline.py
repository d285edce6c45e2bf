"""The corpus pipeline: raw files in, a packed corpus out, each step a folder with its manifest.

    sources ──ingest──▶ records ──clean──▶ ──dedup──▶ ──decontaminate──▶ records ──tokenizer──▶ tokenizer
                                                                                 ──pack──▶ .bin, .idx

Without sources, a synthetic corpus of made-up bilingual patents is written first and taken as the source. A
step whose configuration and inputs are as they were is not done again; where they changed, nothing is
overwritten unless forced.

A corpus grows by another one that `extends` it: that one reads the files that are new, drops what the earlier
ones hold, and takes their tokenizer. So the earlier ones stay as they are, byte by byte, and models can be
trained on all of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from core import html_report
from core.config.loader import Config
from core.errors import UserError
from core.provenance import manifest
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

ERRORS = 100
"""So many bad documents never end a run."""


class SyntheticConfig(Config):
    """The made-up bilingual patents that stand in where no sources are given."""

    inventions: int = Field(2000, ge=1)
    """How many; each gives a Chinese and an English record."""
    seed: int = Field(0, ge=0)
    """Invention i of a seed is always the same."""
    fields: tuple[str, ...] = ()
    """Fields of data/synthetic/lexicon.yaml that they are in, as refrigeration: a smaller vocabulary; none
    for all."""


class DataConfig(Config):
    """From raw files to a packed corpus."""

    output_dir: str
    """The corpus's folder; every step has its own inside it."""
    sources: tuple[str | Source, ...] = ()
    """Files and folders with patents, each a path or a section with `path` and more; empty for synthetic
    ones."""
    extends: tuple[str, ...] = ()
    """Folders of finished corpora that this one adds to. Files that they have read are left out, and so is
    every record that they hold already; their tokenizer is taken."""
    select: SelectConfig = SelectConfig()
    require_use: Literal["commercial", "non-commercial", "research"] | None = None
    """What every source must permit: one whose `use` forbids it, or is unknown, is refused before reading."""
    error_budget: float | None = Field(0.1, ge=0, le=1)
    """Share of the documents that may give no record, and of the records on which a rule may fail. More than
    this, and more than 100 of them, end the run. null for no limit."""
    shard_bytes: int = Field(SHARD_BYTES, ge=1)
    """Input of one shard, which one worker does and a kill may cost. It decides how records lie in files."""
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
    """The corpus that `config` describes, or None where it is not made yet; UserError where another stands
    there."""
    corpus = Corpus(Path(config.output_dir))
    made = manifest.up_to_date(corpus.folder / "pack", config=_identity(config), inputs=None, advice=ADVICE)
    return corpus if made else None


ADVICE = (
    "Nothing was overwritten. Give another folder (data.output_dir=…, or output_dir=… for `python -m data`),"
    " or run with --force to make this one again."
)


def run(
    config: DataConfig, *, force: bool = False, until: str = "pack", say: Callable[[str], None] = print
) -> Corpus:
    """Do every step up to `until` that is not done yet (all of them with `force`); `say` gets a line or a few
    a step."""
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
        say(f"\nreport         {write_report(root, steps.counts)}")
    return Corpus(root)


def _do_steps(
    config: DataConfig, sources: Sequence[Source], steps: "Steps", executor: Executor | None
) -> Iterator[str]:
    """Do the steps one after the other, and name each that is done."""
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
    """The tokenizer, of the oldest corpus where there are some, and what it is made from."""
    if earlier:
        oldest = earlier[0] / "tokenizer"
        return TokenizerConfig(path=str(oldest)), manifest.outputs_of(oldest)
    return wanted, final if wanted.path is None else {}


@dataclass
class Steps:
    """The steps of one corpus, each done once."""

    root: Path
    settings: dict[str, Any]
    """What decides the result."""
    force: bool
    say: Callable[[str], None]
    sources: dict[str, dict[str, str]]
    """Licence and permitted use of each source: every manifest says them."""
    counts: dict[str, Any] = field(default_factory=dict)
    """The counts of every step, in their order."""

    def do(
        self, name: str, inputs: Mapping[str, str], make: Callable[[Path], dict[str, Any]], *keys: str
    ) -> dict[str, str]:
        """Do a step unless it is done; its outputs are the next one's inputs, `keys` its settings."""
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
    """UserError where more documents are bad than the budget allows; what is done so far is kept."""
    if config.error_budget is not None and errors > max(ERRORS, config.error_budget * documents):
        raise UserError(
            f"{errors:,} of {documents:,} documents could not be used: more than error_budget="
            f"{config.error_budget} allows. {file} names each with its reason. Mend them, or leave their"
            " source out; or raise error_budget, and the run goes on from here."
        )


def _identity(config: DataConfig) -> dict[str, Any]:
    """The part of the configuration that decides the result."""
    unused = {"synthetic"} if config.sources else set()
    return config.model_dump(
        mode="json", exclude={"output_dir", "engine", "require_use", "error_budget"} | unused
    )
