"""What the model is like while it trains: its loss on held-out text, what it forgets, what it writes.

held-out domain text   ──▶ validation_loss, _perplexity, _bits_per_byte
held-out general text  ──▶ general_loss, …; a warning or a stop where that rises too far: forgetting
prompts                ──▶ text in the log, repeated_ngrams; a warning where it repeats itself: collapse
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from core.checkpoint.progress import Progress
from core.config.schema import CollapseConfig, ForgettingConfig
from core.distributed.process_group import World
from core.errors import UserError
from core.model.loss_head import IGNORED, summed_loss, take_measures
from core.train.dataloader import collate
from core.train.logger import Log
from core.train.loop import Dataset

DOMAIN, GENERAL = "validation", "general"


class HeldOut(Protocol):
    """Something held out that a model is measured on."""

    def measure(self, engine: Any, micro_batch_size: int, world: World) -> dict[str, float]:
        """`loss`, and other numbers by name; collective."""
        ...


@dataclass
class Validation:
    """Held-out samples, and the bytes of text they came from (None if unknown)."""

    samples: Dataset
    utf8_bytes: int | None

    def measure(self, engine: Any, micro_batch_size: int, world: World) -> dict[str, float]:
        """See `validate`."""
        return validate(engine, self, micro_batch_size, world)


@dataclass
class Lookout:
    """Looks at the model every so many steps: `look` for `core.train.loop.fit`; collective."""

    engine: Any
    tokenizer: Any
    validations: Mapping[str, HeldOut]
    """Held-out text by what its columns begin with: `DOMAIN`, `GENERAL`."""
    micro_batch_size: int
    world: World
    log: Log
    forgetting: ForgettingConfig = field(default_factory=ForgettingConfig)
    collapse: CollapseConfig = field(default_factory=CollapseConfig)

    def __call__(self, progress: Progress) -> dict[str, float]:
        """The numbers at this step, told in the log too; UserError where more is forgotten than allowed."""
        numbers: dict[str, float] = {}
        for name, validation in self.validations.items():
            found = validation.measure(self.engine, self.micro_batch_size, self.world)
            words = "  ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in found.items())
            self.log.line(f"step {progress.step}: {name} {words}")
            numbers |= {f"{name}_{key}": value for key, value in found.items()}
            progress.first_loss.setdefault(name, found["loss"])
        if self.collapse.prompts:
            numbers["repeated_ngrams"] = self._write(progress.step)
        if GENERAL in self.validations:
            self._check_forgetting(progress, numbers[f"{GENERAL}_loss"])
        return numbers

    def _check_forgetting(self, progress: Progress, now: float) -> None:
        before = progress.first_loss[GENERAL]
        risen = now / before - 1
        words = f"general loss rose by {risen:.1%}, from {before:.4f} to {now:.4f}"
        if self.forgetting.stop_share is not None and risen > self.forgetting.stop_share:
            raise UserError(
                f"step {progress.step}: {words}, more than forgetting.stop_share="
                f"{self.forgetting.stop_share}. The last checkpoint forgets less. Train on more general text,"
                " or at a lower rate; or raise the limit, and the same command goes on."
            )
        if risen > self.forgetting.warn_share:
            self.log.line(f"step {progress.step}: warning: {words}: the model forgets.")

    @torch.no_grad()
    def _write(self, step: int) -> float:
        """Go on from each prompt; returns the share of repeated n-grams over all of them.

        At ZeRO 3 every pass gathers weights, so all processes write, the same by the same seed; else the main
        one does.
        """
        if not self.world.is_main and not hasattr(next(self.engine.module.parameters()), "ds_id"):
            return 0.0
        self.engine.eval()
        texts = []
        for number, prompt in enumerate(self.collapse.prompts):
            torch.manual_seed(number)  # the loop seeds every step itself
            self.world.mark()
            ids = self.tokenizer(prompt, return_tensors="pt")["input_ids"].to(self.world.device)
            written = self.engine.module.generate(
                ids, max_new_tokens=self.collapse.max_new_tokens, do_sample=True, use_cache=True,
                pad_token_id=self.tokenizer.eos_token_id,
            )[0, ids.shape[1] :].tolist()  # fmt: skip
            texts.append(written)
            self.log.line(f"step {step}: sample: {prompt} ▸ {self.tokenizer.decode(written)!r}")
        self.engine.train()
        share = repeated_share(texts, self.collapse.ngram)
        self.log.line(f"step {step}: repeated {self.collapse.ngram}-grams {share:.1%}")
        if share > self.collapse.warn_share:
            self.log.line(f"step {step}: warning: the model repeats itself.")
        return share


def repeated_share(texts: Sequence[Sequence[int]], n: int) -> float:
    """The share of n-grams that stood in the same text before, over all texts (seq-rep-n,
    arXiv:1908.04319)."""
    grams = [[tuple(text[i : i + n]) for i in range(len(text) - n + 1)] for text in texts]
    total = sum(map(len, grams))
    return 1 - sum(len(set(each)) for each in grams) / total if total else 0.0


@torch.no_grad()
def validate(engine: Any, validation: Validation, micro_batch_size: int, world: World) -> dict[str, float]:
    """Mean loss (nats a token), perplexity and bits per byte over all held-out samples; collective.

    Every process runs the same number of passes, as ZeRO 3 needs; what is left over is done with blank
    samples.
    """
    data = validation.samples
    sums = torch.zeros(2, device=world.device, dtype=torch.float64)
    engine.eval()
    for first in range(0, len(data), micro_batch_size * world.size):
        mine = [first + world.rank * micro_batch_size + i for i in range(micro_batch_size)]
        samples = [
            data[i] if i < len(data) else data[0] | {"labels": np.full_like(data[0]["labels"], IGNORED)}
            for i in mine
        ]
        batch = collate(samples, world.device)
        world.mark()
        sums[0] += summed_loss(engine, batch)
        sums[1] += (batch["labels"] != IGNORED).sum()
    engine.train()
    nll, tokens = world.sum(sums).tolist()
    found = {"loss": nll / tokens, "perplexity": math.exp(min(700.0, nll / tokens))}
    found |= take_measures(engine.module, world)
    if validation.utf8_bytes:
        found["bits_per_byte"] = nll / math.log(2) / validation.utf8_bytes
    return found
