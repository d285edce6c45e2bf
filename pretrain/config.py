"""The configuration of a pretraining run: the schema of configs/pretrain/*.yaml."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.config.loader import Config
from core.config.schema import RunConfig
from data.pipeline import DataConfig


class CorpusConfig(Config):
    """Another packed corpus to train on as well: more of the domain, or general text to replay."""

    name: str = Field(pattern=r"^[\w-]+$")
    """Name in the log and the metrics."""
    output_dir: str
    """Folder written by `python -m data run`, with the same tokenizer."""
    share: float | None = Field(None, gt=0, lt=1)
    """Share of the run's tokens; null: in proportion to its tokens, as an extension of `data`."""
    max_epochs: float | None = Field(None, gt=0)
    """Repeat it at most this often, then the other corpora take over its share; null for no limit."""


class PretrainConfig(RunConfig):
    """One pretraining run."""

    data: DataConfig
    mixture: tuple[CorpusConfig, ...] = ()
    """Corpora besides `data`, which takes the share that they leave."""
    sequence_length: int = Field(4096, ge=2)
    """Tokens per block."""
    packing: Literal["best-fit", "concat"] = "best-fit"
    """How documents share blocks; see data/packing/packed_dataset.py."""

    @property
    def base(self) -> str:
        """The model that training starts from: the given one, or the random one of this run."""
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
"""Keys that a run which continues may not change: the model, and which samples come when."""
