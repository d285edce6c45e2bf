"""What a fine-tuning run can be told, and the stages that one file may hold.

    stages:
      - {name: general}
      - {name: domain, data: {…}, optimizer: {learning_rate: 1e-5}}

Every stage is the file's configuration with what the stage says in its place; it has a folder of its own in
`run_dir` and begins from the model, or the adapter, that the one before it left.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from core.config.schema import ModelConfig, RunConfig
from core.errors import UserError
from data.chat.config import ChatDataConfig


class SftConfig(RunConfig):
    """One instruction-tuning run, or several, one after the other."""

    data: ChatDataConfig
    packing: Literal["best-fit", "none"] = "best-fit"
    """best-fit: several chats share a row of `data.max_tokens` and do not see each other; none: one chat a
    row. Samples in `training` are rows."""
    neftune_alpha: float | None = Field(None, gt=0)
    """Noise on embedded tokens during training (NEFTune, arXiv:2310.05914), 5 to 15; null for none."""
    validation_tokens: int | None = Field(200_000, ge=1)
    """Approximate number of held-out tokens per validation, in whole chats; null for all."""
    publish: Literal["best", "last"] = "best"
    """Which model becomes `run_dir`/model: the one with the lowest validation loss, or the last."""
    stages: tuple[dict[str, Any], ...] = ()
    """Runs one after the other: each a `name` and the keys in which it differs from this file."""

    @field_validator("model")
    @classmethod
    def _has_weights(cls, model: ModelConfig) -> ModelConfig:
        if model.path is None:
            raise ValueError("fine-tuning needs a trained model: give `model.path`")
        return model

    @property
    def base(self) -> str:
        """The model that training starts from."""
        assert self.model.path is not None
        return self.model.path


FIXED = ("model", "data", "packing", "neftune_alpha", "training.seed", "training.global_batch_size",
         "training.precision")  # fmt: skip
"""What a run that goes on may not change."""


def stages(config: SftConfig) -> list[SftConfig]:
    """The runs that a configuration asks for, in their order; UserError where a stage is not right."""
    if not config.stages:
        return [config]
    shared = config.model_dump(mode="json", exclude_unset=True) | {"stages": []}
    found: list[SftConfig] = []
    for number, stage in enumerate(config.stages):
        name = stage.get("name")
        if not isinstance(name, str) or not name or "/" in name:
            raise UserError(f"stages.{number}: every stage needs a `name`, which becomes its folder's.")
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
        raise UserError("stages: every stage needs a `name` and a `data.output_dir` of its own.")
    return found


def merged(tree: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`tree` with the keys of `other` in place, section by section."""
    both = dict(tree)
    for key, value in other.items():
        into = both.get(key)
        both[key] = merged(into, value) if isinstance(value, dict) and isinstance(into, dict) else value
    return both


def _following(before: SftConfig) -> dict[str, Any]:
    """Where the next stage begins: the whole model of the one before, or its adapter on the same base."""
    left = str(Path(before.run_dir) / "model")
    return {"path": left} if before.model.adapter is None else {"adapter": {"path": left}}
