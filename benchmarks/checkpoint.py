"""How long a checkpoint stalls training: written synchronously, and in the background from a host copy.

    python -m benchmarks.checkpoint [--quick]

One small LLaMA on one process, ZeRO 1, fp32 on a CPU (bf16 with fp32 masters on a GPU). `at once` is a
checkpoint that training waits for, `background` one that it does not wait for; they alternate. The stall is
the time until training continues. Steps taken while the thread writes are timed too: on a CPU the thread
competes for the cores. The share of ten minutes is simply this model's stall divided by 600 s.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.result import print_result

LENGTH = 256
SHAPE = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}


class Tokenizer:
    """Stand-in: the tokenizer is not measured."""

    def save_pretrained(self, folder: Path) -> None:
        """Write nothing."""


def main() -> None:
    """Save both ways alternately and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under 4 minutes")
    rounds = 3 if parser.parse_args().quick else 9
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), rounds)
    print_result("checkpoint", ("torch", "deepspeed", "safetensors"), results, table=True)


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Medians over `rounds` checkpoints each way."""
    from core.checkpoint import save as checkpoint
    from core.checkpoint.async_writer import Background
    from core.checkpoint.progress import Progress
    from core.distributed import process_group

    world = process_group.setup(30)
    engine, step = make(folder, world)
    for _ in range(3):
        step()
    quiet = [timed(step) for _ in range(8)]
    found: dict[str, list[float]] = {name: [] for name in ("at once", "background", "written", "beside")}
    background = Background(world, lambda _: None)
    for number in range(rounds):
        progress = Progress(step=2 * number + 1)

        def save(writer: Background | None, progress: Any = progress) -> Path:
            return checkpoint.save(
                engine, Tokenizer(), folder / "checkpoints", progress, world, config={}, inputs=dict, keep=1,
                background=writer,
            )  # fmt: skip

        found["at once"].append(timed(lambda: save(None)))
        step()
        progress.step += 1
        begun = time.perf_counter()
        found["background"].append(timed(lambda: save(background)))
        while not (folder / "checkpoints" / f"step-{progress.step:08d}").exists():
            found["beside"].append(timed(step))
        background.wait()
        found["written"].append(time.perf_counter() - begun)
    size = sum(file.stat().st_size for file in (folder / "checkpoints").glob("step-*/**/*") if file.is_file())
    middle = {name: statistics.median(values) for name, values in found.items()}
    return {
        "checkpoint_mib": size / 2**20,
        "stall_at_once_s": middle["at once"],
        "stall_s": middle["background"],
        "stall_ratio": middle["background"] / middle["at once"],
        "stall_share_of_10_minutes_ratio": middle["background"] / 600,
        "copied_mib_per_s": size / 2**20 / middle["background"],
        "written_at_once_mib_per_s": size / 2**20 / middle["at once"],
        "step_s": statistics.median(quiet),
        "step_while_writing_ratio": middle["beside"] / statistics.median(quiet),
        "background_write_s": middle["written"],
    }


def make(folder: Path, world: Any) -> tuple[Any, Callable[[], None]]:
    """An engine, and a function that runs one step."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from core.config.schema import DeepSpeedConfig, ModelConfig, OptimizerConfig, TrainingConfig
    from core.distributed import deepspeed_backend
    from core.model.loading import load_model
    from core.model.loss_head import summed_loss
    from core.train.optim import make_optimizer

    LlamaForCausalLM(LlamaConfig(vocab_size=8000, **SHAPE)).save_pretrained(folder / "base")
    chosen, dtype = deepspeed_backend.settings(DeepSpeedConfig(zero_stage=1), TrainingConfig(steps=1))
    model = load_model(str(folder / "base"), ModelConfig(path=str(folder / "base")), dtype)
    engine = deepspeed_backend.initialize(model, make_optimizer(model, OptimizerConfig()), chosen)
    ids = torch.randint(8000, (1, LENGTH), device=world.device)
    positions = torch.arange(LENGTH, device=world.device)[None]
    batch = {"input_ids": ids, "position_ids": positions, "labels": ids}

    def step() -> None:
        engine.backward(summed_loss(engine, batch) / LENGTH, scale_wrt_gas=False)
        engine.step()

    return engine, step


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
