"""What instruction tuning hands to the trainer: tokenised chats, and held-out ones.

chats ──best-fit rows──▶ dataset          held-out chats, general_dir ──▶ validation
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import dry_run
from core.errors import UserError
from core.provenance import manifest
from core.train.trainer import Card, Recipe
from data.chat.prepare import ChatSet, find_chats
from data.held_out import require_corpus
from sft.config import FIXED, SftConfig, stages

if TYPE_CHECKING:
    from core.train.logger import Log
    from core.train.loop import Dataset
    from core.train.validation import HeldOut


def recipes(config: SftConfig) -> list["SftRecipe"]:
    """One recipe for each stage of a configuration, in order."""
    todo = stages(config)
    return [SftRecipe(stage, todo[0].base) for stage in todo]


class SftRecipe(Recipe):
    """Instruction tuning of all weights, or of a LoRA or QLoRA adapter."""

    fixed = FIXED
    config: SftConfig

    @property
    def sample_tokens(self) -> int:
        return self.config.data.max_tokens

    def check(self) -> Iterator[dry_run.Look]:
        from data.chat.chat_template import TEMPLATES

        config, name = self.config, self.config.data.template
        trust = config.model.trust_remote_code
        if name is not None and name not in TEMPLATES:
            raise UserError(f"data.template: {name!r} is not a template. Known: {', '.join(TEMPLATES)}.")
        chats = find_chats(config.data)
        if chats is not None:
            yield dry_run.place("chats", chats.folder)
            yield from dry_run.vocabulary(self.first_base, chats.tokenizer, trust=trust)
        else:
            yield from self._sources(trust)
        if self.base == self.first_base:
            yield dry_run.model("base", self.base)

    def _sources(self, trust: bool) -> Iterator[dry_run.Look]:
        """The files that the chats would be made from, and whether the tokenizer can write the template."""
        from data.readers.source_files import list_files

        for source in self.config.data.sources:
            if source.path is None:
                yield dry_run.Look("chats", f"{source.title}: a data set of the hub")
                continue
            if Path(source.path).exists():
                list_files(Path(source.path))
            yield dry_run.place("chats", source.path)
        if Path(self.first_base).is_dir():
            from core.model.loading import load_tokenizer
            from data.chat.chat_template import install

            tokenizer = load_tokenizer(self.first_base)
            install(tokenizer, self.config.data.template)
            name = self.config.data.template or "the tokenizer's own"
            yield dry_run.Look("template", f"{name}, ended by {tokenizer.eos_token}")
            yield from dry_run.vocabulary(self.first_base, self.first_base, trust=trust)

    def prepare(self, *, force: bool) -> None:
        from data.chat.prepare import prepare

        prepare(self.config.data, self.first_base, force=force)

    def open(self) -> Sequence[Path]:
        if self.config.general_dir:
            require_corpus("general_dir", Path(self.config.general_dir))
        return [self.chats().folder]

    def chats(self) -> ChatSet:
        """The tokenised chats; UserError if they do not exist yet."""
        found = find_chats(self.config.data)
        if found is None:
            raise UserError(
                f"{self.config.data.output_dir} does not exist yet: run the same command with --prepare first"
                " (make sft does both)."
            )
        return found

    def tokenizer(self) -> Any:
        from core.model.loading import load_tokenizer

        return load_tokenizer(str(self.chats().tokenizer))

    def load_data(self, tokenizer: Any, log: "Log") -> tuple["Dataset", Mapping[str, "HeldOut"]]:
        from core.train.validation import DOMAIN, GENERAL, Validation
        from data.held_out import held_out, open_corpus
        from data.packing.indexed_dataset import Documents
        from data.packing.packed_dataset import choose_documents

        config, chats = self.config, self.chats()
        length, padding = config.data.max_tokens, tokenizer.pad_token_id

        def rows(split: str, chosen: Any) -> Any:
            found = chats.blocks(split, length, packing=config.packing, padding_id=padding, chosen=chosen)
            log.line(
                f"{split}: {len(found.chosen):,} chats, {found.trained_tokens:,} trained tokens,"
                f" {len(found):,} rows of {length:,} ({found.fill:.1%} full)"
            )
            return found

        sets: dict[str, Validation] = {}
        documents = Documents(chats.split("validation"))
        if len(documents):
            chosen = choose_documents(documents, config.validation_tokens, config.data.seed)
            sets[DOMAIN] = Validation(rows("validation", chosen), None)
        else:
            log.line("validation: no chats are held out (data.validation_share)")
        if config.general_dir:
            general = open_corpus("general_dir", Path(config.general_dir), tokenizer)
            budget: Any = {"tokens": config.validation_tokens, "seed": config.data.seed}
            sets |= held_out(GENERAL, general, length, padding, log, **budget)
        return rows("train", None), sets

    def adapt(self, model: Any, tokenizer: Any) -> None:
        from core.model.loading import prompt_as_trained
        from core.model.loss_head import measure
        from sft import neftune

        prompt_as_trained(model, tokenizer)
        measure(model)
        if self.config.neftune_alpha is not None:
            parts = self.config.training.sequence_parallel_size
            neftune.install(model, self.config.neftune_alpha, parts)

    def card(self) -> Card:
        config = self.config
        settings = {
            "row": f"{config.data.max_tokens:,} tokens, {config.packing}",
            "trained on": config.data.train_on,
            "chat template": config.data.template or "the tokenizer's own",
            **({"NEFTune": f"alpha {config.neftune_alpha:g}"} if config.neftune_alpha is not None else {}),
        }
        return Card("tuned on instructions", _chats_table(self.chats().folder), settings, "held-out chats")


def _chats_table(folder: Path) -> str:
    """Sources with counts and terms, from the manifest of the chats."""
    made = manifest.read(folder)
    rows = ["| source | training chats | trained tokens | licence | use |", "|---|---|---|---|---|"]
    terms = made.get("sources") or {}
    for title, each in made["counts"]["sources"].items():
        train, term = each["train"], terms.get(title, {})
        rows.append(
            f"| {title} | {train['chats']:,} | {train['trained_tokens']:,} ({each['trained_share']:.1%}) |"
            f" {term.get('licence', 'unknown')} | {term.get('use', 'unknown')} |"
        )
    held = made["counts"]["validation"]
    return "\n".join(rows) + f"\n\nHeld out: {held['chats']:,} chats."
