"""The variants of `benchmarks.train`: ours, transformers' Trainer with DeepSpeed, TRL's SFTTrainer."""

import json
import resource
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

Timed = tuple[list[float], list[int]]
"""The end time and the useful tokens of each step."""


def work(way: str, folder: Path) -> dict[str, float]:
    """Train one variant for the plan's steps, after two untimed ones."""
    import deepspeed  # noqa: F401  imported before memory is measured, like transformers and TRL
    import torch
    import trl  # noqa: F401
    from transformers import Trainer  # noqa: F401

    from core.distributed import process_group
    from core.model.flops import flops_per_token, peak_flops
    from data.packing.indexed_dataset import Documents

    plan = json.loads((folder / "plan.json").read_text("utf-8")) | {"folder": str(folder)}
    world = process_group.setup(30)
    imports = peak_mib(torch)
    documents = Documents(folder / "corpus/pack/train")
    tool, rows = way.split("-")
    run = {"ours": run_ours, "trainer": run_trainer, "trl": run_trl}[tool]
    times, useful = run(plan, documents, rows, plan["steps"] + 2, world)
    speed = sum(useful[2:]) / (times[-1] - times[1])
    peak_memory = peak_mib(torch) - imports
    with torch.device("meta"):
        flops = flops_per_token(model_of(plan, "sdpa"), plan["length"])
    return {
        "tokens_per_s": round(speed, 1),
        "mfu": round(speed * flops / peak_flops(world.device), 4),
        "peak_mib": round(peak_memory, 1),
    }


def model_of(plan: dict[str, Any], attention: str) -> Any:
    """The model with random weights, on the default device."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(**plan["architecture"], max_position_embeddings=plan["length"])
    dtype = torch.bfloat16 if plan["bf16"] else torch.float32
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)


def equal_rows(documents: Any, length: int) -> list[np.ndarray]:
    """Rows of `length` + 1 token ids, each treated as one document."""
    whole = np.concatenate([documents[i] for i in range(len(documents))]).astype(np.int64)
    return [whole[i : i + length + 1] for i in range(0, len(whole) - length, length + 1)]


class Equal:
    """Equal rows, in the format of the training loop."""

    def __init__(self, rows: list[np.ndarray]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        row = self.rows[index]
        return {"input_ids": row[:-1], "position_ids": np.arange(len(row) - 1), "labels": row[1:]}


class Clock:
    """A logger that only records when each step ended."""

    every_steps = 1000

    def __init__(self) -> None:
        self.times: list[float] = []

    def advance(self) -> None:
        """Record the end of a step."""
        self.times.append(now())

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def now() -> float:
    """The time in seconds, after the device has finished its queue."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def run_ours(plan: dict[str, Any], documents: Any, rows: str, steps: int, world: Any) -> Timed:
    """This project's training loop."""
    from core.checkpoint.progress import Progress
    from core.config.schema import (
        DeepSpeedConfig,
        ModelConfig,
        OptimizerConfig,
        ScheduleConfig,
        TrainingConfig,
    )
    from core.distributed import deepspeed_backend
    from core.model import activation_checkpointing, loss_head
    from core.model import varlen_attention as attention
    from core.model.parameter_groups import group_elements
    from core.train.loop import Batches, fit
    from core.train.optim import make_optimizer
    from data.packing.packed_dataset import Blocks

    batch = plan["micro_batch"] * plan["accumulation"]
    training = TrainingConfig(
        steps=steps, global_batch_size=batch, micro_batch_size=plan["micro_batch"],
        validate_every_steps=None, precision="bf16" if plan["bf16"] else "fp32",
    )  # fmt: skip
    config = ModelConfig(
        path="random", activation_checkpointing=plan["checkpointing"], compile=plan["compile"]
    )
    activation_checkpointing.check(config, 1)
    chosen, _ = deepspeed_backend.settings(DeepSpeedConfig(zero_stage=1, gradient_dtype="bf16"), training)
    attention.register()
    with world.device:
        model = model_of(plan, attention.NAME)
    activation_checkpointing.prepare(model, config)
    loss_head.install(model, config.cross_entropy)
    engine = deepspeed_backend.initialize(
        model, make_optimizer(model, OptimizerConfig(), group_elements(1)), chosen
    )
    length = plan["length"]
    data: Any = Equal(equal_rows(documents, length))
    if rows == "packed":
        data = Blocks(documents, length, packing="best-fit", padding_id=2)
    clock: Any = Clock()
    fit(
        engine, data, None, Progress(), training=training, schedule=ScheduleConfig(), learning_rate=2e-5,
        world=world, log=clock, save=lambda _: None,
    )  # fmt: skip
    order = Batches(data, training, steps * batch, world)
    labels = (data[order.index(i)]["labels"] for i in range(steps * batch))
    return clock.times, by_step([int((label != loss_head.IGNORED).sum()) for label in labels], steps)


def run_trainer(plan: dict[str, Any], documents: Any, rows: str, steps: int, world: Any) -> Timed:
    """transformers' Trainer with DeepSpeed."""
    from transformers import Trainer, TrainingArguments

    length, wanted = plan["length"], steps * plan["micro_batch"] * plan["accumulation"]
    order = np.random.default_rng(0).permutation(len(documents))
    if rows == "equal":
        chosen = [row[:-1] for row in equal_rows(documents, length)]
    elif rows == "concat":
        whole = np.concatenate([documents[i] for i in order]).astype(np.int64)
        chosen = [whole[i : i + length] for i in range(0, len(whole) - length, length)]
    else:
        chosen = [documents[i][:length].astype(np.int64) for i in order]
    samples = [padded(row, length) for row in (chosen * wanted)[:wanted]]
    useful = [int((sample["labels"][1:] != -100).sum()) for sample in samples]
    arguments = TrainingArguments(**settings(plan, steps))
    with world.device:
        model = model_of(plan, "sdpa")
    return timed(Trainer(model, arguments, train_dataset=samples)), by_step(useful, steps)


def run_trl(plan: dict[str, Any], documents: Any, _rows: str, steps: int, world: Any) -> Timed:
    """TRL's SFTTrainer with its default packing."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    length = plan["length"]
    ids = [documents[i].astype(np.int64).tolist() for i in range(len(documents))]
    pieces = [row[i : i + length] for row in ids for i in range(0, len(row), length)]
    arguments = SFTConfig(packing=True, max_length=length, **settings(plan, steps))
    with world.device:
        model = model_of(plan, "sdpa")
    trainer = SFTTrainer(
        model, arguments, train_dataset=Dataset.from_dict({"input_ids": pieces}),
        processing_class=AutoTokenizer.from_pretrained(Path(plan["folder"]) / "corpus/tokenizer"),
    )  # fmt: skip
    useful: list[int] = []
    collate = trainer.data_collator

    def counted(samples: Any) -> Any:
        batch = collate(samples)
        useful.append(int((batch["labels"][:, 1:] != -100).sum()))
        return batch

    trainer.data_collator = counted
    times = timed(trainer)
    return times, by_step(useful[: steps * plan["accumulation"]], steps)


def by_step(counts: list[int], steps: int) -> list[int]:
    """Counts summed by step; each step has the same number of counts."""
    return [int(part.sum()) for part in np.split(np.array(counts), steps)]


def settings(plan: dict[str, Any], steps: int) -> dict[str, Any]:
    """The settings of both peers; everything else, including the fused AdamW, is their default."""
    from core.config.schema import DeepSpeedConfig, TrainingConfig
    from core.distributed import deepspeed_backend

    training = TrainingConfig(
        micro_batch_size=plan["micro_batch"], precision="bf16" if plan["bf16"] else "fp32"
    )
    zero, _ = deepspeed_backend.settings(DeepSpeedConfig(zero_stage=1, gradient_dtype="bf16"), training)
    del zero["managed_gradient_accumulation"]
    zero["gradient_clipping"] = "auto"  # as ours: 1, the default of both
    zero["gradient_accumulation_steps"] = plan["accumulation"]
    return {
        "output_dir": str(Path(plan["folder"]) / "peer"), "max_steps": steps,
        "per_device_train_batch_size": plan["micro_batch"],
        "gradient_accumulation_steps": plan["accumulation"], "use_cpu": not plan["cuda"],
        "bf16": plan["bf16"], "deepspeed": zero, "report_to": [], "save_strategy": "no",
        "logging_steps": 1000, "disable_tqdm": True, "learning_rate": 2e-5, "torch_compile": plan["compile"],
        "gradient_checkpointing": plan["checkpointing"] != "none",
        "use_liger_kernel": plan["cuda"] and find_spec("liger_kernel") is not None,
    }  # fmt: skip


def padded(row: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """A row padded to `length` token ids, with mask and labels."""
    padding = length - len(row)
    return {
        "input_ids": np.pad(row, (0, padding), constant_values=2),
        "attention_mask": np.pad(np.ones_like(row), (0, padding)),
        "labels": np.pad(row, (0, padding), constant_values=-100),
    }


def timed(trainer: Any) -> list[float]:
    """Train, and return the end time of each step."""
    from transformers import TrainerCallback

    times: list[float] = []

    class Note(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(now())

    trainer.add_callback(Note())
    trainer.train()
    return times


def peak_mib(torch: Any) -> float:
    """Peak memory so far, of the GPU or of the process."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
