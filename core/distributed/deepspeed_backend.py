"""The one place where DeepSpeed's own configuration keys are written.

DeepSpeed gets the model and a torch optimiser; loss normalisation, accumulation, schedule and checkpoints'
names stay in the training loop. A user's own DeepSpeed JSON is merged last, key by key.
"""

import io
import json
import logging
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from core.config.schema import DeepSpeedConfig, TrainingConfig
from core.errors import UserError
from core.model.lora import is_adapted


def settings(config: DeepSpeedConfig, training: TrainingConfig) -> tuple[dict[str, Any], torch.dtype]:
    """DeepSpeed's configuration for this run, and the dtype in which the model is loaded.

    `managed_gradient_accumulation` is off: `engine.step()` is the boundary, so that any number of backward
    passes makes one optimiser step. Clipping and refusing are the guard's (core/train/spike_guard.py).
    """
    precision = training.precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() else "fp32"
    if config.zero_stage == 0 and precision == "bf16":
        raise UserError(
            "deepspeed.zero_stage=0 keeps no fp32 copy of bf16 weights, so small updates are lost. Use"
            " zero_stage=1 (on one GPU it costs nothing more), or training.precision=fp32."
        )
    chosen: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0,
        "zero_optimization": {"stage": config.zero_stage, "overlap_comm": False},
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
    if precision == "bf16":
        chosen["bf16"] = {"enabled": True, "check_grad_overflow": False}
        chosen["data_types"] = {"grad_accum_dtype": config.gradient_dtype}
    if config.json_file:
        _merge(chosen, _read_json(Path(config.json_file)))
    if chosen["gradient_clipping"]:  # both would clip
        raise UserError("deepspeed.json_file: replace gradient_clipping by training.max_gradient_norm.")
    return chosen, torch.bfloat16 if precision == "bf16" else torch.float32


def keep_partitioned(chosen: dict[str, Any]) -> object | None:
    """At stage 3, tell transformers to split weights while it loads them; hold the result until the engine
    stands."""
    if chosen["zero_optimization"]["stage"] < 3:
        return None
    from transformers.integrations import HfDeepSpeedConfig

    kept: object = HfDeepSpeedConfig(chosen)
    return kept


def initialize(model: torch.nn.Module, optimizer: torch.optim.Optimizer, chosen: dict[str, Any]) -> Any:
    """The DeepSpeed engine around `model` and `optimizer`."""
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    with redirect_stdout(io.StringIO()):  # its bf16 optimizer prints the memory in use (`MA 1.82 GB …`)
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=chosen)
    return engine


def load_state(engine: Any, folder: Path, *, universal: bool) -> None:
    """Load DeepSpeed's files in `folder`/state, be they in its universal form; collective.

    From the universal form, ZeRO 3 gives every parameter group the settings of the first, weight decay among
    them, and all of them one and the same counter of steps, which then counts each step several times (seen
    in 0.19.8). The configuration's settings are put back; every group gets a counter of its own.
    """
    groups = engine.optimizer.param_groups
    settings = [{name: value for name, value in group.items() if name != "params"} for group in groups]
    engine._config.load_universal_checkpoint = universal
    loaded, _ = engine.load_checkpoint(
        str(folder), tag="state", load_module_strict=not is_adapted(engine.module)
    )
    assert loaded is not None, f"DeepSpeed found nothing to load in {folder}"
    for group, own in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(own)
    inner = engine.optimizer.optimizer if engine.zero_optimization() else engine.optimizer
    for state in inner.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"deepspeed.json_file: {file}: there is no such file.") from None
    except ValueError as error:
        raise UserError(f"deepspeed.json_file: {file} is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"deepspeed.json_file: {file}: expected an object.")
    return content


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
