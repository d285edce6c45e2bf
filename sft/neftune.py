"""NEFTune: uniform noise on embedded tokens while training (arXiv:2310.05914)."""

import math
from typing import Any

import torch


def install(model: Any, alpha: float, parts: int = 1) -> None:
    """Add noise of up to alpha / sqrt(L D) to each value that the input embedding gives, in training only.

    L is the length of a row, padding and other chats of it included, D the width. A row may be in `parts`,
    each on another process.
    """

    def disturb(layer: torch.nn.Module, _: Any, embedded: torch.Tensor) -> torch.Tensor:
        if not layer.training:
            return embedded
        bound = alpha / math.sqrt(parts * embedded.shape[-2] * embedded.shape[-1])
        return embedded + torch.empty_like(embedded).uniform_(-bound, bound)

    model.get_input_embeddings().register_forward_hook(disturb)
