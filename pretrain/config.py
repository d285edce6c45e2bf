"""What a pretraining run is given: the schema of configs/pretrain/*.yaml."""

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
    """Where everything of this run goes."""
    resume: Literal["auto", "never"] = "auto"
    """auto: go on from the newest checkpoint of `run_dir`; never: refuse a `run_dir` that has one."""
    branch_from: str | None = None
    """A checkpoint of another run to begin from, with its optimiser and its place in the data: so the decay
    of `schedule.kind=warmup-stable-decay` branches off a stable run, which itself goes on."""
    model: ModelConfig
    data: DataConfig
    mixture: tuple[CorpusConfig, ...] = ()
    """Corpora besides `data`, which takes the share that they leave."""
    sequence_length: int = Field(4096, ge=2)
    """Tokens of one block."""
    packing: Literal["best-fit", "concat"] = "best-fit"
    """How documents share blocks; see data/packing/packed_dataset.py."""
    general_dir: str | None = None
    """A finished corpus of general text, of the same tokenizer: its held-out part shows what is forgotten."""
    forgetting: ForgettingConfig = ForgettingConfig()
    collapse: CollapseConfig = CollapseConfig()
    validation_tokens: int | None = Field(1_000_000, ge=1)
    """About how many held-out tokens a validation uses, whole documents; null for all."""
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    logging: LoggingConfig = LoggingConfig()

    @property
    def base(self) -> str:
        """Where the model that training starts from is: the given one, or the random one of this run."""
        return self.model.path or str(Path(self.run_dir) / "base")


FIXED = (
    "model", "data.sources", "data.extends", "data.synthetic", "data.select", "data.clean", "data.dedup",
    "data.decontaminate", "data.tokenizer", "data.pack", "mixture", "sequence_length", "packing",
    "training.seed", "training.global_batch_size", "training.precision",
)  # fmt: skip
"""What a run that goes on may not change: the model, and which samples come when."""
