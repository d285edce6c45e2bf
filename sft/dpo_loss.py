"""The DPO loss (arXiv:2305.18290, equation 7) for pairs; both answers of a pair share one row."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import logsigmoid

from core.model import varlen_attention
from core.model.loss_head import IGNORED, Objective, learnt, token_losses

if TYPE_CHECKING:
    from core.distributed.deepspeed_backend import Engine
    from core.distributed.process_group import World
    from core.train.logger import Log
    from sft.preference_data import Pairs

Batch = dict[str, torch.Tensor]


def log_probabilities(engine: Any, batch: Batch) -> torch.Tensor:
    """Of the chosen and of the rejected answer of each pair, summed over their tokens (nats): (B, 2)."""
    rows, device = len(batch["labels"]), batch["labels"].device
    row = torch.arange(rows, device=device)[:, None].expand_as(batch["labels"])
    found = torch.zeros(2 * rows, device=device)
    whole = batch | {"answer": 2 * row + batch["part"]}
    for each in varlen_attention.passes(getattr(engine, "module", engine), whole):
        found = found.index_add(0, learnt(each["answer"].flatten(), each), -token_losses(engine, each))
    return found.view(-1, 2)


@dataclass
class Preference:
    """The objective, and its numbers for the log."""

    beta: float
    noted: list[torch.Tensor] = field(default_factory=list)

    def objective(self) -> Objective:
        """For `core.train.loop.fit`."""
        return Objective(self.loss, pairs_in, self.take, unit="pairs")

    def loss(self, engine: Any, batch: Batch) -> torch.Tensor:
        """The sum of -log sigmoid(beta * margin) over the pairs; the margin is by how much more than the
        reference the model prefers the chosen answer."""
        rewards = self.beta * (log_probabilities(engine, batch) - batch["reference"])
        margin = rewards[:, 0] - rewards[:, 1]
        there = (batch["labels"] != IGNORED).any(1)
        losses = -logsigmoid(margin) * there
        seen = (
            (margin > 0) & there,
            margin * there,
            rewards[:, 0] * there,
            rewards[:, 1] * there,
            there,
            losses,
        )
        self.noted.append(torch.stack([each.detach().double().sum() for each in seen]))
        return losses.sum().float()

    def take(self, _: Any, world: "World") -> dict[str, float]:
        """Means over the pairs since the last call; collective."""
        sums = world.sum(torch.stack(self.noted).sum(0)).tolist()
        self.noted.clear()
        pairs = max(1, sums[4])
        return {
            "reward_accuracy": sums[0] / pairs,
            "reward_margin": sums[1] / pairs,
            "chosen_reward": sums[2] / pairs,
            "rejected_reward": sums[3] / pairs,
            "pair_loss": sums[5] / pairs,
        }


@dataclass
class HeldOutPairs:
    """Held-out pairs for core/train/validation.py."""

    pairs: "Pairs"
    preference: Preference

    @torch.no_grad()
    def measure(
        self,
        engine: "Engine",
        micro_batch_size: int,
        world: "World",
        log: "Log",  # noqa: ARG002 (there are few pairs)
        name: str,  # noqa: ARG002
    ) -> dict[str, float]:
        """The numbers of the held-out pairs; collective."""
        from core.train.dataloader import collate

        noted, size = self.preference.noted, micro_batch_size
        engine.eval()
        for first in range(world.rank * size, len(self.pairs), world.size * size):
            world.mark()
            batch = [self.pairs[i] for i in range(first, min(first + size, len(self.pairs)))]
            self.preference.loss(engine, collate(batch, world.device))
        engine.train()
        if not noted:  # fewer pairs than processes
            noted.append(torch.zeros(6, dtype=torch.float64, device=world.device))
        found = self.preference.take(engine, world)
        return {"loss": found.pop("pair_loss"), **found}


def pairs_in(batch: Batch) -> torch.Tensor:
    """How many pairs a batch holds; blank ones, after the end of the data, are none."""
    return (batch["labels"] != IGNORED).any(1).sum()
