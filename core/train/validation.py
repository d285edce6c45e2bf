"""Validation during training: the loss on held-out text, forgetting, and repetition in generated text.

held-out domain text   ──▶ validation_loss, _perplexity, _bits_per_byte
held-out general text  ──▶ general_loss, …; a warning, or the end of the run, if it rises too far: forgetting
prompts                ──▶ samples in the log, repeated_ngrams; a warning if it repeats itself: collapse
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from core.checkpoint.progress import Progress
from core.config.schema import CollapseConfig, ForgettingConfig
from core.distributed.deepspeed_backend import Engine
from core.distributed.process_group import World
from core.errors import UserError
from core.model.loss_head import IGNORED, summed_loss, take_measures
from core.train.dataloader import collate
from core.train.logger import Log
from core.train.loop import Dataset

DOMAIN, GENERAL = "validation", "general"


class HeldOut(Protocol):
    """Something held out that a model is measured on."""

    def measure(
        self, engine: Engine, micro_batch_size: int, world: World, log: Log, name: str
    ) -> dict[str, float]:
        """`loss`, and other numbers by name; `log` shows progress under `name`; collective."""
        ...


@dataclass
class Validation:
    """Held-out samples, and the size in bytes of the text they were made from (None if unknown)."""

    samples: Dataset
    utf8_bytes: int | None

    def measure(
        self, engine: Engine, micro_batch_size: int, world: World, log: Log, name: str
    ) -> dict[str, float]:
        """See `validate`."""
        return validate(engine, self, micro_batch_size, world, log, name)


@dataclass
class Validator:
    """Validates the model when `core.train.loop.fit` calls it; collective."""

    engine: Engine
    tokenizer: Any
    validations: Mapping[str, HeldOut]
    """Held-out text by the prefix of its keys in metrics.jsonl: `DOMAIN`, `GENERAL`."""
    micro_batch_size: int
    world: World
    log: Log
    forgetting: ForgettingConfig = field(default_factory=ForgettingConfig)
    collapse: CollapseConfig = field(default_factory=CollapseConfig)

    def __call__(self, progress: Progress) -> dict[str, float]:
        """The numbers at this step, which are logged too; UserError if the model forgot more than allowed."""
        numbers: dict[str, float] = {}
        for name, validation in self.validations.items():
            measured = validation.measure(self.engine, self.micro_batch_size, self.world, self.log, name)
            listed = "  ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in measured.items())
            self.log.line(f"step {progress.step}: {name} {listed}")
            numbers |= {f"{name}_{key}": value for key, value in measured.items()}
            progress.first_loss.setdefault(name, measured["loss"])
        if self.collapse.prompts:
            numbers["repeated_ngrams"] = self._generate(progress.step)
        if GENERAL in self.validations:
            self._check_forgetting(progress, numbers[f"{GENERAL}_loss"])
        return numbers

    def _check_forgetting(self, progress: Progress, loss: float) -> None:
        before = progress.first_loss[GENERAL]
        risen = loss / before - 1
        rise = f"general loss rose by {risen:.1%}, from {before:.4f} to {loss:.4f}"
        if self.forgetting.stop_share is not None and not risen <= self.forgetting.stop_share:
            raise UserError(
                f"step {progress.step}: {rise}, above forgetting.stop_share={self.forgetting.stop_share}. The"
                " last checkpoint is from before that. Mix in more general text or lower"
                " optimizer.learning_rate; or raise forgetting.stop_share and run the same command to resume."
            )
        if not risen <= self.forgetting.warn_share:  # true of nan too
            self.log.line(f"step {progress.step}: warning: {rise}: the model is forgetting.")

    @torch.no_grad()
    def _generate(self, step: int) -> float:
        """Continue each prompt; returns the share of repeated n-grams over all continuations.

        At ZeRO 3 every pass gathers weights, so all processes generate, the same text because of the same
        seed; at other stages only the main one does.
        """
        if not self.world.is_main and not hasattr(next(self.engine.module.parameters()), "ds_id"):
            return 0.0
        self.engine.eval()
        texts = []
        for number, prompt in enumerate(self.collapse.prompts):
            torch.manual_seed(number)  # the loop seeds every step itself
            self.world.mark()
            ids = self.tokenizer(prompt, return_tensors="pt")["input_ids"].to(self.world.device)
            generated = self.engine.module.generate(
                ids, max_new_tokens=self.collapse.max_new_tokens, do_sample=True, use_cache=True,
                pad_token_id=self.tokenizer.eos_token_id,
            )[0, ids.shape[1] :].tolist()  # fmt: skip
            texts.append(generated)
            self.log.line(f"step {step}: sample: {prompt} ▸ {self.tokenizer.decode(generated)!r}")
        self.engine.train()
        share = repeated_share(texts, self.collapse.ngram)
        self.log.line(f"step {step}: repeated {self.collapse.ngram}-grams {share:.1%}")
        if share > self.collapse.warn_share:
            self.log.line(f"step {step}: warning: the model is repeating itself.")
        return share


def repeated_share(texts: Sequence[Sequence[int]], n: int) -> float:
    """The share of n-grams that already occurred in the same text, over all texts (seq-rep-n,
    arXiv:1908.04319)."""
    grams = [[tuple(text[i : i + n]) for i in range(len(text) - n + 1)] for text in texts]
    total = sum(map(len, grams))
    return 1 - sum(len(set(each)) for each in grams) / total if total else 0.0


@torch.no_grad()
def validate(
    engine: Engine, validation: Validation, micro_batch_size: int, world: World, log: Log, name: str
) -> dict[str, float]:
    """Mean loss (nats per token), perplexity and bits per byte over all held-out samples; collective.

    Every process runs the same number of forward passes, as ZeRO 3 needs; the last ones are padded with blank
    samples. The log shows the progress as that of `name`.
    """
    data = validation.samples
    sums = torch.zeros(2, device=world.device, dtype=torch.float64)
    engine.eval()
    for first in log.track(range(0, len(data), micro_batch_size * world.data_parallel_size), name):
        mine = [first + world.data_parallel_rank * micro_batch_size + i for i in range(micro_batch_size)]
        samples = [
            data[i] if i < len(data) else data[0] | {"labels": np.full_like(data[0]["labels"], IGNORED)}
            for i in mine
        ]
        batch = collate(samples, world.device, *world.part)
        world.mark()
        sums[0] += summed_loss(engine, batch)
        sums[1] += (batch["labels"] != IGNORED).sum()
    engine.train()
    nll, tokens = world.sum(sums).tolist()
    measured = {"loss": nll / tokens, "perplexity": math.exp(min(nll / tokens, 700.0))}  # nan stays nan
    measured |= take_measures(engine.module, world)
    if validation.utf8_bytes:
        measured["bits_per_byte"] = nll / math.log(2) / validation.utf8_bytes
    return measured
