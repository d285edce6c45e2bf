"""What is kept of the forward pass for the backward pass, and whether layers are compiled.

none        everything: the quickest, where memory is enough
selective   of every layer its input, what attention gives and every second matrix product; the rest is
            computed again (the policy of torchtitan): a few per cent slower than none
full        of every layer its input only: about a third more work
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
"""Operators whose results `selective` keeps."""
PRODUCTS = {"aten::mm", "aten::addmm"}
"""Operators of which it keeps every second one."""


def prepare(model: Any, config: ModelConfig) -> None:
    """Set activation checkpointing, and compile each layer where that is asked for."""
    if config.activation_checkpointing != "none":
        options: dict[str, Any] = {"use_reentrant": False}
        if config.activation_checkpointing == "selective":
            options["context_fn"] = _selective
        model.gradient_checkpointing_enable(options)
    if config.compile:
        for layer in layers(model):
            layer.compile()


def check(config: ModelConfig, zero_stage: int) -> None:
    """UserError where layers are to be compiled and cannot be, or ZeRO 3 would repeat a part of a layer."""
    if zero_stage == 3 and config.activation_checkpointing == "selective":
        raise UserError(
            "model.activation_checkpointing=selective does not work with deepspeed.zero_stage=3: a layer's"
            " weights are gone when a part of it is repeated. Set it to full or none, or zero_stage to 2."
        )
    if config.compile and (zero_stage == 3 or config.activation_checkpointing == "selective"):
        raise UserError(
            "model.compile works with deepspeed.zero_stage 0 to 2 (ZeRO 3 gathers weights inside the layers,"
            " which breaks the graph) and with model.activation_checkpointing none or full. Change one."
        )


def layers(model: Any) -> list[torch.nn.Module]:
    """The decoder's layers: the longest list of modules in the model."""
    lists = [list(module) for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len)


def _selective() -> Any:
    """Contexts of one layer's forward pass and of its repetition; each counts its matrix products anew."""
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
