"""Which activations are kept for the backward pass, and whether layers are compiled.

none        all: the fastest, if memory allows it
selective   of every layer its input, the attention's output and every second matrix product; the rest is
            recomputed (torchtitan's policy): a few per cent slower than none. Of compiled layers half of
            what they would keep: torch recomputes what costs least
full        of every layer its input only: about a third more compute
"""

from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from core.config.schema import ModelConfig
from core.errors import UserError

ATTENTION = {
    "torch_attn::_varlen_attn",  # of core/model/varlen_attention.py on a GPU
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "flash_attn::_flash_attn_forward",
    "flash_attn::_flash_attn_varlen_forward",
}
"""Operators whose outputs `selective` keeps."""
PRODUCTS = {"aten::mm", "aten::addmm"}
"""Operators of which it keeps every second output."""
GRAPHS = 64
"""Variants that a layer may be compiled in: for training and validation, by shape. torch allows 8, and runs
further ones uncompiled."""
BUDGET = 0.5
"""What compiled layers keep with `selective`, from what cannot be recomputed (0) to all that they would keep
(1): torch._functorch.config.activation_memory_budget."""


def prepare(model: Any, config: ModelConfig) -> None:
    """Set activation checkpointing, and compile each layer if `config.compile`."""
    selective = config.activation_checkpointing == "selective"
    if config.activation_checkpointing != "none" and not (selective and config.compile):
        options: dict[str, Any] = {"use_reentrant": False}
        if selective:
            options["context_fn"] = _selective
        model.gradient_checkpointing_enable(options)
    if config.compile:
        wanted = BUDGET if selective else 1.0
        if torch._functorch.config.activation_memory_budget != wanted:
            torch._functorch.config.activation_memory_budget = wanted
            torch.compiler.reset()  # what was compiled before keeps to its own budget
        dynamo = torch._dynamo.config
        dynamo.recompile_limit = max(dynamo.recompile_limit, GRAPHS)
        for layer in layers(model):
            layer.compile()


def check(config: ModelConfig, zero_stage: int) -> None:
    """UserError for settings that do not work together or at this ZeRO stage."""
    if zero_stage == 3 and config.activation_checkpointing == "selective":
        raise UserError(
            "model.activation_checkpointing=selective is not supported with deepspeed.zero_stage=3: a layer's"
            " weights are released before a part of it is recomputed. Set it to full or none, or"
            " deepspeed.zero_stage=2."
        )
    if config.compile and zero_stage == 3:
        raise UserError(
            "model.compile needs deepspeed.zero_stage 0 to 2: ZeRO 3 gathers weights inside the layers, which"
            " breaks the graph. Change one."
        )


def layers(model: Any) -> list[torch.nn.Module]:
    """The decoder's layers: the longest ModuleList in the model."""
    lists = [list(module) for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len)


def _selective() -> Any:
    """Contexts of one layer's forward pass and recomputation; each counts its matrix products from zero."""
    counts = {False: 0, True: 0}

    def policy(context: Any, operator: Any, *_: Any, **__: Any) -> CheckpointPolicy:
        if operator.name() in PRODUCTS:
            counts[context.is_recompute] += 1
            if counts[context.is_recompute] % 2:
                return CheckpointPolicy.MUST_SAVE
        return (
            CheckpointPolicy.MUST_SAVE if operator.name() in ATTENTION else CheckpointPolicy.PREFER_RECOMPUTE
        )

    return create_selective_checkpoint_contexts(policy)
