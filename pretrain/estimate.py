"""What a run will need: memory of a GPU by ZeRO stage, time and GPU-hours; nothing is loaded or trained.

    python -m pretrain estimate --config FILE --gpus 8 --tokens 10e9 [--card H200] [key=value]

Tokens per second and GPU are the given ones, else the last that the run's own metrics.jsonl holds, else 40%
of the card's peak. The total is not yet proven against the CUDA peak.
"""

import argparse
from pathlib import Path
from typing import Any

from core.config.loader import add_arguments, from_arguments
from core.errors import UserError


def main(arguments: list[str]) -> int | None:
    """Read the configuration, print the table and the time."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain estimate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser, default="configs/pretrain/tiny.yaml")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="processes of the run")
    parser.add_argument("--tokens", type=float, metavar="N", help="tokens to train on, as 10e9")
    parser.add_argument("--tokens-per-s", type=float, metavar="N", help="measured, of one GPU")
    parser.add_argument(
        "--card", default="H100", help="a card of core/model/flops.py, where nothing is measured"
    )
    parser.add_argument("--fp32", action="store_true", help="for training.precision=auto on a CPU")
    given = parser.parse_intermixed_args(arguments)
    from pretrain.config import PretrainConfig

    config = from_arguments(PretrainConfig, given)
    if config is None:
        return None
    from core.train.logger import quiet_libraries

    quiet_libraries()
    print("\n".join(lines(config, given)))
    return 0


def lines(config: Any, given: argparse.Namespace) -> list[str]:
    """The table of memory, the chosen stage marked, and the time."""
    from core.model.flops import PEAK_TFLOPS
    from core.model.memory_estimate import Memory, estimate

    if given.card not in PEAK_TFLOPS:
        raise UserError(f"--card {given.card}: not known. One of {', '.join(PEAK_TFLOPS)}.")
    micro_batches = config.training.accumulation(given.gpus)
    adapter = config.model.adapter
    if adapter is not None and adapter.path is not None:
        raise UserError(
            "model.adapter.path: set it to null, and r and target_modules as that adapter has them."
        )
    bf16 = config.training.precision == "bf16" or (config.training.precision == "auto" and not given.fp32)
    architecture = read_architecture(config)
    batch, length = config.training.micro_batch_size, config.sequence_length
    parts = config.training.sequence_parallel_size
    shared = f" on {parts} GPUs" if parts > 1 else ""
    shape = f"micro-batch {batch} x {length}{shared}, {'bf16' if bf16 else 'fp32'}"
    found = [f"GiB a GPU, {given.gpus} GPUs, {shape}:"]
    names = [*Memory.__dataclass_fields__, "total"]
    found.append("  ZeRO" + "".join(f"{name:>13}" for name in names))
    for stage in (0, 1, 2, 3):
        zero = config.deepspeed.model_copy(update={"zero_stage": stage})
        if (stage == 0 and bf16) or (stage == 3 and adapter is not None):
            continue
        needed = estimate(
            config.model, architecture, zero, processes=given.gpus, batch=batch, length=length, bf16=bf16,
            micro_batches=micro_batches, parts=parts,
        )  # fmt: skip
        mark = "*" if stage == config.deepspeed.zero_stage else " "
        found.append(f"{mark} {stage:4}" + "".join(f"{getattr(needed, n) / 2**30:13.2f}" for n in names))
    found.append("total: the peak, of a backward pass (without `step`) or of the optimizer's step.")
    if given.tokens is None:
        return found
    speed, source = given.tokens_per_s, "as given"
    if speed is None:
        speed, source = measured_speed(config, given.gpus), "measured by this run"
    if speed is None:
        speed = 0.4 * PEAK_TFLOPS[given.card] * 1e12 / flops(architecture, config.model, length)
        source = f"assumed: 40% of the peak of {given.card}"
    hours = given.tokens / speed / given.gpus / 3600
    found.append(f"{given.tokens:,.0f} tokens at {speed:,.0f} tokens/s and GPU ({source}):")
    found.append(f"  {hours:,.1f} hours, {hours * given.gpus:,.1f} GPU-hours")
    return found


def measured_speed(config: Any, gpus: int) -> float | None:
    """Tokens per second per GPU at the end of the run's metrics.jsonl; None where there are none."""
    from core.train.logger import read_metrics

    speeds = [line["tokens_per_s"] for line in read_metrics(Path(config.run_dir)) if "tokens_per_s" in line]
    return speeds[-1] / gpus if speeds else None


def flops(architecture: Any, model: Any, length: int) -> float:
    """Operations of a token, from a model without storage."""
    import torch
    from transformers import AutoModelForCausalLM

    from core.model import lora
    from core.model.flops import flops_per_token

    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(architecture)
        if model.adapter is not None:
            whole = lora.attach(whole, model.adapter, model.path or "the model", model.seed)
        return flops_per_token(whole, length)


def read_architecture(config: Any) -> Any:
    """transformers' configuration of the model; a random one gets the tokenizer's size rounded up."""
    from core.model.loading import architecture, load_config

    if config.model.architecture is None:
        return load_config(config.model.path, trust=config.model.trust_remote_code)
    size = config.data.tokenizer.vocabulary_size or 32000
    return architecture({"vocab_size": -(-size // 64) * 64} | config.model.architecture)
