"""Optimizers: AdamW with weight decay on matrices only, fused or paged.

`core/model/memory_estimate.py` assumes AdamW's two moments.
"""

import torch

from core.config.schema import OptimizerConfig


def make_optimizer(model: torch.nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices, one fused kernel on a GPU and on a CPU."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    dimensions = {
        id(parameter): len(getattr(parameter, "ds_shape", parameter.shape)) for parameter in parameters
    }
    groups = [
        {"params": [p for p in parameters if dimensions[id(p)] >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if dimensions[id(p)] < 2], "weight_decay": 0.0},
    ]
    if config.name == "paged_adamw_32bit":
        from bitsandbytes.optim.adamw import PagedAdamW32bit

        paged: torch.optim.Optimizer = PagedAdamW32bit(
            groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon
        )
        return paged
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True
    )
