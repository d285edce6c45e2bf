"""Sequence parallelism: several processes share each row (DeepSpeed-Ulysses, arXiv:2309.14509).

    a row ──core/train/dataloader.py──▶ one part of its tokens for each process of a group
    query, key, value of a part ──exchange──▶ of the whole row, for some of the heads ──attention──▶
    the result ──exchange──▶ of the part again, for all heads

Everything but attention treats each token by itself, so activations, logits and losses are those of the part.
Gradients of the parts add up in the reduction over all processes that training makes anyway, so that
DeepSpeed's engine, ZeRO and the checkpoints know nothing of groups.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from core.errors import UserError

if TYPE_CHECKING:
    from core.config.schema import ModelConfig

KEY = "training.sequence_parallel_size"
BY_LENGTH = ("dynamic", "longrope")
"""Rotary positions that transformers computes from the longest document in a forward pass, which processes of
a group do not agree on."""


def check_length(size: int, row_tokens: int) -> None:
    """UserError if `size` does not divide rows of `row_tokens` tokens into equal parts."""
    if row_tokens % size:
        raise UserError(
            f"{KEY}={size} does not divide rows of {row_tokens:,} tokens (sequence_length or"
            f" data.max_tokens) into equal parts. Set their length to a multiple of {size}, e.g."
            f" {-(-row_tokens // size) * size}."
        )


def check(size: int, described: Any, config: "ModelConfig") -> None:
    """UserError if a model of this configuration would not compute in `size` parts what it computes from
    whole rows; tried out on a tiny model of its class."""
    from core.model import proof

    if size == 1:
        return
    text, family = described.get_text_config(), described.model_type
    advice = f" Set {KEY}=1, or use another base."
    if config.attention != "documents":
        raise UserError(f"{KEY}={size} needs model.attention=documents, not {config.attention}. Change one.")
    way = proof.prove(described, config.attention, trust=config.trust_remote_code)
    if way.apart:
        raise UserError(f"{KEY}={size}: documents cannot share rows of {family}: {way.why}.{advice}")
    heads = text.num_attention_heads
    if heads % size:
        divisors = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
        raise UserError(
            f"{KEY}={size} does not divide the {heads} attention heads of {family}. Set it to one of"
            f" {divisors}. (Key-value heads may be fewer: they are repeated.)"
        )
    rope = str([getattr(text, name, None) for name in ("rope_parameters", "rope_scaling")])
    if any(f"'{kind}'" in rope for kind in BY_LENGTH):
        raise UserError(
            f"{KEY}={size}: the rotary positions of {family} (rope_type {' or '.join(BY_LENGTH)}) depend on"
            f" the longest document in a pass, which each part of a row sees another of.{advice}"
        )
    if getattr(text, "layerdrop", 0):
        raise UserError(
            f"{KEY}={size}: {family} drops layers at random (layerdrop), on each process others. Set"
            " layerdrop to 0 in its config.json."
        )
    if not proof.by_token(described, trust=config.trust_remote_code):
        raise UserError(
            f"{KEY}={size}: parts of a row of {family} would not have the loss of the row (tried out on a"
            f" tiny model): it mixes tokens outside its attention.{advice}"
        )


def exchange(tensor: torch.Tensor, size: int, send: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """(B, P a, b, D) to (B, a, P b, D) among P = `size` processes, by the all-to-all `send`: a part of the
    tokens (B, H, L/P, D) becomes some of the heads (B, H/P, L, D), and (B, L, H/P, D) becomes (B, L/P, H,
    D)."""
    parts = tensor.unflatten(1, (size, -1)).transpose(0, 1).contiguous()
    return send(parts).movedim(0, 2).flatten(2, 3)


def repeated(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Key or value heads (B, G, L, D), each repeated as often as it takes for `size` to divide them. Each
    process then has the heads that its query heads need, as H is a multiple of both G and `size`."""
    times = math.lcm(tensor.shape[1], size) // tensor.shape[1]
    return tensor if times == 1 else tensor.repeat_interleave(times, 1)


@torch.compiler.disable
def all_to_all(parts: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Send part i of (P, …) to process i of a group; returns what they sent to this process."""
    received: torch.Tensor = _AllToAll.apply(parts, group)
    return received


class _AllToAll(torch.autograd.Function):
    """Part i of (P, …) goes to process i; the gradient goes back the same way."""

    @staticmethod
    def forward(ctx: Any, parts: Any, group: Any) -> torch.Tensor:
        ctx.group = group
        received = torch.empty_like(parts)
        dist.all_to_all_single(received, parts, group=group)
        return received

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        return _AllToAll.apply(upstream[0].contiguous(), ctx.group), None
