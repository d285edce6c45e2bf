"""Model FLOP utilisation (MFU) as in PaLM's appendix B (arXiv:2204.02311).

A token costs 6 N + 12 L H Q T operations, forward and backward: N the parameters without the input embedding,
L layers, H heads of Q dimensions, T the sequence length (the skipped causal half counts as done, as in the
paper). A frozen weight costs 4, because its gradient is not computed. Recomputation by activation
checkpointing is not counted. MFU is the rate of these operations divided by the card's dense bf16 peak.
"""

import math
import time
from typing import Any

import torch

PEAK_TFLOPS = {
    "B200": 2250.0, "B300": 2250.0, "GH200": 989.4, "H200": 989.4, "H100 PCIe": 756.0, "H100 NVL": 835.0,
    "H100": 989.4, "H800": 989.4, "H20": 148.0, "A100": 311.9, "A800": 311.9, "A30": 165.0, "A10G": 70.0,
    "A10": 125.0, "A40": 149.7, "L40S": 362.0, "L40": 181.0, "L4": 121.0, "RTX 6000 Ada": 364.2,
    "RTX A6000": 154.8, "RTX 4090": 165.2, "RTX 3090": 71.0, "MI300X": 1307.4, "MI250X": 383.0,
}  # fmt: skip
"""Dense bf16 products with fp32 sums, in 1e12 operations per second, from the vendors' data sheets."""


def flops_per_token(model: Any, sequence_length: int) -> float:
    """Operations per trained token of this model, whether or not ZeRO 3 has partitioned it."""
    config = model.config.get_text_config()
    inputs = model.get_input_embeddings().weight
    tied = inputs is model.get_output_embeddings().weight
    parameters = sum(_elements(p) for p in model.parameters())
    parameters -= 0 if tied else _elements(inputs)
    frozen = sum(_elements(p) for p in model.parameters() if not p.requires_grad and p is not inputs)
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return float(6.0 * parameters - 2.0 * frozen + 12.0 * config.num_hidden_layers * width * sequence_length)


def _elements(parameter: Any) -> int:
    """Elements of a weight that may be partitioned by ZeRO 3 or packed in 4 bits."""
    if getattr(parameter, "quant_state", None) is not None:
        return math.prod(parameter.quant_state.shape)
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def peak_flops(device: torch.device) -> float:
    """Peak operations per second of `device`: from the table, else from a timed matrix product."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for card in sorted(PEAK_TFLOPS, key=len, reverse=True):
            if card.lower() in name.lower():
                return PEAK_TFLOPS[card] * 1e12
    return timed_product(device)


def timed_product(device: torch.device, repeats: int = 5) -> float:
    """Operations per second of a large matrix product, best of `repeats`: bf16 on a GPU, fp32 on a CPU."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        product = matrix @ matrix
        product[0, 0].item()  # waits for the GPU
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
