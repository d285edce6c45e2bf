"""Configuration of a pretraining run: the schema of configs/pretrain/*.yaml."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.config.loader import Config
from core.config.schema import RunConfig
from data.pipeline import DataConfig


class CorpusConfig(Config):
    """Another packed corpus in the mixture: more domain text, or general text for replay."""

    name: str = Field(pattern=r"^[\w-]+$")
    """Name used in the log and the metrics."""
    output_dir: str
    """Folder written by `python -m data run`, with the same tokenizer."""
    share: float | None = Field(None, gt=0, lt=1)
    """Its share of the run's tokens; null: proportional to its size, as if it were part of `data`."""
    max_epochs: float | None = Field(None, gt=0)
    """Repeat it at most N times; after that its share goes to the others. null: no limit."""


class PretrainConfig(RunConfig):
    """One pretraining run."""

    data: DataConfig
    mixture: tuple[CorpusConfig, ...] = ()
    """Corpora to mix with `data`, which gets the remaining share of the tokens."""
    sequence_length: int = Field(4096, ge=2)
    """Tokens per block."""
    packing: Literal["best-fit", "concat"] = "best-fit"
    """How documents are packed into blocks; see data/packing/packed_dataset.py."""

    @property
    def base(self) -> str:
        """Folder or hub id of the starting model: the given one, or this run's random one."""
        return self.model.path or str(Path(self.run_dir) / "base")


FIXED = (
    "model",
    "data.sources",
    "data.extends",
    "data.synthetic",
    "data.select",
    "data.clean",
    "data.dedup",
    "data.decontaminate",
    "data.tokenizer",
    "data.pack",
    "mixture",
    "sequence_length",
    "packing",
    "training.seed",
    "training.global_batch_size",
    "training.precision",
)
"""Keys that may not change when a run resumes: the model, and the order of samples."""
