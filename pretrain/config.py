"""Configuration of a pretraining run: the schema of configs/pretrain/*.yaml."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.config.loader import Config
from core.config.schema import (
    CollapseConfig,
    DeepSpeedConfig,
    ForgettingConfig,
    LoggingConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from data.pipeline import DataConfig
from pretrain.datasets import CorpusConfig


class PretrainConfig(Config):
    """One pretraining run."""

    run_dir: str
    """Output folder of the run."""
    resume: Literal["auto", "never"] = "auto"
    """auto: resume from the newest checkpoint in `run_dir`. never: refuse a `run_dir` that has one."""
    branch_from: str | None = None
    """Start from another run's checkpoint, including its optimiser state and position in the data. Use it to
    branch the decay of `schedule.kind=warmup-stable-decay` off a stable run, which can continue."""
    model: ModelConfig
    data: DataConfig
    mixture: tuple[CorpusConfig, ...] = ()
    """Corpora to mix with `data`, which gets the remaining share of the tokens."""
    sequence_length: int = Field(4096, ge=2)
    """Tokens per block."""
    packing: Literal["best-fit", "concat"] = "best-fit"
    """How documents are packed into blocks; see data/packing/packed_dataset.py."""
    general_dir: str | None = None
    """A packed corpus of general text (same tokenizer); its validation loss measures forgetting."""
    forgetting: ForgettingConfig = ForgettingConfig()
    collapse: CollapseConfig = CollapseConfig()
    validation_tokens: int | None = Field(1_000_000, ge=1)
    """Approximate number of held-out tokens per validation (whole documents); null: all."""
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    logging: LoggingConfig = LoggingConfig()

    @property
    def base(self) -> str:
        """Folder or hub id of the starting model: the given one, or this run's random one."""
        return self.model.path or str(Path(self.run_dir) / "base")


FIXED = (
    "model", "data.sources", "data.extends", "data.synthetic", "data.select", "data.clean", "data.dedup",
    "data.decontaminate", "data.tokenizer", "data.pack", "mixture", "sequence_length", "packing",
    "training.seed", "training.global_batch_size", "training.precision",
)  # fmt: skip
"""Keys that may not change when a run resumes: the model, and the order of samples."""
