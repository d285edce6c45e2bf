"""What pretraining hands to the trainer: packed corpora, one or a mixture, and held-out text.

data, mixture ──blocks──▶ one dataset          data, general_dir ──held-out documents──▶ validation
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import dry_run
from core.errors import UserError
from core.provenance import manifest
from core.train.trainer import Card, Recipe
from data.dry_run import looks as data_looks
from data.held_out import require_corpus
from data.pipeline import Corpus, find_corpus, run
from pretrain.config import FIXED, PretrainConfig

if TYPE_CHECKING:
    from core.train.logger import Log
    from core.train.loop import Dataset
    from core.train.validation import HeldOut, Validation


class PretrainRecipe(Recipe):
    """Continued pretraining, or pretraining from random weights, on packed corpora."""

    fixed = FIXED
    config: PretrainConfig

    @property
    def base(self) -> str:
        return self.config.base

    @property
    def sample_tokens(self) -> int:
        return self.config.sequence_length

    def check(self) -> Iterator[dry_run.Look]:
        config = self.config
        made = Path(config.data.output_dir, "pack").exists()
        corpus = find_corpus(config.data) if made else None
        if corpus is None:
            yield dry_run.Look(
                "corpus", f"{config.data.output_dir}: not made yet; --prepare makes it:", there=False
            )
            yield from data_looks(config.data)
        else:
            yield dry_run.place("corpus", corpus.folder / "pack")
            yield from dry_run.vocabulary(config.base, corpus.tokenizer, trust=config.model.trust_remote_code)
        for more in config.mixture:
            yield dry_run.place("mixture", more.output_dir)
        if config.model.architecture is None:
            yield dry_run.model("base", config.base)
        else:
            yield dry_run.Look("base", f"random weights, {config.model.architecture['model_type']}")

    def prepare(self, *, force: bool) -> None:
        from core.model.loading import create_base

        config = self.config
        run(config.data, force=force)
        if config.model.architecture is not None:
            made = create_base(config.model, self.tokenizer(), Path(config.base))
            print(f"base           {'done' if made else 'up to date'}: {config.base} (random weights)")

    def open(self) -> Sequence[Path]:
        config = self.config
        corpus = find_corpus(config.data)
        if corpus is None or (config.model.architecture is not None and not Path(config.base).exists()):
            missing = config.data.output_dir if corpus is None else config.base
            raise UserError(
                f"{missing} does not exist yet: run the same command with --prepare first (make pretrain does"
                " both)."
            )
        others = [require_corpus(f"mixture: {each.name}", Path(each.output_dir)) for each in config.mixture]
        if config.general_dir:
            require_corpus("general_dir", Path(config.general_dir))
        return [each.folder / "pack" for each in (corpus, *others)]

    def tokenizer(self) -> Any:
        from core.model.loading import load_tokenizer

        return load_tokenizer(str(Corpus(Path(self.config.data.output_dir)).tokenizer))

    def load_data(self, tokenizer: Any, log: "Log") -> tuple["Dataset", Mapping[str, "HeldOut"]]:
        from core.train.validation import DOMAIN, GENERAL
        from data.held_out import blocks, held_out, open_corpus
        from data.packing.dataset_mixture import Component, Mixture

        config = self.config
        corpus, packing = Corpus(Path(config.data.output_dir)), config.packing
        shape = (config.sequence_length, tokenizer.eos_token_id, log)
        data: Any = blocks("train", corpus.split("train"), *shape, packing=packing)
        if config.mixture:
            parts = [Component("data", data, None)]
            for more in config.mixture:
                other = open_corpus(f"mixture: {more.name}", Path(more.output_dir), tokenizer)
                planned = blocks(more.name, other.split("train"), *shape, packing=packing)
                parts.append(Component(more.name, planned, more.share, more.max_epochs))
            data = Mixture(parts)
        sets = {DOMAIN: corpus}
        if config.general_dir:
            sets[GENERAL] = open_corpus("general_dir", Path(config.general_dir), tokenizer)
        found: dict[str, Validation] = {}
        for name, source in sets.items():
            found |= held_out(
                name,
                source,
                *shape,
                tokens=config.validation_tokens,
                seed=config.data.pack.seed,
                packing=packing,
            )
        return data, found

    def card(self) -> Card:
        config = self.config
        folders = [Path(config.data.output_dir), *(Path(more.output_dir) for more in config.mixture)]
        rows = ["| corpus | training tokens | sources (licence, use) |", "|---|---|---|"]
        for folder in folders:
            made = manifest.read(folder / "pack")
            terms = (made.get("sources") or {}).items()
            named = "; ".join(f"{name} ({each['licence']}, {each['use']})" for name, each in terms)
            rows.append(f"| {folder.name} | {made['counts']['train']['tokens']:,} | {named or 'unknown'} |")
        shares = {more.name: more.share for more in config.mixture}
        settings = {
            "block": f"{config.sequence_length:,} tokens, {config.packing}",
            **(
                {"mixture": ", ".join(f"{n} {s or 'in proportion'}" for n, s in shares.items())}
                if shares
                else {}
            ),
        }
        how = (
            "pretrained from random weights"
            if config.model.architecture
            else "pretrained further on raw text"
        )
        return Card(how, "\n".join(rows), settings, "held-out text")
