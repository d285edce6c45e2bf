"""A training method in one file: label smoothing (arXiv:1512.00567) over random token ids.

python -m tests.core.train.smoothed_labels RUN MODEL [--prepare | --dry-run]
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core import dry_run
from core.config.schema import RunConfig
from core.errors import run_command
from core.provenance import manifest
from core.train import trainer

if TYPE_CHECKING:
    from core.train.validation import HeldOut


class Smoothed(trainer.Recipe):
    """Next tokens with a tenth of the probability spread over the vocabulary."""

    fixed = ("model", "training.seed")
    sample_tokens = 16

    def check(self) -> Iterator[dry_run.Look]:
        yield dry_run.model("base", self.base)

    def prepare(self, *, force: bool) -> None:
        with manifest.build(self.folder, step="ids", config={}, inputs={}, force=force) as built:
            np.save(built.path / "ids.npy", np.random.default_rng(0).integers(3, 200, (32, 17)))

    @property
    def folder(self) -> Path:
        return Path(self.config.run_dir).with_name("ids")

    def open(self) -> Sequence[Path]:
        return [self.folder]

    def tokenizer(self) -> Any:
        from core.model.loading import load_tokenizer

        return load_tokenizer(self.base)

    def load_data(self, tokenizer: Any, log: Any) -> tuple[Any, Mapping[str, "HeldOut"]]:  # noqa: ARG002
        places = np.arange(16)
        rows = [
            {"input_ids": row[:-1], "labels": row[1:], "position_ids": places}
            for row in np.load(self.folder / "ids.npy")
        ]
        return rows, {}

    def objective(self) -> Any:
        import torch

        from core.model.loss_head import Objective

        def loss(engine: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            logits = engine(input_ids=batch["input_ids"], use_cache=False).logits
            return torch.nn.functional.cross_entropy(
                logits.float().flatten(0, 1), batch["labels"].flatten(), reduction="sum", label_smoothing=0.1
            )

        return Objective(loss, lambda batch: torch.tensor(batch["labels"].numel()), lambda *_: {})

    def card(self) -> trainer.Card:
        return trainer.Card("trained with smoothed labels", "random ids", {"smoothing": "0.1"}, "nothing")


def main() -> int:
    """Train for eight steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("model")
    for phase in ("--prepare", "--force", "--dry-run"):
        parser.add_argument(phase, action="store_true")
    given = parser.parse_args()
    config = {
        "run_dir": given.run,
        "model": {"path": given.model},
        "training": {"global_batch_size": 4, "micro_batch_size": 2, "steps": 8},
        "optimizer": {"learning_rate": 5e-3},
        "logging": {"every_steps": 1, "tensorboard": False},
        "deepspeed": {"zero_stage": 1},
    }
    return trainer.run([Smoothed(RunConfig.model_validate(config))], given)


if __name__ == "__main__":
    run_command(main)
