"""How much of a model a delta contains whole, which anybody can have without the base.

Deltas exist because a base's licence does not allow publishing the model. Where base and target differ in
type or shape, their tensors cannot be stored as differences, and the delta is the model under another name.
"""

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

from core.errors import UserError
from delta.codec import ITEMSIZE
from delta.delta_format import Delta
from delta.safetensors_io import Tensor, is_computed

MOST = 0.5
"""A larger share is refused, or warned of."""


def check(
    pairs: Iterable[tuple[Tensor, Tensor | None]], base: Mapping[str, Tensor], *, allow_whole: bool
) -> str:
    """A warning if most of the target would be stored whole; "" if not. UserError unless that is allowed.

    `pairs`: each tensor of the target and the one of `base` that it is a difference to.
    """
    found = [(tensor, of_base) for tensor, of_base in pairs if not is_computed(tensor)]
    share = _share(found)
    if share <= MOST:
        return ""
    whole = [tensor for tensor, of_base in found if of_base is None]
    text = f"{len(whole):,} of {len(found):,} tensors would be stored whole (a share of {share:.0%})"
    text += f", e.g. {_beside(whole[0], base)}" if whole else ", in new rows"
    text += ": whoever has the delta has that much of the model without its base"
    if allow_whole:
        return text
    raise UserError(
        f"{text}. Give base and tuned model in the same type (from_pretrained with dtype and save_pretrained"
        " convert one; `python -m sft merge --dtype` merges in any), or pass --allow-whole if the model may"
        " be published."
    )


def warning(delta: Delta) -> str:
    """That most of a delta's target is stored whole in it; "" if not."""
    pairs = [
        (_tensor(name, each.dtype, each.shape), _tensor(name, each.dtype, each.base_shape))
        for name, each in delta.tensors.items()
    ]
    share = _share([(tensor, of_base) for tensor, of_base in pairs if tensor and not is_computed(tensor)])
    if share <= MOST:
        return ""
    return f"a share of {share:.0%} of the model is stored whole: this delta publishes it without its base"


def _beside(tensor: Tensor, base: Mapping[str, Tensor]) -> str:
    of_base = base.get(tensor.name)
    there = f"{of_base.dtype} {list(of_base.shape)} in the base" if of_base else "not in the base"
    return f"{tensor.name}: {tensor.dtype} {list(tensor.shape)}, {there}"


def _tensor(name: str, dtype: str, shape: list[int] | None) -> Tensor | None:
    return (
        None if shape is None else Tensor(name, dtype, tuple(shape), Path(), 0, prod(shape) * ITEMSIZE[dtype])
    )


def _share(pairs: list[tuple[Tensor, Tensor | None]]) -> float:
    """By elements in bytes of the target, or by tensors, whichever is larger; new rows are whole too."""
    own = sum(
        max(0, tensor.elements - (of_base.elements if of_base else 0)) * ITEMSIZE[tensor.dtype]
        for tensor, of_base in pairs
    )
    number = sum(tensor.size > 0 and of_base is None for tensor, of_base in pairs)
    return max(own / max(1, sum(tensor.size for tensor, _ in pairs)), number / max(1, len(pairs)))
