"""Configuration of a fine-tuning run, and of the stages that one file may list.

    stages:
      - {name: general}
      - {name: domain, data: {…}, optimizer: {learning_rate: 1e-5}}

A stage is the file's configuration with the stage's keys replaced. It has its own folder in `run_dir` and
starts from the model, or the adapter, of the stage before it.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from core.config.schema import ModelConfig, RunConfig, TrainingConfig
from core.errors import UserError
from data.chat.config import ChatDataConfig


class TuningConfig(TrainingConfig):
    """`training` of a tuning run, which applies what pretraining takes for a spike."""

    spike_z: float | None = Field(None, gt=0)
    """Skip a step if its loss or gradient norm is more than this many robust standard deviations above the
    last 128 steps. null: apply every step with finite gradients; clipping bounds it. A kind of chat that is
    rare has a high loss whenever it comes up, and would not be learnt."""


class SftConfig(RunConfig):
    """One instruction-tuning run, or several stages in sequence."""

    data: ChatDataConfig
    packing: Literal["best-fit", "none"] = "best-fit"
    """best-fit: several chats per row of `data.max_tokens`, with attention inside each chat only. none: one
    chat per row. A sample in `training` is a row."""
    neftune_alpha: float | None = Field(None, gt=0)
    """Noise on the embeddings during training (NEFTune, arXiv:2310.05914), usually 5 to 15; null: none."""
    validation_tokens: int | None = Field(200_000, ge=1)
    """Approximate number of held-out tokens per validation (whole chats); null: all."""
    publish: Literal["best", "last"] = "best"
    """Which model becomes `run_dir`/model: the one with the lowest validation loss, or the last."""
    training: TuningConfig = TuningConfig()
    stages: tuple[dict[str, Any], ...] = ()
    """Stages to run in sequence: each has a `name` and the keys that differ from this file."""

    @field_validator("model")
    @classmethod
    def _has_weights(cls, model: ModelConfig) -> ModelConfig:
        if model.path is None:
            raise ValueError("fine-tuning needs a trained model; set `model.path`")
        return model

    @property
    def base(self) -> str:
        """The starting model."""
        assert self.model.path is not None
        return self.model.path


FIXED = ("model", "data", "packing", "neftune_alpha", "training.seed", "training.global_batch_size",
         "training.precision")  # fmt: skip
"""Keys that may not change when a run resumes."""


def stages(config: SftConfig) -> list[SftConfig]:
    """The stages of a configuration, in order; UserError if one is invalid."""
    if not config.stages:
        return [config]
    shared = config.model_dump(mode="json", exclude_unset=True) | {"stages": []}
    found: list[SftConfig] = []
    for number, stage in enumerate(config.stages):
        name = stage.get("name")
        if not isinstance(name, str) or not name or "/" in name:
            raise UserError(f"stages.{number}: `name` is missing or contains `/`; it becomes a folder.")
        tree = merged(shared, {key: value for key, value in stage.items() if key != "name"})
        tree["run_dir"] = str(Path(config.run_dir) / name)
        if found:
            tree["model"] = merged(tree["model"], _following(found[-1]))
        try:
            found.append(SftConfig.model_validate(tree))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise UserError(f"stages.{number} ({name}): `{key}`: {first['msg']}.") from None
    folders = [stage.data.output_dir for stage in found]
    names = [stage.run_dir for stage in found]
    if len(set(names)) < len(names) or len(set(folders)) < len(folders):
        raise UserError("stages: each stage needs its own `name` and `data.output_dir`.")
    return found


def merged(tree: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`tree` updated with the keys of `other`, section by section."""
    both = dict(tree)
    for key, value in other.items():
        into = both.get(key)
        both[key] = merged(into, value) if isinstance(value, dict) and isinstance(into, dict) else value
    return both


def _following(before: SftConfig) -> dict[str, Any]:
    """Where the next stage starts: the previous stage's whole model, or its adapter on the same base."""
    left = str(Path(before.run_dir) / "model")
    return {"path": left} if before.model.adapter is None else {"adapter": {"path": left}}
