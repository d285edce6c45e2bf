"""Preference tuning (DPO, arXiv:2305.18290): a tuned model and pairs of answers in, a model that prefers the
chosen ones out.

    python -m sft dpo --config FILE --prepare            tokenise the pairs, in one process
    python -m sft dpo --config FILE [key=value]          train; python -m core.launch -m sft dpo … on all GPUs
    python -m sft dpo --config FILE --dry-run            check everything but the weights

    pairs ──the model before training──▶ reference log-probabilities, kept in RUN ──▶ core/train/loop.py ──▶
    RUN/model

The reference is the model that training starts from: with a new adapter the model without it, with
`model.adapter.path` the model with that adapter. Its log-probabilities are computed once, before the first
step; no second model is held. Steps, checkpoints and resuming are those of `python -m sft`.
"""

import argparse
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from core import dry_run
from core.config.loader import from_arguments
from core.config.schema import OptimizerConfig, RunConfig
from core.errors import UserError
from core.provenance import atomic_io, manifest
from core.train.trainer import Card, Recipe, add_run_arguments
from core.train.trainer import run as run_recipes
from sft.config import TuningConfig
from sft.preference_data import TERMS, Pairs, PairsConfig, open_pairs, write_pairs

if TYPE_CHECKING:
    from core.distributed.deepspeed_backend import Engine
    from core.distributed.process_group import World
    from core.model.loss_head import Objective
    from core.train.logger import Log
    from core.train.loop import Dataset
    from core.train.validation import HeldOut

FIXED = (
    "model",
    "data.paths",
    "data.template",
    "data.max_tokens",
    "data.validation_share",
    "data.seed",
    "beta",
    "training.seed",
    "training.global_batch_size",
    "training.precision",
)
"""Keys that a run which continues may not change."""


class DpoConfig(RunConfig):
    """One run of preference tuning; samples in `training` are pairs, and so are the `tokens` of the log."""

    data: PairsConfig
    beta: float = Field(0.1, gt=0)
    """How closely the model stays to the reference; higher is closer."""
    publish: Literal["best", "last"] = "best"
    """Which model becomes `run_dir`/model: the one with the lowest validation loss, or the last."""
    training: TuningConfig = TuningConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-7)


def main(arguments: list[str]) -> int | None:
    """Read the configuration, then check, prepare or train."""
    parser = argparse.ArgumentParser(
        prog="python -m sft dpo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_arguments(parser, default="configs/sft/dpo.yaml")
    given = parser.parse_intermixed_args(arguments)
    config = from_arguments(DpoConfig, given)
    if config is None:
        return None
    if config.model.path is None:
        raise UserError("model.path: preference tuning needs a tuned model.")
    return run_recipes([DpoRecipe(config)], given)


class DpoRecipe(Recipe):
    """Preference tuning of all weights or of an adapter."""

    fixed = FIXED
    prepares_late = True
    config: DpoConfig

    def __init__(self, config: DpoConfig) -> None:
        super().__init__(config)
        from sft.dpo_loss import Preference

        self.preference = Preference(config.beta)

    @property
    def sample_tokens(self) -> int:
        return 2 * self.config.data.max_tokens

    @property
    def document_tokens(self) -> int:
        return self.config.data.max_tokens

    @property
    def folder(self) -> Path:
        """Where the tokenised pairs are."""
        return Path(self.config.run_dir) / "pairs"

    def check(self) -> Iterator[dry_run.Look]:
        if self.config.deepspeed.zero_stage == 3:
            raise UserError(
                "deepspeed.zero_stage=3 is not supported for preference tuning. Set zero_stage=2."
            )
        if self.config.training.sequence_parallel_size > 1:
            raise UserError(
                "training.sequence_parallel_size is not supported for preference tuning, whose loss needs the"
                " log-probability of a whole answer. Set it to 1."
            )
        for path in self.config.data.paths:
            yield dry_run.place("pairs", path)
        yield dry_run.model("base", self.base)

    def prepare(self, *, force: bool) -> None:
        """Tokenise the pairs into RUN/pairs, once; again where other data is asked for before the first
        checkpoint."""
        from data.chat.prepare import hash_tokenizer
        from data.readers.source_files import list_files

        config, tokenizer = self.config.data, self.tokenizer()
        files = (file for name in config.paths for file in list_files(Path(name)))
        inputs = manifest.hash_files(files) | {"tokenizer": hash_tokenizer(tokenizer)}
        started = any((Path(self.config.run_dir) / "checkpoints").glob("step-*"))
        write_pairs(self.folder, config, tokenizer, inputs, force=force or not started)

    def open(self) -> Sequence[Path]:
        return [self.folder]

    def tokenizer(self) -> Any:
        from core.model.loading import load_tokenizer
        from data.chat.chat_template import install

        adapter = self.config.model.adapter
        tokenizer = load_tokenizer(adapter.path if adapter and adapter.path else self.base)
        install(tokenizer, self.config.data.template)
        return tokenizer

    def load_data(self, tokenizer: Any, log: "Log") -> tuple["Dataset", Mapping[str, "HeldOut"]]:
        from core.train.validation import DOMAIN, GENERAL
        from data.held_out import held_out, open_corpus
        from sft.dpo_loss import HeldOutPairs

        config = self.config
        self.pairs = open_pairs(self.folder, tokenizer.pad_token_id)
        train, validation = self.pairs["train"], self.pairs["validation"]
        dropped = manifest.read(self.folder)["counts"]["dropped"]
        log.line(
            f"{len(train):,} pairs to train on, {len(validation):,} held out,"
            f" left out: {dropped or 'none'} (dropped.jsonl)"
        )
        sets: dict[str, Any] = {DOMAIN: HeldOutPairs(validation, self.preference)} if len(validation) else {}
        if config.general_dir:
            corpus = open_corpus("general_dir", Path(config.general_dir), tokenizer)
            shape: Any = (corpus, config.data.max_tokens, tokenizer.pad_token_id, log)
            sets |= held_out(GENERAL, *shape, tokens=config.validation_tokens, seed=config.data.seed)
        return train, sets

    def objective(self) -> "Objective":
        return self.preference.objective()

    def adapt(self, model: Any, tokenizer: Any) -> None:
        from core.model.loading import prompt_as_trained

        prompt_as_trained(model, tokenizer)

    def before_first_step(self, engine: "Engine", world: "World", log: "Log") -> None:
        """Give the pairs the log-probabilities of the model before training, computed once and kept in
        RUN."""
        from core.model.loading import weight_files

        config = self.config
        made_from = str([config.data.model_dump(exclude=TERMS), weight_files(self.base), self.base])
        identity = hashlib.sha256(made_from.encode()).hexdigest()[:16]
        for name, pairs in self.pairs.items():
            file = Path(config.run_dir) / f"reference-{name}-{identity}.npy"
            add_reference(engine, pairs, file, world, log, config.training.micro_batch_size)

    def card(self) -> Card:
        config, counts = self.config, manifest.read(self.folder)["counts"]
        terms = f"licence {config.data.licence}, use {config.data.use}"
        data = f"{counts['train']:,} pairs of answers ({terms}), {counts['validation']:,} held out."
        settings = {"beta": f"{config.beta:g}", "longest chat": f"{config.data.max_tokens:,} tokens"}
        return Card("tuned on preferences (DPO)", data, settings, "held-out pairs")


def add_reference(engine: "Engine", pairs: Pairs, file: Path, world: "World", log: "Log", size: int) -> None:
    """Give `pairs` the log-probabilities of the engine's model, or read them from `file` if it exists;
    collective."""
    import numpy as np
    import torch

    from core.train.dataloader import collate
    from sft.dpo_loss import log_probabilities

    if not len(pairs):
        return
    world.barrier()
    if file.exists():
        pairs.reference = np.load(file)
        return
    found = torch.zeros(len(pairs), 2, dtype=torch.float64, device=world.device)
    engine.eval()
    with torch.no_grad():
        for first in range(world.rank * size, len(pairs), world.size * size):
            world.mark()
            stop = min(first + size, len(pairs))
            batch = collate([pairs[i] for i in range(first, stop)], world.device)
            found[first:stop] = log_probabilities(engine, batch).double()
    engine.train()
    pairs.reference = world.sum(found).cpu().numpy()
    if world.is_main:
        with atomic_io.beside(file, "partial").open("wb") as partial:
            np.save(partial, pairs.reference)
        atomic_io.replace(atomic_io.beside(file, "partial"), file)
    log.line(f"reference log-probabilities of {len(pairs):,} pairs: {file}")
